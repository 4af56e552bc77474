"""The convex hull of formation energies, and energies above it, for batches of compositions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, combinations
from os import PathLike

import numpy as np

from crystaljax.composition import N_SPECIES, SYMBOLS, atomic_number, parse_formulas
from crystaljax.rewards.formation import mp_references
from crystaljax.rewards.levels import MP, MP2020, known_level

System = tuple[int, ...]
"""A chemical system: the atomic numbers of its elements in ascending order."""

MAX_QHULL_ELEMENTS = 6
"""Systems of more elements are solved one query at a time, as linear programs."""

_VERTICAL = 1e-9  # |energy component| of a unit normal under which a facet counts as vertical


@dataclass(frozen=True)
class Hull:
    """The lower convex hull of formation energy over composition, built system by system.

    Make one with `from_entries`, `from_table` or `from_file`. Every element of the table also
    gets its elemental reference, at 0 eV/atom. The hull of a chemical system is computed when a
    query first needs it, from the entries of the system and of all its subsystems, and kept.
    """

    name: str
    """Name of this hull in reports."""
    entries: Mapping[System, tuple[np.ndarray, np.ndarray]]
    """Atomic fractions [M, n] and formation energies [M] (eV/atom) by system of n elements."""
    references: np.ndarray
    """float64 [119]: the elemental energies (eV/atom) that the formation energies refer to."""
    level: str = MP2020
    """Level of theory of the energies; see `levels.LEVELS`."""
    _facets: dict[System, np.ndarray | None] = field(default_factory=dict, repr=False)

    @classmethod
    def from_entries(
        cls,
        formulas: Iterable[str] | np.ndarray,
        formation_energies: Sequence[float] | np.ndarray,
        *,
        references: np.ndarray | None = None,
        name: str = "reference hull",
        level: str = MP2020,
    ) -> Hull:
        """Build from N compositions and their formation energies (eV/atom).

        `formulas` are texts, or an array [N, 119] of amounts. `references` [119] are the
        elemental energies the formation energies refer to (default: Materials Project). `level` is
        the energies' level of theory (see `levels.LEVELS`). Entries whose energy is not finite are
        left out. ValueError: lengths differ, nothing is left, a formula cannot be read, or
        energies of another level than the Materials Project's without references.
        """
        level = known_level(level)
        if references is None and level not in (MP, MP2020):
            raise ValueError(
                f"{name}: formation energies of the level {level} refer to elements of that level,"
                " which are not known: give a file of computed entries, with total energies and"
                " the elements among them"
            )
        is_array = isinstance(formulas, np.ndarray) and formulas.ndim == 2
        counts = formulas if is_array else parse_formulas(formulas)
        counts = np.asarray(counts, np.float64)
        energies = np.asarray(formation_energies, np.float64)
        if len(counts) != len(energies):
            raise ValueError(f"{len(counts)} formulas but {len(energies)} formation energies")
        finite = np.isfinite(energies)
        if not finite.any():
            raise ValueError(
                f"no entry to build {name!r} from: {len(energies)} rows, none with an energy"
            )
        counts, energies = counts[finite], energies[finite]
        fractions = counts / counts.sum(axis=1, keepdims=True)
        entries = {}
        for system, rows in _by_system(counts):
            entries[system] = (fractions[rows][:, system], energies[rows])
        references = mp_references() if references is None else np.asarray(references)
        return cls(name, entries, references, level)

    @classmethod
    def from_table(
        cls,
        columns: Mapping[str, Sequence | np.ndarray],
        *,
        formula_column: str | None = None,
        energy_column: str | None = None,
        name: str = "reference hull",
        level: str = MP2020,
    ) -> Hull:
        """Build from named columns, such as a dataset's properties.

        Without names the customary ones are looked for (see `tables.FORMULA_COLUMNS` and
        `tables.ENERGY_COLUMNS`). ValueError naming the columns there are if none fits.
        """
        from crystaljax.rewards.hull_files import find_columns

        formula, energy = find_columns(list(columns), formula_column, energy_column, name)
        formulas = [str(f) for f in columns[formula]]
        return cls.from_entries(formulas, columns[energy], name=name, level=level)

    @classmethod
    def from_file(
        cls,
        path: str | PathLike | Sequence[str | PathLike],
        *,
        formula_column: str | None = None,
        energy_column: str | None = None,
        name: str | None = None,
        level: str | None = None,
    ) -> Hull:
        """Build from one or several files, or a folder of them.

        Tables (csv, csv.gz, parquet, json, json.gz) need a column of formulas and one of
        formation energies in eV/atom. Files of pymatgen computed entries (json, json.gz, json.bz2:
        Alexandria's convex hull, matbench-discovery's entries or patched phase diagram) give total
        energies with their corrections; the lowest elemental entries in the file become the
        hull's `references`. Pickles are refused. FileNotFoundError, ValueError: what is missing.

        The level of theory is `level` or what the files state (`tables.read_hull_table`), by
        default the Materials Project's with MP2020 corrections; ValueError if the two differ.
        """
        from crystaljax.rewards.hull_files import read_hull_table

        table = read_hull_table(path, formula_column, energy_column)
        name = name or table.name
        asked = None if level is None else known_level(level)
        if asked and table.level and asked != table.level:
            raise ValueError(
                f"{name}: the file states that its energies are of the level {table.level}, not"
                f" {asked}"
            )
        return cls.from_entries(
            table.counts,
            table.energies,
            references=table.references,
            name=name,
            level=asked or table.level or MP2020,
        )

    @cached_property
    def elements(self) -> frozenset[int]:
        """Atomic numbers of the elements that the hull knows."""
        return frozenset(z for system in self.entries for z in system)

    @property
    def n_entries(self) -> int:
        """Number of entries, elemental references not counted."""
        return sum(len(energies) for _, energies in self.entries.values())

    @property
    def label(self) -> str:
        """Name, size and level of theory, for reports."""
        level = "" if self.level == MP2020 else f", {self.level}"
        return f"{self.name} ({self.n_entries} entries{level})"

    @cached_property
    def digest(self) -> str:
        """Digest of the entries, references and level."""
        digest = hashlib.sha256(np.nan_to_num(self.references, nan=np.inf).tobytes())
        digest.update(self.level.encode())
        for system in sorted(self.entries):
            for part in (np.array(system), *self.entries[system]):
                digest.update(np.ascontiguousarray(part, np.float64).tobytes())
        return digest.hexdigest()

    def require(self, elements: Iterable[str | int]) -> None:
        """Check that the hull has `elements` (symbols or atomic numbers); ValueError naming missing
        ones."""
        numbers = [atomic_number(e) if isinstance(e, str) else int(e) for e in elements]
        lacking = sorted(set(numbers) - self.elements)
        if lacking:
            names = ", ".join(SYMBOLS[z - 1] for z in lacking)
            raise ValueError(
                f"the hull {self.name!r} has no entry with {names}: leave the element out of the"
                " crystals, or give a hull built from a table that holds it"
            )

    def reasons(self, counts: np.ndarray) -> list[str | None]:
        """Reasons that compositions [B, 119] have no energy above hull; None if they have one."""
        known = np.zeros(N_SPECIES, bool)
        known[list(self.elements)] = True
        counts = np.asarray(counts)
        reasons: list[str | None] = [None] * len(counts)
        for row in np.flatnonzero(((counts > 0) & ~known).any(axis=1)):
            names = ", ".join(SYMBOLS[z - 1] for z in np.flatnonzero((counts[row] > 0) & ~known))
            reasons[row] = f"the hull {self.name!r} has no entry with {names}"
        for row in np.flatnonzero(counts.sum(axis=1) == 0):
            reasons[row] = "no atoms"
        return reasons

    def hull_energy(self, counts: np.ndarray) -> np.ndarray:
        """Formation energy of the hull at B compositions: float64 [B] in eV/atom.

        `counts` [B, 119] are amounts of each element. nan where the hull lacks an element
        (`reasons` says which) or there are no atoms.
        """
        counts = np.asarray(counts, np.float64)
        result = np.full(len(counts), np.nan)
        known = self.elements
        for system, rows in _by_system(counts):
            if not known.issuperset(system):
                continue
            fractions = counts[rows][:, system]
            fractions = fractions / fractions.sum(axis=1, keepdims=True)
            facets = self._system_facets(system)
            if facets is None:
                points, energies = self._relevant(system)
                result[rows] = [_linear_program(points, energies, x) for x in fractions]
            else:
                # A convex piecewise-linear function is the largest of its planes.
                result[rows] = (fractions @ facets.T).max(axis=1)
        return result

    def n_known(self, counts: np.ndarray) -> np.ndarray:
        """int [B]: entries in the chemical system of each composition [B, 119] and its subsystems.

        Elemental references that are no entry of the table are not counted.
        """
        counts = np.asarray(counts)
        found = np.zeros(len(counts), np.int64)
        for system, rows in _by_system(counts):
            within = chain.from_iterable(
                combinations(system, size) for size in range(1, len(system) + 1)
            )
            entries = (self.entries.get(subsystem) for subsystem in within)
            found[rows] = sum(len(entry[1]) for entry in entries if entry is not None)
        return found

    def energy_above_hull(self, counts: np.ndarray, formation_energy: np.ndarray) -> np.ndarray:
        """Formation energy minus that of the hull at the same composition: float64 [B] in eV/atom.

        `counts` [B, 119] amounts of each element, `formation_energy` [B] in eV/atom. Negative for
        a crystal more stable than every mixture of the reference entries; nan as `hull_energy`.
        """
        return np.asarray(formation_energy, np.float64) - self.hull_energy(counts)

    def _system_facets(self, system: System) -> np.ndarray | None:
        """Chemical potentials [F, n] of the system's hull facets; None: too many elements."""
        if system not in self._facets:
            too_large = len(system) > MAX_QHULL_ELEMENTS
            self._facets[system] = None if too_large else _lower_facets(*self._relevant(system))
        return self._facets[system]

    def _relevant(self, system: System) -> tuple[np.ndarray, np.ndarray]:
        """Fractions [M, n] and energies [M] of the entries within `system`, its corners first.

        Corners have the lowest energy of the element, at most the 0 of its reference. Entries on
        or above the plane through the corners cannot be on the hull and are left out.
        """
        n = len(system)
        corners = np.zeros(n)
        all_points, all_energies = [np.eye(n)], [corners]
        for size in range(1, n + 1):
            for columns in combinations(range(n), size):
                entry = self.entries.get(tuple(system[c] for c in columns))
                if entry is None:
                    continue
                if size == 1:
                    corners[columns[0]] = min(0.0, entry[1].min())
                    continue
                points = np.zeros((len(entry[1]), n))
                points[:, columns] = entry[0]
                below = entry[1] < points @ corners - 1e-12
                all_points.append(points[below])
                all_energies.append(entry[1][below])
        return np.concatenate(all_points), np.concatenate(all_energies)


def _by_system(counts: np.ndarray) -> list[tuple[System, np.ndarray]]:
    """Rows of `counts` [B, 119] grouped by the elements present; rows without any are left out."""
    if not len(counts):
        return []
    packed = np.packbits(counts > 0, axis=1)
    keys = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}").ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    systems = [tuple(np.flatnonzero(row).tolist()) for row in counts[first] > 0]
    return [(s, rows) for s, rows in zip(systems, groups, strict=True) if s]


def _lower_facets(points: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Planes under the points: [F, n], the value of each facet's plane at every pure element.

    `points` [M, n] are atomic fractions with the n pure elements first, `energies` [M] eV/atom.
    """
    n = points.shape[1]
    corners = energies[:n]
    if len(points) == n:  # nothing below the elements: the hull is the plane through them
        return corners[None]
    from scipy.spatial import ConvexHull

    # Energies above the plane of the corners, so that facets are near horizontal; the roof makes
    # the body full-dimensional and closes it from above.
    height = energies - points @ corners
    body = np.column_stack([points[:, :-1], height])
    roof = np.append(np.full(n - 1, 1 / n), 1.0)
    equations = ConvexHull(np.vstack([body, roof])).equations
    slopes, energy, offset = equations[:, : n - 1], equations[:, n - 1], equations[:, n]
    lower = energy < -_VERTICAL
    slopes, offset = slopes[lower] / -energy[lower, None], offset[lower] / -energy[lower]
    return np.column_stack([slopes + offset[:, None], offset]) + corners


def _linear_program(points: np.ndarray, energies: np.ndarray, fractions: np.ndarray) -> float:
    """Lowest energy of a mixture of `points` [M, n] at the composition `fractions` [n]."""
    from scipy.optimize import linprog

    solution = linprog(energies, A_eq=points.T, b_eq=fractions, bounds=(0, None), method="highs")
    return float(solution.fun)
