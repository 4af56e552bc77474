"""Ways to put the atoms of a composition on the Wyckoff positions of a space group.

For every place of a sequence of sites and every rest of the composition: the fewest sites on which
the rest fits (exact), and how likely a crystal goes on with just this rest (an estimate). Both are
computed backwards over the positions of a group.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, tables

IMPOSSIBLE = 200
"""Stands for the fewest sites where no number of them will do; more than a crystal has."""

MAX_PARTS = 65536
"""Parts of a composition that can be told apart, at most."""

Atoms = tuple[int, ...]
"""Atoms of K elements in the primitive cell."""

Template = tuple[int, ...] | None
"""Letter indices of all sites, if they are given."""

PATH = Path(__file__).with_name("occupancies.npz")

SAME = 0.3, 0.9
"""Probability that a site has a particular one of the elements that there already are, about as in
known crystals: the lesser of the first and of the second over the number of elements."""

NEW = 0.05
"""Probability that it has a particular other element of the composition, likewise."""

CACHE_BYTES = 256 * 2**20
"""Tables that are kept, at most."""

OVERHEAD = 4096
"""Bytes of what is kept beside its large arrays, about."""


@dataclass(frozen=True, eq=False)
class Occupations:
    """Tables of a composition over places of a sequence of sites.

    The rest is m_k atoms of each of K elements in the primitive cell; its column is the sum of
    m_k `stride`_k. A group's rows are: before any site, and after a site on letter 1, 2 ...; with a
    template, after its first site, its second ...
    """

    atoms: np.ndarray
    """int32 [K]: the whole composition."""
    stride: np.ndarray
    """int32 [K]"""
    first: np.ndarray
    """int32 [230]: the group's first row; -1 for groups that were not asked for."""
    n_rows: np.ndarray
    """int32 [230]: rows of each group."""
    fewest: np.ndarray
    """uint8 [rows, columns]: sites that the rest takes at least; `IMPOSSIBLE` if it does not fit.
    Exact: a position without free coordinates is occupied once at most, whichever element needs
    it."""
    log_ways: np.ndarray
    """float16 [rows, columns]: ln of how likely sequences go on with this rest and then end, up to
    a constant, by how often positions are occupied in known crystals; -inf where none does."""

    @property
    def whole(self) -> int:
        """Column of the whole composition."""
        return int((self.atoms * self.stride).sum())


@dataclass(frozen=True, eq=False)
class Outlook:
    """What the tables of a composition say before and after the first site, which is little.

    Rows of a group: one for each first letter 1, 2 ...; with a template one, for its first letter.
    """

    atoms: np.ndarray
    """int32 [K]: the whole composition."""
    stride: np.ndarray
    """int32 [K]: as of `Occupations`."""
    fewest: np.ndarray
    """uint8 [230]: sites that the whole composition takes at least; `IMPOSSIBLE` if it does not
    fit, or the group was not asked for."""
    first: np.ndarray
    """int32 [230]: the group's first row."""
    log_ways: np.ndarray
    """float16 [rows, K]: `Occupations.log_ways` after a first site with each element; -inf for
    those of which there are fewer atoms than the site takes."""

    def fits(self, max_sites: int) -> np.ndarray:
        """bool [230]: the whole composition fits the group, on so many sites at most."""
        return self.fewest <= max_sites


class _Tables:
    """The tables and outlooks made last, of `CACHE_BYTES` in all."""

    def __init__(self) -> None:
        self._kept: OrderedDict[object, Occupations | Outlook] = OrderedDict()
        self._bytes = 0

    def occupations(self, atoms: Atoms, template: Template, groups: np.ndarray) -> Occupations:
        """The tables of at least these groups."""
        found = self._get((atoms, template))
        if isinstance(found, Occupations):
            if not (groups & (found.first < 0)).any():
                return found
            groups = groups | (found.first >= 0)
        made = _make(atoms, template, groups)
        self._put((atoms, template), made)
        return made

    def outlook(self, atoms: Atoms, template: Template, groups: np.ndarray) -> Outlook:
        """The outlook from just these groups."""
        key = atoms, template, groups.tobytes()
        found = self._get(key)
        if not isinstance(found, Outlook):
            found = _look_out(self.occupations(atoms, template, groups), template, groups)
            self._put(key, found)
        return found

    def _get(self, key: object) -> Occupations | Outlook | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def _put(self, key: object, made: Occupations | Outlook) -> None:
        if key in self._kept:
            self._bytes -= _size(self._kept[key])
        self._kept[key] = made
        self._bytes += _size(made)
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


@cache
def _tables() -> _Tables:
    return _Tables()


def _size(table: Occupations | Outlook) -> int:
    return table.fewest.nbytes + table.log_ways.nbytes + OVERHEAD


def occupations(
    atoms: Atoms, template: Template = None, groups: np.ndarray | None = None
) -> Occupations:
    """The tables of a composition, from the atoms of K elements in the primitive cell.

    With a template, the letter indices of all sites, every site must be occupied. `groups` bool
    [230] is what they are made for, all by default; they may have others, too. ValueError if the
    composition has too many parts to tell apart. Tables are kept (`CACHE_BYTES`), and do not depend
    on the elements' names.
    """
    _check_parts(atoms)
    chosen = np.ones(N_GROUPS, bool) if groups is None else np.asarray(groups, bool)
    return _tables().occupations(atoms, template, chosen)


def outlook(atoms: Atoms, template: Template = None, groups: np.ndarray | None = None) -> Outlook:
    """The outlook on a composition; arguments and errors as of `occupations`.

    It is kept longer than the tables, which are hundreds of times larger: thousands of compositions
    are looked at before some groups of each are sampled.
    """
    _check_parts(atoms)
    chosen = np.ones(N_GROUPS, bool) if groups is None else np.asarray(groups, bool)
    return _tables().outlook(atoms, template, chosen)


def table_size(atoms: Atoms, template: Template, group: int) -> int:
    """Entries of the tables of a composition that are of a group, index from 0."""
    n_rows = int(tables().n_letters[group]) if template is None else len(template)
    return (n_rows + 1) * math.prod(n + 1 for n in atoms)


def _check_parts(atoms: Atoms) -> None:
    n_parts = math.prod(n + 1 for n in atoms)
    if n_parts > MAX_PARTS:
        raise ValueError(
            f"a formula of {len(atoms)} elements and {sum(atoms)} atoms has {n_parts} parts that "
            f"could be left to place, more than {MAX_PARTS}: ask for a smaller cell"
        )


def _make(atoms: Atoms, template: Template, groups: np.ndarray) -> Occupations:
    parts = _Parts(atoms)
    if template is None:
        n_rows = tables().n_letters.astype(np.int32) + 1
        fewest, ways = _by_letter(parts, groups)
    else:
        n_rows = np.full(N_GROUPS, len(template) + 1, np.int32)
        fewest, ways = _by_site(parts, template, groups)
    n_rows = np.where(groups, n_rows, 0).astype(np.int32)
    first = np.where(groups, np.cumsum(n_rows) - n_rows, -1).astype(np.int32)
    with np.errstate(divide="ignore"):
        log_ways = np.log(ways).astype(np.float16)
    return Occupations(np.array(atoms, np.int32), parts.stride, first, n_rows, fewest, log_ways)


def _look_out(table: Occupations, template: Template, groups: np.ndarray) -> Outlook:
    whole = table.whole
    fewest = np.full(N_GROUPS, IMPOSSIBLE, np.uint8)
    fewest[groups] = table.fewest[table.first[groups], whole]
    exists = (tables().multiplicity > 0) & groups[:, None]
    if template is not None:
        exists &= np.arange(N_LETTERS) == template[0]
    group, letter = np.nonzero(exists)
    step = tables().multiplicity[group, letter].astype(np.int32) // tables().n_centering[group]
    possible = step[:, None] <= table.atoms
    column = np.where(possible, whole - step[:, None] * table.stride, 0)
    row = table.first[group] + (letter if template is None else 1)
    ways = np.where(possible, table.log_ways[row[:, None], column], np.float16(-np.inf))
    first = np.searchsorted(group, np.arange(N_GROUPS)).astype(np.int32)
    return Outlook(table.atoms, table.stride, fewest, first, ways)


class _Parts:
    """The parts of a composition, and what is left of them after one more site."""

    def __init__(self, atoms: tuple[int, ...]) -> None:
        self.atoms = atoms
        shape = [n + 1 for n in atoms]
        self.n = math.prod(shape)
        self.stride = np.array(
            [math.prod(shape[k + 1 :]) for k in range(len(shape))], dtype=np.int32
        )
        self._left = [np.arange(self.n) // s % n for s, n in zip(self.stride, shape, strict=True)]
        self.same = min(SAME[0], SAME[1] / len(atoms))
        self._moves: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}

    def moves(self, step: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """For each element that may take `step` atoms: the shift of columns, and for the columns
        from there on `IMPOSSIBLE` where it has not as many left (uint8, else 0), and the weight."""
        if step not in self._moves:
            self._moves[step] = []
            for left, n, stride in zip(self._left, self.atoms, self.stride, strict=True):
                if 0 < step <= n:
                    shift = step * int(stride)
                    possible = left[shift:] >= step
                    weight = possible * np.where(left[shift:] == n, NEW, self.same)
                    never = np.where(possible, 0, IMPOSSIBLE).astype(np.uint8)
                    self._moves[step].append((shift, never, weight))
        return self._moves[step]

    def sum(self, ways: np.ndarray, step: int) -> np.ndarray:
        """float64 [N, n]: weights of one site of `step` atoms followed by `ways` [N, n]."""
        total = np.zeros_like(ways)
        for shift, _, weight in self.moves(step):
            total[:, shift:] += weight * ways[:, : self.n - shift]
        return total

    def least(self, fewest: np.ndarray, step: int) -> np.ndarray:
        """uint8 [N, n]: fewest sites, one of `step` atoms followed by `fewest` [N, n]."""
        least = np.full_like(fewest, IMPOSSIBLE)
        for shift, never, _ in self.moves(step):
            onward = np.maximum(fewest[:, : self.n - shift] + 1, never)
            np.minimum(least[:, shift:], onward, out=least[:, shift:])
        return least

    def nothing(self, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Tables of sequences that end: fewest sites, weights."""
        fewest = np.full((n_rows, self.n), IMPOSSIBLE, np.uint8)
        fewest[:, 0] = 0
        ways = np.zeros((n_rows, self.n))
        ways[:, 0] = 1
        return fewest, ways


class Occupancies(NamedTuple):
    """Shares of known crystals, by group and letter; they guide sampling and need not be right."""

    occupied: np.ndarray
    """float32 [230, 28]: of those that have a site on the position."""
    again: np.ndarray
    """float32 [230, 28]: of their sites there that are followed by one more there."""


@cache
def occupancies() -> Occupancies:
    """The shares of `build_occupancies`, read once."""
    with np.load(PATH, allow_pickle=False) as archive:
        return Occupancies(archive["occupied"], archive["again"])


def _by_letter(parts: _Parts, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tables of some groups, all from the last position down."""
    n_rows = np.where(groups, tables().n_letters.astype(int) + 1, 0)
    first = np.cumsum(n_rows) - n_rows
    fewest, ways = parts.nothing(int(n_rows.sum()))  # after a site on each letter
    fewest_from, ways_from = parts.nothing(N_GROUPS)  # from the letter on, which may be occupied
    for step, again, alike, letters in _positions():
        chosen = groups[alike]
        if not chosen.any():
            continue
        mine, letter = alike[chosen], letters[chosen]
        least, total = fewest_from[mine], ways_from[mine]
        if again:
            share = occupancies().again[mine, letter, None]
            least, total = _repeated(parts, least, total, step, share)
        fewest[first[mine] + letter], ways[first[mine] + letter] = least, total
        share = occupancies().occupied[mine, letter, None]
        skipped = (1 - share) * ways_from[mine]
        if parts.moves(step):  # some element has atoms enough for the position
            skipped += share * parts.sum(total, step)
            fewest_from[mine] = np.minimum(fewest_from[mine], parts.least(least, step))
        ways_from[mine] = skipped
    chosen = np.flatnonzero(groups)
    fewest[first[chosen]], ways[first[chosen]] = fewest_from[chosen], ways_from[chosen]
    return fewest, ways


@cache
def _positions() -> list[tuple[int, bool, np.ndarray, np.ndarray]]:
    """Positions that are worked on together: of each group one after the other, its last one first.

    Atoms of a site in the primitive cell, whether there may be several sites, the groups (rows,
    int [n]) that have such a position next, and its letter in each (int [n]). At every turn it is
    the largest one that any group has next: sizes fall from letter to letter, so that few turns do.
    """
    steps = tables().multiplicity.astype(int) // tables().n_centering[:, None].astype(int)
    repeats = tables().n_free > 0
    letter, found = tables().n_letters.astype(int), []
    while (left := np.flatnonzero(letter > 0)).size:
        at = left, letter[left]
        kinds, kind = np.unique(2 * steps[at] + repeats[at], return_inverse=True)
        alike = left[kind.ravel() == len(kinds) - 1]
        step, again = divmod(int(kinds[-1]), 2)
        found.append((step, bool(again), alike, letter[alike].copy()))
        letter[alike] -= 1
    return found


def _repeated(
    parts: _Parts, fewest: np.ndarray, ways: np.ndarray, step: int, again: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tables after a site on a position that may be occupied any number of times more."""
    added, total, least = (1 - again) * ways, (1 - again) * ways, fewest
    while parts.moves(step) and added.any():
        added = again * parts.sum(added, step)
        total = total + added
        least = np.minimum(least, parts.least(least, step))
    return least, total


def _by_site(
    parts: _Parts, template: tuple[int, ...], groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tables of some groups over the sites of a template, from the last one up."""
    chosen = np.flatnonzero(groups)
    fewest, ways = parts.nothing(len(chosen))
    rows = [(fewest, ways)]
    for letter in reversed(template):
        steps = tables().multiplicity[chosen, letter] // tables().n_centering[chosen]
        onward, (fewest, ways) = rows[-1], parts.nothing(len(chosen))
        for step in np.unique(steps).tolist():
            alike = steps == step
            fewest[alike] = parts.least(onward[0][alike], step)
            ways[alike] = parts.sum(onward[1][alike], step)
        rows.append((fewest, ways))
    stacked = [np.stack(part, axis=1) for part in zip(*rows[::-1], strict=True)]
    return stacked[0].reshape(-1, parts.n), stacked[1].reshape(-1, parts.n)
