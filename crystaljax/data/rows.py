"""Crystals as rows of a table, each with a name and properties."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crystaljax.composition import element_counts, groups_by_formula
from crystaljax.crystal import Crystals, Index


@dataclass(frozen=True)
class Dataset:
    """Crystals with their names and properties, row by row.

    Arrays may be memory-mapped and read-only: select with `dataset[rows]`, which reads only those.
    """

    ids: np.ndarray
    """str [B]"""
    crystals: Crystals
    properties: dict[str, np.ndarray]
    """float64 [B] (nan where missing) or str [B] by column name, in the units of the source."""
    n_skipped: int = 0
    """Rows of the source that could not be used."""
    folder: Path | None = None
    """Folder in the cache; its skipped.csv has the id and the reason of each skipped row."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Index) -> Dataset:
        """Select rows by an int array, a boolean mask or a slice; an integer keeps the axis."""
        if isinstance(index, int | np.integer):
            index = slice(index, index + 1 or None)
        properties = {name: column[index] for name, column in self.properties.items()}
        return Dataset(
            self.ids[index], self.crystals[index], properties, self.n_skipped, self.folder
        )

    @property
    def space_group_counts(self) -> np.ndarray:
        """int [230]: number of crystals of each space group; group g is at index g - 1."""
        return np.bincount(self.crystals.space_group, minlength=231)[1:]

    @property
    def element_counts(self) -> np.ndarray:
        """int [119]: number of crystals with each element, by atomic number."""
        return (element_counts(self.crystals) > 0).sum(axis=0)

    @property
    def formula_groups(self) -> dict[str, list[int]]:
        """Space groups of the crystals by their reduced formulas."""
        return groups_by_formula(element_counts(self.crystals), self.crystals.space_group)
