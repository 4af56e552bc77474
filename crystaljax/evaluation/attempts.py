"""Attempts at predicting structures, compared with the true ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crystaljax.composition import N_SPECIES, formula
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.evaluation.displacement import rms_displacement
from crystaljax.evaluation.features import FeatureSpace
from crystaljax.evaluation.matching import FAILURES, StructureSet, import_matcher
from crystaljax.evaluation.rejection import Tolerances
from crystaljax.evaluation.safeguards import time_limit
from crystaljax.rewards.base import Reasons
from crystaljax.structures import structures_of, to_cells
from crystaljax.validity import is_crystal

CSP_TOLERANCES = Tolerances(ltol=0.3, stol=0.5, angle_tol=10.0)
"""Tolerances of crystal structure prediction."""

CHUNK = 512
"""Attempts that are reduced together."""


@dataclass(frozen=True)
class Known:
    """Crystals that are known: the test crystals, or a training set."""

    name: str
    """Name in reports, like "mp20_bt/test"."""
    ids: list[str]
    """[T]"""
    cells: list[AtomicCell]
    """[T]: primitive, conventional or any other cells."""

    def __len__(self) -> int:
        return len(self.cells)

    @cached_property
    def counts(self) -> np.ndarray:
        """int [T, 119]: atoms of each element in the cells."""
        return element_counts_of(self.cells)

    @cached_property
    def formulas(self) -> list[str]:
        """Reduced formulas [T]."""
        return [formula(row) for row in self.counts]

    @cached_property
    def features(self) -> FeatureSpace:
        """Features of the crystals, of which those of others are measured."""
        return FeatureSpace.of(self.name, self.counts, self.cells)

    def __str__(self) -> str:
        return f"{self.name} ({len(self)} crystals)"


@dataclass(frozen=True)
class Attempts:
    """A attempts at predicting structures of test crystals."""

    cells: list[AtomicCell | None]
    """[A]; None for an attempt that is no crystal."""
    reasons: Reasons
    """[A]: reason that it is none."""
    attempt: np.ndarray
    """int [P]: which attempt is compared with which test crystal. An attempt at a formula is one
    at each test crystal that has it."""
    target: np.ndarray
    """int [P]: the test crystal."""
    rank: np.ndarray
    """int [P]: how many attempts at the test crystal come before it."""
    notes: tuple[str, ...] = ()
    """Sentences about what was left out."""

    def __len__(self) -> int:
        return len(self.cells)

    @staticmethod
    def of(crystals: Crystals, target: np.ndarray, reasons: Reasons | None = None) -> Attempts:
        """Attempts [A], each at one test crystal `target` int [A], in order of preference.

        Rows that are no crystal count as attempts.
        """
        good = is_crystal(crystals)
        cells = [
            cell if ok else None for cell, ok in zip(to_cells(crystals, True), good, strict=True)
        ]
        reasons = reasons or [None] * len(cells)
        reasons = [
            None if ok else reason or "no crystal" for ok, reason in zip(good, reasons, strict=True)
        ]
        target = np.asarray(target, int)
        return Attempts(cells, reasons, np.arange(len(cells)), target, ranks(target))


def ranks(target: np.ndarray) -> np.ndarray:
    """int [P]: number of earlier entries with the same value, for values int [P]."""
    order = np.argsort(target, kind="stable")
    _, starts, counts = np.unique(target[order], return_index=True, return_counts=True)
    found = np.empty(len(target), int)
    found[order] = np.arange(len(target)) - np.repeat(starts, counts)
    return found


def element_counts_of(cells: Sequence[AtomicCell | None]) -> np.ndarray:
    """Atoms of each element: int [B, 119]; none of None."""
    counts = np.zeros((len(cells), N_SPECIES), int)
    for row, cell in zip(counts, cells, strict=True):
        if cell is not None:
            row[:] = np.bincount(cell.species, minlength=N_SPECIES)
    return counts


def displacements(
    truth: Known,
    attempts: Attempts,
    cells: Sequence[AtomicCell | None] | None = None,
    seconds: float = 10.0,
) -> tuple[np.ndarray, Mapping[int, str]]:
    """RMS displacement of each pair of attempt and test crystal, in (V/N)^(1/3): float64 [P].

    nan where they do not match; and the attempts that could not be compared, with the reasons.
    `cells` [A]: in place of those of the attempts, such as relaxed ones.
    """
    import_matcher()
    cells = attempts.cells if cells is None else cells
    found = np.full(len(attempts.attempt), np.nan)
    names = [formula(row) for row in element_counts_of(cells)]
    like = [
        names[attempt] == truth.formulas[target]
        for attempt, target in zip(attempts.attempt, attempts.target, strict=True)
    ]
    known = StructureSet.from_structures(structures_of(truth.cells), truth.name, seconds)
    failures: dict[int, str] = {}
    for pairs, rows in _chunks(np.flatnonzero(like), attempts.attempt):
        given = [cells[row] for row in rows]
        structures = structures_of(cell for cell in given if cell is not None)
        predicted = StructureSet.from_structures(structures, "attempts", seconds)
        reduced = predicted.reduce(range(len(rows)))
        failures |= {int(rows[i]): reason for i, reason in predicted.failures.items()}
        place = {row: i for i, row in enumerate(rows.tolist())}
        true = known.reduce(np.unique(attempts.target[pairs]).tolist())
        for pair in pairs.tolist():
            row, target = int(attempts.attempt[pair]), int(attempts.target[pair])
            if target not in true:
                failures[row] = f"the true structure: {known.failures[target]}"
            if place[row] not in reduced or target not in true:
                continue
            try:
                with time_limit(seconds):
                    found[pair] = rms_displacement(
                        reduced[place[row]], true[target], CSP_TOLERANCES
                    )
            except FAILURES as error:
                failures[row] = f"cannot be compared: {error}"
    return found, failures


def _chunks(pairs: np.ndarray, attempt: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Parts of the pairs with the attempts in them, each once."""
    for start in range(0, len(pairs), CHUNK):
        part = pairs[start : start + CHUNK]
        yield part, np.unique(attempt[part])
