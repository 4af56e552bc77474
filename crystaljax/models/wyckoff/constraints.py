"""Demands on sampled crystals: elements, a Wyckoff template, a composition.

The masks here leave no dead end where the space group can meet the demands. What they leave is
sampled step by step, which is not yet the model's distribution of crystals that meet the demands:
`crystaljax.models.wyckoff.importance` weighs and selects samples for that.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, Batch
from crystaljax.symmetry.occupations import Occupations
from crystaljax.symmetry.tables import N_LETTERS, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES

K_STEP = 8
"""Elements of a composition are padded to a multiple of it, so that nothing is compiled anew."""

LATER = 0.33, -0.9
"""Slope and intercept of the log-odds that an element comes at a later site, from its log-odds at
this one: a rough rule that holds for any trained model, and decides how many candidates are
needed, not what is sampled."""


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
    """int32 [B, K]"""
    atoms: Array
    """int32 [B, K]"""
    stride: Array
    """int32 [B, K]: see `Occupations`."""
    first: Array
    """int32 [B]: row of the table of `Occupations` at which the sample starts."""

    @staticmethod
    def of(species: np.ndarray, table: Occupations, group: np.ndarray) -> Composition:
        """One composition for B space groups; species int [K] in the order of the table."""
        padding = -len(species) % K_STEP

        def rows(values: np.ndarray) -> np.ndarray:
            padded = np.pad(values, (0, padding)).astype(np.int32)
            return np.broadcast_to(padded, (len(group), len(padded)))

        return Composition(
            rows(species), rows(table.atoms), rows(table.stride), table.first[group - 1]
        )

    def missing(self, progress: Progress, group: Array) -> Array:
        """int32 [B, K]: atoms still to place in the primitive cell."""
        n_cells = jnp.asarray(tables().n_centering, jnp.int32)[group - 1]
        placed = jnp.take_along_axis(progress.atoms, self.species, axis=1)
        return self.atoms - placed // n_cells[:, None]

    def placeable(
        self,
        fewest: Array,
        progress: Progress,
        group: Array,
        letter: Array,
        onward: Array,
        sites_left: Array,
    ) -> Array:
        """bool [B, L, K]: with the element on the letter int [B, L], the rest can be completed.

        `fewest` is the table of `Occupations`, `onward` int [B, L] the row, from the first one,
        after a site on the letter; `sites_left` int [B]: sites there may be, with this one.
        """
        n_cells = jnp.asarray(tables().n_centering, jnp.int32)[group - 1]
        step = (_multiplicity(group[:, None], letter) // n_cells[:, None])[..., None]
        missing = self.missing(progress, group)[:, None]
        column = (missing * self.stride[:, None]).sum(-1, keepdims=True)
        column = column - step * self.stride[:, None]
        row = self.first[:, None, None] + onward[..., None]
        row = jnp.clip(row, 0, len(fewest) - 1)
        possible = (step > 0) & (step <= missing)
        sites = 1 + fewest[row, jnp.where(possible, column, 0)].astype(jnp.int32)
        return possible & (sites <= jnp.reshape(sites_left, (-1, 1, 1)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constraints(Batch):
    """Demands on B samples, each its own. What is None demands nothing."""

    known: Array
    """bool [B, 119]: elements that are sampled without constraints: those of the training data,
    and others that were asked for."""
    allowed: Array
    """bool [B, 119]: elements that may occur."""
    required: Array
    """bool [B, 119]: elements that must occur."""
    template: Array | None = None
    """int32 [B, S + 1]: the letters of all sites, then zeros."""
    composition: Composition | None = None

    def letters(
        self,
        fewest: Array | None,
        progress: Progress,
        group: Array,
        site: Array,
        possible: Array,
        sites_left: Array,
    ) -> Array:
        """bool [B, 28]: letters of the `site`-th site that suit, 0 for the end, among `possible`.

        A sequence that lacks a required element may end all the same, which costs a candidate: if
        it had to go on, candidates would become long and improbable.
        `fewest` is the table that the composition refers to, `sites_left` int [] how many sites
        there may still be, with this one.
        """
        every = jnp.broadcast_to(jnp.arange(N_LETTERS), possible.shape)
        is_end = every == 0
        wanted = possible
        if self.template is not None:
            wanted = wanted & (every == self.template[:, site, None])
        if self.composition is not None and fewest is not None:
            onward = self._onward(group, every, site)
            placeable = self.composition.placeable(
                fewest, progress, group, every, onward, sites_left
            )
            complete = (self.composition.missing(progress, group) == 0).all(axis=-1)
            wanted = wanted & jnp.where(is_end, complete[:, None], placeable.any(axis=-1))
        return wanted

    def species(
        self,
        fewest: Array | None,
        progress: Progress,
        group: Array,
        letter: Array,
        site: Array,
        sites_left: Array,
    ) -> Array:
        """bool [B, 119]: elements that suit on `letter` int [B]; the rest as in `letters`."""
        lacking = self._lacking(progress)
        if self.template is not None:
            sites_left = (self.template > 0).sum(axis=-1) - site
        last_chance = lacking.sum(axis=-1) >= sites_left
        wanted = self.allowed & (lacking | ~last_chance[:, None])
        if self.composition is not None and fewest is not None:
            at = letter[:, None]
            onward = self._onward(group, at, site)
            placeable = self.composition.placeable(fewest, progress, group, at, onward, sites_left)
            row = jnp.arange(len(group))[:, None]
            wanted &= jnp.zeros_like(wanted).at[row, self.composition.species].set(placeable[:, 0])
        return wanted

    def favour(self, progress: Progress, logits: Array) -> Array:
        """float32 [B, 119]: look-ahead, to add to the logits [B, 119] of the next element.

        Required elements that are lacking are favoured by 1/P(they come later): then a sequence
        that has them by now is as likely as it should be among those that have them in the end.
        """
        logp = jax.nn.log_softmax(logits, axis=-1)
        odds = logp - jnp.log1p(-jnp.minimum(jnp.exp(logp), 1 - 1e-6))
        slope, intercept = LATER
        later = jax.nn.log_sigmoid(slope * odds + intercept)
        return jnp.where(self._lacking(progress), -later, 0)

    def satisfied(self, group: Array, progress: Progress) -> Array:
        """bool [B]: finished sequences do what is demanded."""
        present = progress.atoms > 0
        fine = ~(present & ~self.allowed).any(-1) & ~self._lacking(progress).any(-1)
        if self.composition is not None:
            fine &= (self.composition.missing(progress, group) == 0).all(-1)
        return fine

    def _lacking(self, progress: Progress) -> Array:
        return self.required & (progress.atoms == 0)

    def _onward(self, group: Array, letter: Array, site: Array) -> Array:
        """int [B, L]: row of the composition's table, from the first, after a site on `letter`."""
        if self.template is not None:
            return jnp.broadcast_to(site + 1, letter.shape)
        repeats = jnp.asarray(tables().n_free > 0)[group[:, None] - 1, letter]
        return letter - repeats


def _multiplicity(group: Array, letter: Array) -> Array:
    return jnp.asarray(tables().multiplicity, jnp.int32)[group - 1, letter]
