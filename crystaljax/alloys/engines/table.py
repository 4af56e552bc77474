"""Engine that looks equilibria up in a file of computed ones."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.alloys.composition import CompositionError, fractions, master
from crystaljax.alloys.engines.phase_table import read_phase_table
from crystaljax.alloys.engines.thermodynamics import (
    SAME_TEMPERATURE,
    Equilibria,
    Point,
    ascending,
    problem,
)
from crystaljax.alloys.lattice import BCC, Lattice
from crystaljax.data.files import replacing

VERSION = 1
"""Version of the file's layout."""

_TEXTS = ("elements", "reasons", "phase", "kind")
_STEPS = 1e6  # mole fractions are compared after rounding to multiples of 1 / this number


class TableError(ValueError):
    """Error: a file is not a table of equilibria, or is damaged."""


def composition_key(mixture: Mapping[str, float]) -> str:
    """Text of a composition to a millionth, without absent elements: "Al:0.25 Cr:0.75".

    Amounts may be on any scale. The rounded fractions sum to one, so that the key of a read key is
    the same key. ValueError for amounts that are negative, not finite, or all zero.
    """
    elements = sorted(mixture)
    exact = np.array([mixture[element] for element in elements], float)
    if not (exact >= 0).all() or not 0 < exact.sum() < np.inf:
        raise ValueError(f"no composition: {dict(mixture)}")
    exact *= _STEPS / exact.sum()
    parts = np.floor(exact + 1e-6)
    short = int(min(max(_STEPS - parts.sum(), 0), len(parts)))
    parts[np.argsort(parts - exact, kind="stable")[:short]] += 1
    pairs = zip(elements, parts.tolist(), strict=True)
    return " ".join(f"{element}:{n / _STEPS:g}" for element, n in pairs if n)


def read_key(key: str) -> dict[str, float]:
    """Mole fractions from a key: the inverse of `composition_key`."""
    parts = (part.split(":") for part in key.split())
    return fractions({element: float(amount) for element, amount in parts})


def write_table(path: str | PathLike, equilibria: Equilibria) -> None:
    """Write equilibria to a compressed .npz file of plain arrays."""
    arrays: dict[str, Any] = {}
    for field in fields(equilibria):
        value = getattr(equilibria, field.name)
        if field.name == "reasons":
            value = np.array([reason or "" for reason in value.ravel()], str).reshape(value.shape)
        arrays[field.name] = np.asarray(value)
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, version=np.array(VERSION), **arrays)


def read_table(path: str | PathLike) -> Equilibria:
    """Read a file of `write_table`; TableError naming the file if it is anything else."""
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TableError(f"{path}: no table of equilibria, or a damaged one: {error}") from error
    names = [field.name for field in fields(Equilibria)]
    missing = [name for name in ("version", *names) if name not in arrays]
    if missing or int(arrays["version"]) != VERSION:
        raise TableError(
            f"{path}: no table of equilibria of version {VERSION}: compute it again"
            + (f" (it lacks {', '.join(missing)})" if missing else "")
        )
    reasons = arrays["reasons"].astype(object)
    reasons[reasons == ""] = None
    changed = {"elements": tuple(arrays["elements"].tolist()), "reasons": reasons}
    try:
        return Equilibria(**{name: arrays[name] for name in names} | changed).checked()
    except (IndexError, ValueError) as error:
        raise TableError(f"{path}: a damaged table of equilibria: {error}") from error


class TableEngine:
    """Equilibria by composition from a table; compositions not in it fail with a reason."""

    def __init__(
        self, equilibria: Equilibria, identity: str = "table", modelled: bool = True
    ) -> None:
        """`identity`: identifies the results, for example by the file's digest.

        `modelled`: whether lattice parameters are those of `lattice.lattice_parameter`.
        """
        self._equilibria = equilibria
        self.identity = identity
        self.modelled = modelled
        mixtures = (dict(zip(equilibria.elements, x, strict=True)) for x in equilibria.compositions)
        self._places = {composition_key(mixture): n for n, mixture in enumerate(mixtures)}
        self._points: dict[int, list[Point]] = {}

    @classmethod
    def read(cls, path: str | PathLike, lattice: Lattice = BCC) -> TableEngine:
        """The table in a file; see `read_table`, and `read_phase_table` for one that is .csv.

        Candidates of a CSV are found both by their mixtures by volume and by those by mole, and
        lattice parameters are those of its columns, of which no error is known. Those of an .npz
        count as the lattice model's.
        `lattice`: that of the family's phases.
        """
        from hashlib import sha256

        path = Path(path)
        identity = f"table {sha256(path.read_bytes()).hexdigest()}"
        if path.suffix.lower() != ".csv":
            return cls(read_table(path), identity)
        candidates, equilibria = read_phase_table(path, "mole", lattice)
        engine = cls(equilibria, identity, modelled=False)
        for n, candidate in enumerate(candidates):
            with suppress(CompositionError):  # an element without a volume
                engine._places.setdefault(composition_key(master(candidate, lattice=lattice)), n)
        return engine

    @property
    def missing(self) -> None:
        """Unknown: a table has no interaction parameters."""
        return None

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of the elements it knows."""
        return self._equilibria.elements

    def equilibria(
        self, compositions: Sequence[Mapping[str, float]], temperatures: np.ndarray
    ) -> Equilibria:
        """Equilibria of C compositions at T temperatures (K), as far as they are in the table."""
        temperatures = ascending(temperatures)
        points = [self._find(mixture, temperatures) for mixture in compositions]
        return Equilibria.from_points(compositions, temperatures, points)

    def _find(self, mixture: Mapping[str, float], temperatures: np.ndarray) -> list[Point]:
        reason = problem(mixture, self.elements)
        if reason is not None:
            return [reason] * len(temperatures)
        place = self._places.get(composition_key(mixture))
        if place is None:
            return ["the composition is not in the table"] * len(temperatures)
        if place not in self._points:
            self._points[place] = self._equilibria.points(place)
        known = self._equilibria.temperatures
        found: list[Point] = []
        for temperature in temperatures:
            step = int(np.argmin(np.abs(known - temperature)))
            near = abs(known[step] - temperature) < SAME_TEMPERATURE
            found.append(
                self._points[place][step] if near else "the temperature is not in the table"
            )
        return found
