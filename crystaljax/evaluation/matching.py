"""Equality of crystals by pymatgen's StructureMatcher, without comparing every pair.

Two crystals can match only if their reduced formulas agree and if they pass the tests of
`rejection`, which turn down only pairs that StructureMatcher would turn down too, so the result is
that of comparing all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from crystaljax.composition import N_SPECIES, element_counts
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.evaluation.rejection import Pool, Reduced
from crystaljax.evaluation.safeguards import time_limit
from crystaljax.symmetry.lattices import minkowski_reduce

MAX_ELONGATION = 2000.0
"""Cube of the longest minimum of a lattice over its volume, above which it is not compared:
StructureMatcher lists all lattice points in a sphere of about that radius (a = b = 3 Å: c of up
to 110 Å)."""

MATCHER = (
    "pymatgen.analysis.structure_matcher",
    "pymatgen.optimization.neighbors",
    "scipy.optimize",
)
"""Modules that comparisons import when they first need them."""

FAILURES = (ArithmeticError, LookupError, RuntimeError, TimeoutError, TypeError, ValueError)
"""Exceptions of pymatgen on cells it cannot handle (numpy's LinAlgError is a ValueError)."""

Structure = Any  # pymatgen's, imported only where used


@dataclass(frozen=True)
class StructureSet:
    """N structures to match with each other or with others; each is reduced when first needed.

    Keep one for the training set and use it for every evaluation.
    """

    name: str
    """Name of the set in reports."""
    formulas: list[bytes]
    """A key of each structure's reduced formula; empty for what is no crystal."""
    build: Callable[[Sequence[int]], list[Structure | None]]
    """Rows to pymatgen structures, None for what is no crystal."""
    seconds: float = 10.0
    """Time that one reduction or comparison may take (in the main thread)."""
    failures: dict[int, str] = field(default_factory=dict)
    """Reasons that rows could not be compared, filled in when met; such rows match nothing."""
    rows: dict[bytes, list[int]] = field(default_factory=dict)
    """Rows of each reduced formula, in ascending order; filled in when the set is made."""
    _reduced: dict[int, Reduced] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row, formula in enumerate(self.formulas):
            if formula:
                self.rows.setdefault(formula, []).append(row)
            else:
                self.failures[row] = "no atoms"

    def __len__(self) -> int:
        return len(self.formulas)

    @staticmethod
    def from_crystals(
        crystals: Crystals,
        name: str,
        seconds: float = 10.0,
        cells: Sequence[AtomicCell] | None = None,
    ) -> StructureSet:
        """A set of the crystals, compared as primitive cells.

        `cells` [N]: these cells, if they have been made already; else they are when needed.
        """
        crystals = crystals.to_numpy()

        def build(rows: Sequence[int]) -> list[Structure | None]:
            from crystaljax.structures import structures_of, to_structures

            if cells is not None:
                return structures_of(cells[row] for row in rows)
            return to_structures(crystals[np.asarray(rows)], primitive=True)

        return StructureSet(name, _formula_keys(element_counts(crystals)), build, seconds)

    @staticmethod
    def from_structures(
        structures: Sequence[Structure | None], name: str, seconds: float = 10.0
    ) -> StructureSet:
        """A set of ordered pymatgen structures; None for what is no crystal."""
        counts = np.zeros((len(structures), N_SPECIES), np.int64)
        for row, structure in zip(counts, structures, strict=True):
            if structure is not None:
                np.add.at(row, [site.specie.Z for site in structure], 1)
        return StructureSet(
            name, _formula_keys(counts), lambda rows: [structures[row] for row in rows], seconds
        )

    def reduce(self, rows: Sequence[int]) -> dict[int, Reduced]:
        """The reduced structures of rows; those that fail are left out and noted.

        Ask for many rows at once: they are built together.
        """
        missing = [r for r in rows if r not in self._reduced and r not in self.failures]
        built = dict(zip(missing, self.build(missing), strict=True)) if missing else {}
        for row, structure in built.items():
            if structure is None:
                self.failures[row] = "no crystal"
        self._reduce({row: s for row, s in built.items() if s is not None})
        return {row: self._reduced[row] for row in rows if row in self._reduced}

    def adopt(self, other: StructureSet, rows: Sequence[int] | np.ndarray) -> None:
        """Take over what `other` has reduced, or failed to, of its `rows`: the first ones here."""
        for row, there in enumerate(np.asarray(rows).tolist()):
            if there in other._reduced:
                self._reduced[row] = other._reduced[there]
            if there in other.failures:
                self.failures[row] = other.failures[there]

    def _reduce(self, structures: dict[int, Structure]) -> None:
        """Reduce structures by row, and keep them or the reasons why they cannot be."""
        import_matcher()
        minimal, change = minkowski_reduce(_matrices(structures.values()))
        reduced = {}
        for (row, structure), *basis in zip(structures.items(), minimal, change, strict=True):
            try:
                with time_limit(self.seconds):
                    reduced[row] = _primitive(structure, *basis)
            except FAILURES as error:
                self.failures[row] = f"cannot be reduced: {error}"
        minimal, _ = minkowski_reduce(_matrices(reduced.values()))
        for (row, structure), basis in zip(reduced.items(), minimal, strict=True):
            minima = np.linalg.norm(basis, axis=-1) * structure.volume ** (-1 / 3)
            self._reduced[row] = Reduced(structure, minima)


def import_matcher() -> None:
    """Import what comparisons use: the first one would spend seconds of its time on that."""
    for name in MATCHER:
        import_module(name)


def first_matches(samples: StructureSet, reference: StructureSet) -> np.ndarray:
    """int [N]: first row of the reference set that each sample matches, or -1.

    StructureMatcher with default tolerances, the reference as the first structure.
    """
    found = np.full(len(samples), -1)
    shared = [f for f in samples.rows if f in reference.rows]
    known = reference.reduce([row for f in shared for row in reference.rows[f]])
    queries = samples.reduce([row for f in shared for row in samples.rows[f]])
    for formula in shared:
        pool = Pool(len(reference.rows[formula]))
        for row in (row for row in reference.rows[formula] if row in known):
            pool.add(row, known[row])
        for row in samples.rows[formula]:
            if row in queries:
                found[row] = _first_match(queries[row], pool, samples, row)
    return found


def clusters(samples: StructureSet) -> np.ndarray:
    """The cluster of each sample, named by the row of its leader; -1 for failures: int [N].

    As StructureMatcher.group_structures: each sample is compared with the leaders so far, in the
    order in which they came, and leads a cluster of its own if none matches. Samples come in the
    order of their cells' volumes, so that the clusters do not depend on the order of the rows.
    """
    leader = np.full(len(samples), -1)
    several = [row for rows in samples.rows.values() if len(rows) > 1 for row in rows]
    reduced = samples.reduce(several)
    for rows in samples.rows.values():
        if len(rows) == 1:  # needs no comparison
            leader[rows] = rows
        pool = Pool(len(rows))
        for row in sorted((row for row in rows if row in reduced), key=lambda r: reduced[r].order):
            match = _first_match(reduced[row], pool, samples, row)
            leader[row] = row if match < 0 else match
            if match < 0 and row not in samples.failures:
                pool.add(row, reduced[row])
    leader[list(samples.failures)] = -1
    return leader


def once(mask: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """The first sample of each cluster for which a mask holds: bool [N].

    `mask` bool [N], `cluster` int [N] as of `clusters`. A cluster of samples that match each other
    counts once, if one of them is all that the mask asks, whichever it is.
    """
    kept = np.zeros(len(mask), bool)
    rows = np.flatnonzero(mask & (cluster >= 0))
    kept[rows[np.unique(cluster[rows], return_index=True)[1]]] = True
    return kept


def unique_mask(samples: StructureSet) -> np.ndarray:
    """The first sample of each cluster: bool [N]; failures are not unique."""
    return once(np.ones(len(samples), bool), clusters(samples))


def novel_mask(samples: StructureSet, reference: StructureSet) -> np.ndarray:
    """Mask of samples that match nothing in the reference set: bool [N]; failures are not novel."""
    novel = first_matches(samples, reference) < 0
    novel[list(samples.failures)] = False
    return novel


def rms_to_relaxed(
    structures: Sequence[Structure | None],
    relaxed: Sequence[Structure | None],
    seconds: float = 10.0,
) -> tuple[np.ndarray, dict[int, str]]:
    """RMS displacement between structures and their relaxed forms, in Å: float64 [N].

    StructureMatcher with default tolerances; its displacement, in units of (V/N)^(1/3), is
    multiplied by that length of the relaxed structure. nan where they do not match, where one is
    None or cannot be compared. With it, the reasons why pairs could not be compared, by row.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    import_matcher()
    failures: dict[int, str] = {}
    matcher = StructureMatcher()
    displacement = np.full(len(structures), np.nan)
    for row, (before, after) in enumerate(zip(structures, relaxed, strict=True)):
        if before is None or after is None:
            continue
        try:
            with time_limit(seconds):
                result = matcher.get_rms_dist(after, before)
        except FAILURES as error:
            failures[row] = f"cannot be compared: {error}"
            continue
        if result is not None:
            displacement[row] = result[0] * (after.volume / len(after)) ** (1 / 3)
    return displacement, failures


def _primitive(structure: Structure, minimal: np.ndarray, change: np.ndarray) -> Structure:
    """The Niggli-reduced primitive cell, as StructureMatcher makes it.

    It starts from the Minkowski-reduced basis `minimal` [3, 3] = change @ lattice, from which the
    Niggli cell is near. ValueError for a lattice so elongated that comparisons would take all
    memory, unless it is that of a supercell.
    """
    frac = structure.frac_coords @ np.linalg.inv(change)
    compact = type(structure)(minimal, structure.species, frac, to_unit_cell=True)
    if _elongated(minimal):
        compact = compact.get_primitive_structure()
        if _elongated(minkowski_reduce(compact.lattice.matrix[None])[0][0]):
            raise ValueError("the lattice is too elongated")
    return compact.get_reduced_structure("niggli").get_primitive_structure()


def _elongated(minimal: np.ndarray) -> bool:
    """Whether a Minkowski-reduced basis [3, 3] is beyond `MAX_ELONGATION`; so is one with nan."""
    longest, volume = np.linalg.norm(minimal, axis=-1).max(), abs(np.linalg.det(minimal))
    return not longest**3 <= MAX_ELONGATION * volume


def _matrices(structures: Iterable[Structure]) -> np.ndarray:
    """Lattice vectors [N, 3, 3] of structures."""
    return np.array([structure.lattice.matrix for structure in structures]).reshape(-1, 3, 3)


def _first_match(sample: Reduced, pool: Pool, samples: StructureSet, row: int) -> int:
    """The row of the first structure in `pool` that matches, or -1; failures are noted."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher()
    for index, other in pool.candidates(sample):
        try:
            with time_limit(samples.seconds):
                if matcher.fit(other.structure, sample.structure, skip_structure_reduction=True):
                    return index
        except FAILURES as error:
            samples.failures[row] = f"cannot be compared: {error}"
            return -1
    return -1


def _formula_keys(counts: np.ndarray) -> list[bytes]:
    """A key of the reduced formula of each row of counts [N, 119]; b"" of no atoms."""
    divisor = np.gcd.reduce(counts, axis=1)
    reduced = counts // np.maximum(divisor, 1)[:, None]
    return [row.astype(np.int32).tobytes() if d else b"" for row, d in zip(reduced, divisor)]  # noqa: B905
