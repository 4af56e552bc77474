"""Demands on sampled crystals, each sample's own: elements, a Wyckoff template, a composition.

The masks here leave no dead end where the space group can meet the demands. What they leave is
sampled step by step with a look-ahead, which is not yet the model's distribution of crystals that
meet the demands: `crystaljax.models.wyckoff.importance` weighs and selects samples for that.
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
"""Log-odds that an element that this site does not have comes at a later one: slopes of its
log-odds at this site and of those that a crystal has it, and intercept. A rough rule, fitted to
samples of checkpoints/wyckoff-mp20bt, that decides how many candidates are needed, not what is
sampled."""


URGENCY = 0.7
"""Fall of the log-odds of coming later at each site after the second, likewise."""


class Places(NamedTuple):
    """Tables of `Occupations` that a batch refers to, row after row in one piece [n]."""

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
        """One more site each (none where the letter is 0)."""
        added = _multiplicity(group, letter)
        return Progress(self.atoms.at[jnp.arange(len(group)), species].add(added))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Composition(Batch):
    """Contents of B primitive cells, as K elements and their atoms (0 of element 0 as padding)."""

    species: Array
    """int32 [B, K]; all 0 where no composition is demanded."""
    atoms: Array
    """int32 [B, K]"""
    stride: Array
    """int32 [B, K]: see `Occupations`."""
    first: Array
    """int32 [B]: entry of the tables at which the rows of the sample's group start."""
    columns: Array
    """int32 [B]: entries of a row."""

    @property
    def absent(self) -> Array:
        """bool [B]: none is demanded."""
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
        """Whether the rest can be completed with the element on a letter, and log-weights of it.

        bool and float32 [B, L, K]. `letter` int [B, L], and `row` int [B, L] the group's row after
        a site on it; `sites_left` int [B] or []: sites there may be, with this one.
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
        """bool [B, K]: no atom of the element is there yet."""
        return self.missing(progress, group) == self.atoms


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Demanded(Batch):
    """Demands on B samples beside the elements that may occur."""

    required: Array
    """bool [B, 119]: elements that must occur."""
    frequency: Array
    """float32 [B, 119]: log-odds that crystals have each element."""
    first: Array
    """float32 [B, 28]: ln of how likely the demands are met after each first letter, up to a
    constant."""
    template: Array
    """int32 [B, S + 1]: the letters of all sites, then zeros; zeros alone where none is asked."""
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
        """Letters of the `site`-th site that suit, among `possible`, and the look-ahead.

        bool and float32 [B, 28], 0 for the end. A sequence that lacks a required element goes on
        if there are letters left. `sites_left` int [] is how many sites there may still be, with
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
        """Elements that suit on `letter` int [B], and the look-ahead: bool and float32 [B, 119].

        `logits` [B, 119] are those they are drawn by; the rest as in `letters`.
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
        """float32 [B]: ln of how likely the demands are met after a letter int [B].

        `look_ahead` is that of `letters`, `before` what `ahead_after_species` gave.
        """
        of_letter = jnp.take_along_axis(look_ahead, letter[:, None], axis=1)[:, 0]
        return jnp.where(self.composition.absent, before, of_letter)

    def ahead_after_species(self, look_ahead: Array, species: Array) -> Array:
        """float32 [B]: ln of how likely the demands are met after an element int [B].

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
    """Constraints on B samples, each its own."""

    known: Array
    """bool [B, 119]: elements that are sampled without constraints: those of the training data,
    and others that were asked for."""
    allowed: Array
    """bool [B, 119]: elements that may occur."""
    demanded: Demanded | None = None
    """All else; None if nothing is demanded of any sample."""

    def satisfied(self, group: Array, progress: Progress) -> Array:
        """bool [B]: finished sequences do what is demanded."""
        fine = ~((progress.atoms > 0) & ~self.allowed).any(-1)
        return fine if self.demanded is None else fine & self.demanded.satisfied(group, progress)


def log_later(logits: Array, frequency: Array) -> Array:
    """ln of the probability that elements come at a later site, if not at this one: [..., 119]."""
    logp = jax.nn.log_softmax(logits, axis=-1)
    odds = logp - jnp.log1p(-jnp.minimum(jnp.exp(logp), 1 - 1e-6))
    return jax.nn.log_sigmoid(LATER[0] * odds + LATER[1] * frequency + LATER[2])


def _multiplicity(group: Array, letter: Array) -> Array:
    return jnp.asarray(tables().multiplicity, jnp.int32)[group - 1, letter]
