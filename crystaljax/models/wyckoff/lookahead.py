"""Look-ahead: space groups, formula units and first letters by the probability to meet a demand.

The distribution of the first letter and element is exact, from the network. The probability of the
remaining sites is estimated (`Occupations.log_ways`, `constraints.log_later`); importance weights
correct the estimate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, Batch
from crystaljax.models.wyckoff.constraints import LATER, Composition, Constraints, Demanded, Places
from crystaljax.models.wyckoff.decoder import Decoder
from crystaljax.models.wyckoff.demands import Demand
from crystaljax.symmetry.occupations import Outlook, group_tables, table_size
from crystaljax.symmetry.placements import Atoms, Template, occupancies, strides
from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES

K_STEP = 8
"""The number of elements of compositions is padded to a multiple of this, for few compilations."""

PLACES = 2**22, 2**26
"""Sizes of a batch's tables: few, for the same reason."""

EXPLORE = 0.02
"""Share of candidates whose start is drawn without look-ahead."""


class FirstSites:
    """The network's distributions of first letters and elements, for some space groups.

    Args:
      decoder: the network.
      groups: bool [230].
      of_elements: bool [230], the groups for which elements are needed.
    """

    def __init__(self, decoder: Decoder, groups: np.ndarray, of_elements: np.ndarray) -> None:
        letters, species = decoder.first_choices(groups, of_elements)
        exists = (tables().multiplicity > 0) & groups[:, None]
        self.group, self.letter = np.nonzero(exists)
        logp = letters - _logsumexp(letters.astype(np.float64))[:, None]
        self._letters = logp[exists]
        self._logits = species[exists].astype(np.float64)
        self._largest = self._logits.max(axis=1)
        self._relative = np.exp(self._logits - self._largest[:, None])
        self._totals: dict[bytes, np.ndarray] = {}

    def total(self, elements: np.ndarray) -> np.ndarray:
        """float64 [P]: ln Σ exp(logits) over elements, bool [119]."""
        key = elements.tobytes()
        if key not in self._totals:
            with np.errstate(divide="ignore"):
                self._totals[key] = np.log(self._relative @ elements) + self._largest
        return self._totals[key]

    def of_groups(self, groups: np.ndarray) -> np.ndarray:
        """int [R]: indices among the P first letters of those of groups bool [230], by group."""
        return np.flatnonzero(groups[self.group])

    def scores(self, rows: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """float64 [230]: ln of the mean of exp(`ahead`), [R], over a group's first letters `rows`.

        -inf for groups without any of them.
        """
        found = np.full(N_GROUPS, -np.inf)
        group = self.group[rows]
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        if len(starts):
            values = self._letters[rows] + ahead
            largest = np.maximum.reduceat(values, starts)
            largest = np.where(np.isfinite(largest), largest, 0)
            each = np.repeat(largest, np.diff(starts, append=len(rows)))
            with np.errstate(divide="ignore"):
                total = np.log(np.add.reduceat(np.exp(values - each), starts))
            found[group[starts]] = total + largest
        return found

    def ahead(self, demand: Demand, unit: int, rows: np.ndarray) -> np.ndarray:
        """float64 [R]: ln of the probability to meet the demand, by first letter of `rows`."""
        value = np.zeros(len(rows))
        if demand.atoms:
            value = self._composition(demand, demand.outlook(unit), rows)
        elif demand.asks_elements:
            value = self._elements(demand, rows)
        if demand.asks_elements:
            value = value - self.total(demand.known)[rows]
        if demand.template is not None and not demand.atoms:
            value = value + _template(demand.template)[self.group[rows]]
        if demand.template is not None:
            value = np.where(self.letter[rows] == demand.template[0], value, -np.inf)
        return value

    def _elements(self, demand: Demand, rows: np.ndarray) -> np.ndarray:
        """float64 [R]: `ahead` for allowed elements (now) and required ones (now or later)."""
        required = np.flatnonzero(demand.required)
        rest = demand.allowed & ~demand.required
        terms = [self.total(rest)[rows] if rest.any() else np.full(len(rows), -np.inf)]
        every, logits = self.total(np.arange(N_SPECIES) > 0)[rows], self._logits[rows]
        later = [_log_later(logits[:, z] - every, demand.frequency[z]) for z in required]
        terms += [logits[:, z] - ahead for z, ahead in zip(required, later, strict=True)]
        return _logsumexp(np.stack(terms, axis=-1)) + sum(later)

    def _composition(self, demand: Demand, outlook: Outlook, rows: np.ndarray) -> np.ndarray:
        """float64 [R]: `ahead` for a formula: one of its elements now, the remainder later.

        The composition fits all of the groups.
        """
        place = outlook.first[self.group[rows]]
        if demand.template is None:
            place = place + self.letter[rows] - 1
        ways = outlook.log_ways[place].astype(np.float64)
        return _logsumexp(self._logits[rows[:, None], demand.species] + ways)


@dataclass(frozen=True, eq=False)
class Start:
    """M starts of a sequence for one demand: space group and number of formula units."""

    unit: np.ndarray
    """int [M]"""
    group: np.ndarray
    """int [M]: rows of group tables."""
    prior: np.ndarray
    """float64 [M]: ln of the group's probability."""
    proposal: np.ndarray
    """float64 [M]: probabilities with which candidates start."""

    def of_group(self, group: int) -> Start:
        """The starts in one group."""
        mine = self.group == group
        share = self.proposal[mine]
        return Start(self.unit[mine], self.group[mine], self.prior[mine], share / share.sum())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Begun(Batch):
    """N candidates for several demands, before their first site."""

    demand: np.ndarray
    """int [N]"""
    unit: np.ndarray
    """int [N]"""
    group: np.ndarray
    """int [N]: rows of group tables."""
    log_weight: np.ndarray
    """float64 [N]: ln of the weight of the start."""
    pool: np.ndarray
    """int [N]: pool; candidates of a pool are narrowed together after the first sites."""
    narrows: np.ndarray
    """bool [N]: whether only a part of the pool will be finished."""


class Starts:
    """Starts for several demands, and constraints on sequences that begin with them.

    Args:
      demands: the demands.
      decoder: the network that will be sampled.
    """

    def __init__(self, demands: list[Demand], decoder: Decoder) -> None:
        self.demands = demands
        self._max_sites = decoder.config.max_sites
        groups = np.array([d.prior > 0 for d in demands])
        asks = np.array([d.asks_elements for d in demands])
        sites = FirstSites(decoder, np.any(groups, axis=0), np.any(groups[asks], axis=0))
        units = [max(len(d.atoms), 1) for d in demands]
        self._variant = np.cumsum(units) - units  # of a demand's first content
        self._ahead = np.zeros((sum(units), N_GROUPS, N_LETTERS), np.float32)
        self.starts = [self._start(i, d, sites) for i, d in enumerate(demands)]
        k = max(len(d.species) for d in demands)
        k += K_STEP if k == 0 else -k % K_STEP
        self._species = np.zeros((len(demands), k), np.int32)
        self._template = np.zeros((len(demands), self._max_sites + 1), np.int32)
        for i, demand in enumerate(demands):
            self._species[i, : len(demand.species)] = demand.species
            if demand.template is not None:
                self._template[i, : len(demand.template)] = demand.template

    def _start(self, i: int, demand: Demand, sites: FirstSites) -> Start:
        groups, found = np.flatnonzero(demand.prior), []
        for u in range(max(len(demand.atoms), 1)):
            fits = demand.prior > 0
            if demand.atoms:
                fits &= demand.outlook(u).fits(self._max_sites)
            rows = sites.of_groups(fits)
            ahead = sites.ahead(demand, u, rows)
            found.append(sites.scores(rows, ahead)[groups])
            of_unit = self._ahead[self._variant[i] + u]
            of_unit[sites.group[rows], sites.letter[rows]] = np.where(np.isfinite(ahead), ahead, 0)
        score = np.concatenate(found)
        unit, group = np.repeat(np.arange(len(found)), len(groups)), np.tile(groups, len(found))
        prior = np.log(demand.prior[group])
        at = np.flatnonzero(np.isfinite(score))
        share = np.exp(prior[at] + score[at] - (prior + score)[at].max())
        even = np.exp(prior[at] - prior[at].max())
        proposal = (1 - EXPLORE) * share / share.sum() + EXPLORE * even / even.sum()
        if not demand.binding:
            proposal = even / even.sum()
        return Start(unit[at], group[at], prior[at], proposal)

    def length(self, begun: Begun) -> np.ndarray:
        """int [N]: smallest number of sites of sequences with these starts."""
        variants, variant = np.unique(self._variant[begun.demand] + begun.unit, return_inverse=True)
        sites = np.zeros((len(variants), N_GROUPS), int)
        for row, place in enumerate(variants.tolist()):
            i = int(np.searchsorted(self._variant, place, side="right")) - 1
            asked = self.demands[i]
            if asked.template is not None:
                sites[row] = len(asked.template)
            elif asked.atoms:
                sites[row] = asked.outlook(place - int(self._variant[i])).fewest
        return sites[variant.ravel(), begun.group]

    def chunks(self, begun: Begun, most: int) -> Iterator[np.ndarray]:
        """Chunks (rows, int [n]) of whole pools, with n ≤ `most` unless a pool is larger.

        Pools of short sequences come first; the tables of a chunk have a limited size.
        """
        n = np.bincount(begun.pool)
        length = np.bincount(begun.pool, self.length(begun)) / n
        by_pool = np.argsort(begun.pool, kind="stable")
        rows_of = np.split(by_pool, np.cumsum(n)[:-1])
        chunk: list[np.ndarray] = []
        entries: dict[object, int] = {}
        for pool in np.argsort(length, kind="stable"):
            rows = rows_of[pool]
            more = dict(self._entries(begun[rows]))
            size = sum(map(len, chunk)) + len(rows)
            if chunk and (size > most or sum((entries | more).values()) > PLACES[0]):
                yield np.concatenate(chunk)
                chunk, entries = [], {}
            chunk.append(rows)
            entries |= more
        yield np.concatenate(chunk)

    def _entries(self, begun: Begun) -> Iterator[tuple[object, int]]:
        """Tables of space groups that the candidates need, and their sizes."""
        starts = zip(begun.demand.tolist(), begun.unit.tolist(), begun.group.tolist(), strict=True)
        for i, u, g in {*starts}:
            if self.demands[i].atoms:
                atoms, letters = self.demands[i].contents(u)
                yield (atoms, letters, g), table_size(atoms, letters, g)

    def constraints(self, begun: Begun) -> tuple[Constraints, Places]:
        """Constraints on sequences with these starts, and the tables that they refer to."""
        demand = begun.demand
        asked = [self.demands[i] for i in demand]
        composition, places = self._compositions(demand, begun.unit, begun.group)
        demanded = Demanded(
            np.stack([d.required for d in asked]),
            np.stack([d.frequency for d in asked]),
            self._ahead[self._variant[demand] + begun.unit, begun.group],
            self._template[demand],
            composition,
        )
        known, allowed = (np.stack([getattr(d, x) for d in asked]) for x in ("known", "allowed"))
        return Constraints(known, allowed, demanded), places

    def _compositions(
        self, demand: np.ndarray, unit: np.ndarray, group: np.ndarray
    ) -> tuple[Composition, Places]:
        atoms, stride = (np.zeros((len(demand), self._species.shape[1]), np.int32) for _ in "ab")
        first, columns = np.zeros(len(demand), np.int32), np.ones(len(demand), np.int32)
        rows_of: dict[tuple[Atoms, Template], list[int]] = {}
        for row, (i, u) in enumerate(zip(demand.tolist(), unit.tolist(), strict=True)):
            if self.demands[i].atoms:
                rows_of.setdefault(self.demands[i].contents(u), []).append(row)
        pieces: list[tuple[np.ndarray, np.ndarray]] = []
        used = 0
        for contents, rows in rows_of.items():
            k = len(contents[0])
            atoms[rows, :k], stride[rows, :k] = contents[0], strides(contents[0])
            offset = np.zeros(N_GROUPS, np.int32)
            drawn = np.isin(np.arange(N_GROUPS), group[rows])
            for g, table in group_tables(*contents, drawn).items():
                pieces.append((table.fewest.ravel(), table.log_ways.ravel()))
                columns[rows] = table.fewest.shape[1]
                offset[g] = used
                used += table.fewest.size
            first[rows] = offset[group[rows]]
        size = next((n for n in PLACES if n >= used), used)
        both: list[Array] = [np.zeros(size, np.uint8), np.zeros(size, np.float16)]
        for into, values in zip(both, zip(*pieces, strict=True), strict=False):
            into[:used] = np.concatenate(values)
        species = self._species[demand]
        return Composition(species, atoms, stride, first, columns), Places(*map(jnp.asarray, both))


def _template(letters: np.ndarray) -> np.ndarray:
    """float64 [230]: ln of the probability of following a template after its first site."""
    occupied, again = occupancies()
    skipped = np.cumsum(np.log1p(-occupied), axis=1)
    total = np.zeros(N_GROUPS)
    for letter, following in zip(letters, [*letters[1:], N_LETTERS], strict=True):
        if following == letter:
            total += np.log(np.maximum(again[:, letter], 1e-9))
            continue
        total += np.log1p(-again[:, letter]) + skipped[:, following - 1] - skipped[:, letter]
        if following < N_LETTERS:
            total += np.log(np.maximum(occupied[:, following], 1e-9))
    return total


def _log_later(logp: np.ndarray, frequency: float) -> np.ndarray:
    """`constraints.log_later` for log-probabilities of one element."""
    odds = logp - np.log1p(-np.minimum(np.exp(logp), 1 - 1e-6))
    return -np.logaddexp(0, -(LATER[0] * odds + LATER[1] * frequency + LATER[2]))


def _logsumexp(x: np.ndarray) -> np.ndarray:
    """ln Σ exp(x) over the last axis; -inf if all are -inf."""
    largest = x.max(axis=-1, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x - largest).sum(axis=-1)) + largest[..., 0]
