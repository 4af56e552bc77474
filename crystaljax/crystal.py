"""The data types that every part of crystaljax speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

Array = Any  # a numpy or a jax array: every field below may be either
Index = Any  # whatever indexes the leading axis: an int array, a boolean mask, a slice
B = TypeVar("B", bound="Batch")


MIN_VOLUME = 0.1
"""Å³: the smallest unit cell taken for a real one; a smaller one is invalid in CDVAE, too."""


class AtomicCell(NamedTuple):
    """One structure as atoms in a cell, with no symmetry known yet (what readers produce)."""

    matrix: np.ndarray
    """float64 [3, 3]: lattice vectors in Å, one a row."""
    frac: np.ndarray
    """float64 [N, 3]: fractional coordinates."""
    species: np.ndarray
    """int [N]: atomic numbers."""


def wrapped(frac: np.ndarray) -> np.ndarray:
    """Fractional coordinates modulo 1, in [0, 1) also where rounding would give 1; nan stays.

    Of the type that they will be kept in: the float64 below 1 is 1 as a float32.
    """
    frac = frac - np.floor(frac)
    return np.where(frac >= 1, 0, frac)


class Batch:
    """Base of batches of arrays with a common leading axis."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]

    def __getitem__(self: B, index: Index) -> B:
        """Select along the batch axis; an integer keeps the axis, with length one."""
        if isinstance(index, int | np.integer):
            index = slice(index, index + 1 or None)
        return jax.tree.map(lambda x: x[index], self)

    def to_numpy(self: B) -> B:
        """The same batch with every array on the host."""
        return jax.tree.map(np.asarray, self)

    def padded(self: B, n: int) -> B:
        """The same batch (on the host) with rows of zeros at its end, n rows in all."""
        missing = n - len(self)
        return jax.tree.map(
            lambda x: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)), self.to_numpy()
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Crystals(Batch):
    """A batch of B crystals described by their symmetry, in up to S site slots.

    Sites stand in the order of their Wyckoff letters, then x, y, z; empty slots come last and
    are zero. The setting is the standard one: unique axis b, hexagonal axes for rhombohedral
    groups, origin choice 2.
    """

    space_group: Array
    """int32 [B]: International Tables number, 1-230."""
    wyckoff: Array
    """int32 [B, S]: Wyckoff letter, 0 empty slot, 1 = a ... 26 = z, 27 = A."""
    species: Array
    """int32 [B, S]: atomic number, 0 in empty slots."""
    frac: Array
    """float32 [B, S, 3]: the orbit's representative in [0, 1), a point of the first operation."""
    lattice: Array
    """float32 [B, 6]: a, b, c in Å and α, β, γ in degrees, of the conventional cell."""

    @property
    def n_slots(self) -> int:
        """S, the number of site slots."""
        return self.wyckoff.shape[1]

    @property
    def n_sites(self) -> Array:
        """int [B]: occupied site slots of each crystal."""
        return (self.wyckoff > 0).sum(axis=1)

    def with_slots(self, n_slots: int) -> Crystals:
        """Pad or trim (on the host) to `n_slots`; ValueError if a crystal has more sites."""
        batch = self.to_numpy()
        needed = int(batch.n_sites.max(initial=0))
        if n_slots < needed:
            raise ValueError(f"cannot fit crystals of up to {needed} sites in {n_slots} slots")

        def resize(x: np.ndarray) -> np.ndarray:
            x = x[:, :n_slots]
            padding = [(0, 0), (0, n_slots - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
            return np.pad(x, padding)

        return Crystals(
            batch.space_group,
            resize(batch.wyckoff),
            resize(batch.species),
            resize(batch.frac),
            batch.lattice,
        )

    @staticmethod
    def concatenate(batches: Sequence[Crystals]) -> Crystals:
        """Join batches (on the host), padding all to the largest number of slots."""
        if not batches:
            raise ValueError("nothing to concatenate: the list of batches is empty")
        n_slots = max(batch.n_slots for batch in batches)
        batches = [batch.with_slots(n_slots) for batch in batches]
        return jax.tree.map(lambda *xs: np.concatenate(xs), *batches)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cells(Batch):
    """A batch of B full unit cells of up to N atoms, for potentials and geometry checks."""

    frac: Array
    """float32 [B, N, 3]: fractional coordinates in [0, 1), zero in empty slots."""
    species: Array
    """int32 [B, N]: atomic numbers, 0 in empty slots; the atoms come first."""
    matrix: Array
    """float32 [B, 3, 3]: lattice vectors in Å, one a row."""

    @property
    def mask(self) -> Array:
        """bool [B, N]: which slots hold an atom."""
        return self.species > 0

    @property
    def n_atoms(self) -> Array:
        """int [B]: atoms in each cell."""
        return self.mask.sum(axis=1)


def stack(cells: Sequence[AtomicCell], n_rows: int, slots: int) -> Cells:
    """Cells given one by one as float64 arrays; those with too many atoms for the slots are empty.

    `n_rows`: with rows of zeros at the end.
    """
    frac, species = np.zeros((n_rows, slots, 3)), np.zeros((n_rows, slots), np.int32)
    matrix = np.zeros((n_rows, 3, 3))
    for row, cell in enumerate(cells):
        n_atoms = len(cell.species)
        if n_atoms > slots:
            continue
        frac[row, :n_atoms] = cell.frac
        species[row, :n_atoms] = cell.species
        matrix[row] = cell.matrix
    return Cells(frac, species, matrix)
