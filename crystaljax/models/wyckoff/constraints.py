"""Demands on sampled crystals, for each sample: elements, a Wyckoff template, a composition.

The masks leave no dead end if the space group can meet the demands. Among the allowed choices,
sampling uses a look-ahead. The result is not yet the model's distribution of crystals that meet the
demands: `crystaljax.models.wyckoff.importance` selects samples by importance weights for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from crystaljax.crystal import Array, Batch
from crystaljax.symmetry.placements import NEW, SAME
from crystaljax.symmetry.tables import N_LETTERS, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES

LATER = 0.34, 0.73, 0.36
"""Estimate of the log-odds that an element that is not on this site is on a later one: slopes for
its log-odds at this site and for those that a crystal has it, and intercept. A rough rule, fitted
to samples of checkpoints/wyckoff-mp20bt. It affects the number of candidates, not the distribution
of samples."""


URGENCY = 0.7
"""Decrease of these log-odds for each site after the second, likewise."""


class Places(NamedTuple):
    """Tables of `Occupations` for a batch, with all rows concatenated to [n]."""

    fewest: Array
    """uint8 [n]"""
    log_ways: Array
    """float16 [n]"""

    def at(self, index: Array, possible: Array) -> tuple[Array, Array]:
        """Fewest sites int32 and log weights float32, at entries `index`, where `possible`."""
        index = jnp.where(possible, index, 0)
        return self.fewest[index].astype(jnp.int32), self.log_ways[index].astype(jnp.float32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Progress(Batch):
    """Sites that B unfinished sequences have placed so far."""

    atoms: Array
    """int32 [B, 119]: atoms of each element in the conventional cell."""

    @staticmethod
    def start(batch: int) -> Progress:
        return Progress(jnp.zeros((batch, N_SPECIES), jnp.int32))

    def after(self, group: Array, letter: Array, species: Array) -> Progress:
        """Progress after one more site each (none where the letter is 0)."""
        added = _multiplicity(group, letter)
        return Progress(self.atoms.at[jnp.arange(len(group)), species].add(added))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Composition(Batch):
    """Contents of B primitive cells: K elements and their atoms (padding: 0 atoms of element 0)."""

    species: Array
    """int32 [B, K]; all 0 without a demanded composition."""
    atoms: Array
    """int32 [B, K]"""
    stride: Array
    """int32 [B, K]: see `Occupations`."""
    first: Array
    """int32 [B]: index in the tables of the first entry of the sample's group."""
    columns: Array
    """int32 [B]: number of entries of a row."""

    @property
    def absent(self) -> Array:
        """bool [B]: whether no composition is demanded."""
        return self.species[:, 0] == 0

    def missing(self, progress: Progress, group: Array) -> Array:
        """int32 [B, K]: atoms still to place in the primitive cell."""
        n_cells = jnp.asarray(tables().n_centering, jnp.int32)[group - 1]
        placed = jnp.take_along_axis(progress.atoms, self.species, axis=1)
        return self.atoms - jnp.where(self.species > 0, placed // n_cells[:, None], 0)

    def onward(
        self,
        places: Places,
        progress: Progress,
        group: Array,
        letter: Array,
        row: Array,
        sites_left: Array,
    ) -> tuple[Array, Array]:
        """Whether each element on each letter leaves a composition that fits, and its log-weight.

        bool and float32 [B, L, K]. `letter` int [B, L]; `row` int [B, L]: the group's row after a
        site on it; `sites_left` int [B] or []: largest number of further sites, with this one.
        """
        n_cells = jnp.asarray(tables().n_centering, jnp.int32)[group - 1]
        step = (_multiplicity(group[:, None], letter) // n_cells[:, None])[..., None]
        missing = self.missing(progress, group)[:, None]
        possible = (step > 0) & (step <= missing)
        column = (missing * self.stride[:, None]).sum(-1, keepdims=True)
        column = column - step * self.stride[:, None]
        index = self.first[:, None, None] + row[..., None] * self.columns[:, None, None] + column
        fewest, log_ways = places.at(index, possible)
        possible &= 1 + fewest <= jnp.reshape(sites_left, (-1, 1, 1))
        return possible, log_ways

    def placed_none(self, progress: Progress, group: Array) -> Array:
        """bool [B, K]: whether no atom of the element has been placed."""
        return self.missing(progress, group) == self.atoms


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Demanded(Batch):
    """Demands on B samples, except for the allowed elements."""

    required: Array
    """bool [B, 119]: elements that must occur."""
    frequency: Array
    """float32 [B, 119]: log-odds that crystals have each element."""
    first: Array
    """float32 [B, 28]: ln of the probability that the demands are met after each first letter, up
    to a constant."""
    template: Array
    """int32 [B, S + 1]: letters of all sites, then zeros; only zeros without a template."""
    composition: Composition

    def _row(self, letter: Array, site: Array) -> Array:
        """int [B, L]: row of the composition's tables after the `site`-th site on `letter`."""
        return jnp.where(self.template[:, :1] > 0, site + 1, letter)

    def _lacking(self, progress: Progress) -> Array:
        return self.required & (progress.atoms == 0)

    def letters(
        self,
        places: Places,
        progress: Progress,
        group: Array,
        site: Array,
        possible: Array,
        sites_left: Array,
    ) -> tuple[Array, Array]:
        """Allowed letters of the `site`-th site, among `possible`, and the look-ahead.

        bool and float32 [B, 28], index 0 for the end. A sequence that lacks a required element
        continues if letters are left. `sites_left` int []: largest number of further sites, with
        this one.
        """
        every = jnp.broadcast_to(jnp.arange(N_LETTERS), possible.shape)
        is_end = every == 0
        given = self.template[:, :1] > 0
        wanted = possible & (~given | (every == self.template[:, site, None]))
        absent = self.composition.absent[:, None]
        fits, log_ways = self.composition.onward(
            places, progress, group, every, self._row(every, site), sites_left
        )
        complete = (self.composition.missing(progress, group) == 0).all(axis=-1)
        fine = jnp.where(is_end, complete[:, None], fits.any(axis=-1))
        new = self.composition.placed_none(progress, group)
        n_elements = (self.composition.atoms > 0).sum(axis=-1, keepdims=True)
        same = jnp.minimum(SAME[0], SAME[1] / jnp.maximum(n_elements, 1))
        share = jnp.log(jnp.where(new, NEW, same))[:, None]
        ahead = jax.nn.logsumexp(jnp.where(fits, log_ways + share, -jnp.inf), axis=-1)
        ahead = jnp.where(absent | is_end | ~fine, 0.0, ahead)
        wanted &= absent | fine
        early = self._lacking(progress).any(-1) & (wanted & ~is_end).any(-1)
        return wanted & ~(early[:, None] & is_end), jnp.where(site == 0, self.first, ahead)

    def species(
        self,
        places: Places,
        progress: Progress,
        group: Array,
        letter: Array,
        site: Array,
        sites_left: Array,
        logits: Array,
    ) -> tuple[Array, Array]:
        """Allowed elements on `letter` int [B], and the look-ahead: bool and float32 [B, 119].

        `logits` [B, 119] are those of the draw; the other arguments are as in `letters`.
        """
        lacking = self._lacking(progress)
        given = self.template[:, 0] > 0
        sites_left = jnp.where(given, (self.template > 0).sum(axis=-1) - site, sites_left)
        last_chance = lacking.sum(axis=-1) >= sites_left
        wanted = lacking | ~last_chance[:, None]
        urgent = URGENCY * jnp.maximum(site - 1, 0)
        ahead = jnp.where(lacking, urgent - log_later(logits, self.frequency), 0)
        at = letter[:, None]
        fits, log_ways = self.composition.onward(
            places, progress, group, at, self._row(at, site), sites_left
        )
        rows, species = jnp.arange(len(group))[:, None], self.composition.species
        placeable = jnp.zeros_like(wanted).at[rows, species].set(fits[:, 0])
        ways = (
            jnp.zeros(wanted.shape).at[rows, species].set(jnp.where(fits[:, 0], log_ways[:, 0], 0))
        )
        absent = self.composition.absent[:, None]
        return (
            wanted & (absent | placeable),
            jnp.where(absent, ahead, ways),
        )

    def ahead_after_letter(self, before: Array, look_ahead: Array, letter: Array) -> Array:
        """float32 [B]: ln of the probability that the demands are met after a letter int [B].

        `look_ahead` is that of `letters`, `before` the last result of `ahead_after_species`.
        """
        of_letter = jnp.take_along_axis(look_ahead, letter[:, None], axis=1)[:, 0]
        return jnp.where(self.composition.absent, before, of_letter)

    def ahead_after_species(self, look_ahead: Array, species: Array) -> Array:
        """float32 [B]: ln of the probability that the demands are met after an element int [B].

        `look_ahead` is that of `species`.
        """
        now = jnp.take_along_axis(look_ahead, species[:, None], axis=1)[:, 0]
        return now - jnp.where(self.composition.absent, look_ahead.sum(axis=1), 0)

    def satisfied(self, group: Array, progress: Progress) -> Array:
        """bool [B]: finished sequences do what is demanded."""
        missing = self.composition.missing(progress, group)
        return ~self._lacking(progress).any(-1) & (missing == 0).all(-1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constraints(Batch):
    """Constraints on B samples, different for each."""

    known: Array
    """bool [B, 119]: elements that are sampled without constraints: those of the training data and
    those that the condition names."""
    allowed: Array
    """bool [B, 119]: elements that may occur."""
    demanded: Demanded | None = None
    """Other demands; None if no sample has any."""

    def satisfied(self, group: Array, progress: Progress) -> Array:
        """bool [B]: finished sequences do what is demanded."""
        fine = ~((progress.atoms > 0) & ~self.allowed).any(-1)
        return fine if self.demanded is None else fine & self.demanded.satisfied(group, progress)


def log_later(logits: Array, frequency: Array) -> Array:
    """[..., 119]: ln of the probability that elements are on a later site, if not on this one."""
    logp = jax.nn.log_softmax(logits, axis=-1)
    odds = logp - jnp.log1p(-jnp.minimum(jnp.exp(logp), 1 - 1e-6))
    return jax.nn.log_sigmoid(LATER[0] * odds + LATER[1] * frequency + LATER[2])


def _multiplicity(group: Array, letter: Array) -> Array:
    return jnp.asarray(tables().multiplicity, jnp.int32)[group - 1, letter]
