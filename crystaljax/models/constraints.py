"""What a user may demand of sampled crystals: elements, a Wyckoff template, a composition."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array
from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Progress:
    """What B unfinished sequences have placed so far."""

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
class Composition:
    """The content of the primitive cell, as K elements and their atoms."""

    species: Array
    """int32 [K]"""
    atoms: Array
    """int32 [K]"""
    reachable: Array
    """bool [230, 29, N + 1]: so many atoms of one element can be made of positions from this
    letter on, those without free coordinates used once at most."""

    @staticmethod
    def of(atoms: np.ndarray) -> Composition:
        """From the atoms of each element in the primitive cell, int [119]."""
        species = np.flatnonzero(atoms)
        largest = int(atoms.max()) * int(tables().n_centering.max())
        return Composition(
            jnp.asarray(species, jnp.int32),
            jnp.asarray(atoms[species], jnp.int32),
            jnp.asarray(_reachable(largest)),
        )

    def fits(self) -> np.ndarray:
        """bool [230]: groups in which every element by itself can have its atoms."""
        atoms = np.asarray(self.atoms) * tables().n_centering[:, None]
        reachable = np.asarray(self.reachable)[:, 1]
        return np.asarray(np.take_along_axis(reachable, atoms.astype(int), axis=1).all(axis=1))

    def missing(self, progress: Progress, group: Array) -> Array:
        """int32 [B, K]: atoms still to place in the conventional cell."""
        n_cells = jnp.asarray(tables().n_centering, jnp.int32)[group - 1]
        return self.atoms * n_cells[:, None] - progress.atoms[:, self.species]

    def placeable(self, progress: Progress, group: Array, letter: Array) -> Array:
        """bool [B, ..., K]: putting the element on `letter` int [B, ...] leaves no dead end.

        Each element by itself can still be completed; that they compete for positions that can
        be used once is not seen, so a dead end remains possible.
        """
        extra = (1,) * (letter.ndim - 1)
        row = (group - 1).reshape(-1, *extra)
        missing = self.missing(progress, group).reshape(len(group), *extra, -1)
        repeats = jnp.asarray(tables().n_free > 0)[row, letter]
        onward = (letter + ~repeats)[..., None]
        left = missing - _multiplicity(row + 1, letter)[..., None]
        size = self.reachable.shape[-1]

        def completes(count: Array) -> Array:
            inside = (count >= 0) & (count < size)
            return inside & self.reachable[row[..., None], onward, jnp.clip(count, 0, size - 1)]

        others = completes(missing)
        all_others = others.sum(-1, keepdims=True) - others == others.shape[-1] - 1
        return completes(left) & all_others & (letter > 0)[..., None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constraints:
    """Demands on every sample of a run. What is None demands nothing."""

    allowed: Array
    """bool [119]: elements that may occur."""
    required: Array
    """bool [119]: elements that must occur."""
    template: Array | None = None
    """int32 [S + 1]: the letters of all sites, then zeros."""
    composition: Composition | None = None

    def letters(self, progress: Progress, group: Array, site: Array, possible: Array) -> Array:
        """bool [B, 28]: letters of the next site that suit; the end, if possible, where none do."""
        wanted = possible
        is_end = jnp.arange(N_LETTERS) == 0
        if self.template is not None:
            wanted = wanted & (jnp.arange(N_LETTERS) == self.template[site])
        lacking = (self.required & (progress.atoms == 0)).any(axis=-1)
        wanted = wanted & ~(lacking[:, None] & is_end)
        if self.composition is not None:
            every = jnp.broadcast_to(jnp.arange(N_LETTERS), wanted.shape)
            placeable = self.composition.placeable(progress, group, every).any(axis=-1)
            complete = (self.composition.missing(progress, group) == 0).all(axis=-1)
            wanted = wanted & jnp.where(is_end, complete[:, None], placeable)
        end = possible & is_end
        otherwise = jnp.where(end.any(-1, keepdims=True), end, possible)
        return jnp.where(wanted.any(-1, keepdims=True), wanted, otherwise)

    def species(
        self, progress: Progress, group: Array, letter: Array, possible: Array, sites_left: Array
    ) -> Array:
        """bool [B, 119]: elements that suit on `letter`; those possible where none do.

        `sites_left` int []: how many sites there may still be, with this one.
        """
        wanted = possible & self.allowed
        lacking = self.required & (progress.atoms == 0)
        if self.template is not None:
            unused = len(self.template) - 1 - (self.template > 0).sum()
            sites_left = sites_left - unused
        last_chance = lacking.sum(axis=-1) >= sites_left
        wanted = wanted & jnp.where(last_chance[:, None], lacking, True)
        if self.composition is not None:
            placeable = self.composition.placeable(progress, group, letter)
            chosen = jnp.zeros_like(possible).at[:, self.composition.species].set(placeable)
            wanted = wanted & chosen
        return jnp.where(wanted.any(-1, keepdims=True), wanted, possible)

    def satisfied(self, group: Array, progress: Progress) -> Array:
        """bool [B]: finished sequences do what is demanded (there was no dead end)."""
        present = progress.atoms > 0
        fine = ~(present & ~self.allowed).any(-1) & ~(self.required & ~present).any(-1)
        if self.composition is not None:
            fine &= (self.composition.missing(progress, group) == 0).all(-1)
        return fine


def _multiplicity(group: Array, letter: Array) -> Array:
    return jnp.asarray(tables().multiplicity, jnp.int32)[group - 1, letter]


def _reachable(largest: int) -> np.ndarray:
    """See `Composition.reachable`; from the last position down, one more position at a time."""
    reachable = np.zeros((N_GROUPS, N_LETTERS + 1, largest + 1), bool)
    reachable[:, N_LETTERS, 0] = True
    for letter in range(N_LETTERS - 1, -1, -1):
        reachable[:, letter] = reachable[:, letter + 1]
        for group in range(N_GROUPS):
            step = int(tables().multiplicity[group, letter])
            if step == 0 or step > largest:
                continue
            counts = reachable[group, letter]
            source = counts if tables().n_free[group, letter] else counts.copy()
            for count in range(step, largest + 1):
                counts[count] |= source[count - step]
    return reachable
