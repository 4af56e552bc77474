"""Lattices of ordering phases, and a pair-volume model of their lattice parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from crystaljax.alloys.volumes import (
    ATOMIC_VOLUME,
    AVOGADRO,
    B2_LATTICE,
    FCC_VOLUME,
    L12_LATTICE,
    THERMAL_EXPANSION,
)

ROOM = 298.15
"""K: temperature of the tables."""

CONTRACTION = 0.134
"""Å by which B2 compounds of aluminium are smaller than the mean of their elements."""

MOST_ELEMENTS = 8
"""Largest number of elements of an ordered phase whose smallest order is searched."""

ERROR = 0.03
"""Å: the model's error. In leave-one-out tests, tabulated compounds of aluminium with metals of
groups 8 to 10 are predicted within 0.03 Å and the others within 0.12 Å. Both phases of an alloy
share elements, so that the error of their difference is smaller. Thermal expansion is linear with
the coefficient at 25 °C, which gives 0.01 Å too little at 1000 K."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """A cubic lattice whose phase may order on two sublattices, and the sizes of its atoms."""

    kind: str
    """Name of the kind of its phases in engines, such as "bcc"."""
    ordered: str
    """Name of the ordered structure, for messages."""
    names: tuple[str, ...]
    """Beginnings of the names of its phases in databases, that of the ordered one first."""
    marks: tuple[str, ...]
    """Parts of the name of its disordered phase in a TDB."""
    interstitials: float
    """Interstitial sites per atom, which identify a disordered phase with another name."""
    volumes: Mapping[str, float]
    """Å³ of an atom of the elements in the disordered phase at 298 K."""
    compounds: Mapping[tuple[str, str], float]
    """Å of ordered compounds near room temperature, by the elements of the first and the second
    sublattice; in either order if `ratio` is 1."""
    error: float = ERROR
    """Å: of lattice parameters by the model."""
    contraction: float = 0.0
    """Å: difference of the mean of two elements and the pair, for aluminium with another metal."""
    ratio: int = 1
    """Sites of the first sublattice for each of the second."""
    atoms: int = 2
    """Atoms of the cubic cell."""
    between: float = 1.0
    """Share of nearest-neighbour pairs between sublattices; the others are within the first."""

    def holds(self, phase: str) -> bool:
        """Whether a phase is of this lattice, by its name in Thermo-Calc's databases."""
        return phase.upper().startswith(self.names)


BCC = Lattice(
    "bcc",
    "B2",
    ("BCC_B2", "BCC_A2"),
    ("BCC", "A2"),
    3,
    ATOMIC_VOLUME,
    B2_LATTICE,
    contraction=CONTRACTION,
)
"""Body-centred cubic: A2, which orders as B2."""

FCC = Lattice(
    "fcc",
    "L12",
    ("FCC_L12", "FCC_A1", "L12_FCC"),
    ("FCC", "A1"),
    1,
    FCC_VOLUME,
    L12_LATTICE,
    ratio=3,
    atoms=4,
    between=0.5,
)
"""Face-centred cubic: A1, which orders as L1₂; the sizes are those of alloys of nickel."""


def lattice_parameter(
    elements: Sequence[str],
    first: np.ndarray,
    second: np.ndarray,
    temperature: float | np.ndarray,
    lattice: Lattice = BCC,
) -> np.ndarray:
    """Cubic lattice parameter a of a phase in Å; nan for unknown elements.

    `first`, `second`: site fractions [..., E] of the two sublattices, equal if it is disordered;
    `temperature` [...] in K. The cell's volume is a mean over pairs of neighbours, Σ y'ᵢ y''ⱼ aᵢⱼ³
    for pairs between the sublattices (all pairs of BCC) and Σ y'ᵢ y'ⱼ aᵢⱼ³ for pairs within the
    first, times exp(3 Σ xᵢ αᵢ (T - 298 K)). aᵢᵢ is that of the metal. aᵢⱼ reproduces a tabulated
    compound; without one it is the mean of the elements, minus the `contraction` for aluminium.
    """
    volumes, expansion = _tables(tuple(elements), lattice)
    first, second = _normalised(first), _normalised(second)
    mean = (lattice.ratio * first + second) / (lattice.ratio + 1)
    other = lattice.between * second + (1 - lattice.between) * first
    # An absent element that is not tabulated does not matter.
    weights = first[..., :, None] * other[..., None, :]
    volume = np.where(weights > 0, weights * volumes, 0.0).sum((-2, -1))
    growth = np.where(mean > 0, mean * expansion, 0.0).sum(-1)
    return np.cbrt(volume) * np.exp(growth * (np.asarray(temperature) - ROOM))


def atomic_volume(
    elements: Sequence[str], x: np.ndarray, *, ordered: bool, lattice: Lattice = BCC
) -> float:
    """Mean volume of an atom in Å³ at room temperature, of mole fractions [E] above zero.

    For a disordered phase, or for the order with the smallest volume, since compounds are smaller
    than their elements: MnAl2Fe has Al on one sublattice. ValueError for an ordered phase of more
    than `MOST_ELEMENTS` elements, which has too many orders.
    """
    x = _normalised(x)
    first, second = _orders(x, lattice) if ordered else (x, x)
    smallest = lattice_parameter(elements, first, second, ROOM, lattice).min()
    return float(smallest**3 / lattice.atoms)


def _orders(x: np.ndarray, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Site fractions [W, E] of both sublattices in all W orders of mole fractions [E].

    Only orders that split at most one element between the sublattices: if pairs are smaller than
    the mean of their elements, the volume is concave in an exchange of two elements, so that the
    minimum is among them.
    """
    n = len(x)
    if n > MOST_ELEMENTS:
        raise ValueError(f"a {lattice.ordered} of {n} elements: {MOST_ELEMENTS} at most")
    share = lattice.ratio / (lattice.ratio + 1)  # share of sites in the first sublattice
    whole = np.array(list(product((0.0, 1.0), repeat=n)))  # which are on the first sublattice
    split = np.repeat(np.arange(n), len(whole))
    first = np.tile(whole * x / share, (n, 1))
    rows = np.arange(len(first))
    first[rows, split] = 0.0
    first[rows, split] = 1 - first.sum(axis=1)
    most = x[split] / share
    possible = (first[rows, split] >= -1e-9) & (first[rows, split] <= most + 1e-9)
    first = first[possible].clip(0, None)
    return first, ((x - share * first) / (1 - share)).clip(0, None)


def lattice_from_molar_volume(
    molar_volume: float | np.ndarray, lattice: Lattice = BCC
) -> np.ndarray:
    """a in Å of a cubic cell, from m³/mol of atoms."""
    return np.cbrt(lattice.atoms * 1e30 * np.asarray(molar_volume) / AVOGADRO)


def pair_lattice(a: str, b: str, *, tabulated: bool = True, lattice: Lattice = BCC) -> float:
    """aᵢⱼ in Å of a pair of elements at room temperature; nan if one is unknown."""
    if a not in lattice.volumes or b not in lattice.volumes:
        return float("nan")
    for first, second in ((a, b), (b, a)) if tabulated else ():
        if (first, second) in lattice.compounds:
            metal = lattice.atoms * lattice.volumes[first]
            cell = lattice.compounds[first, second] ** 3
            return float(np.cbrt(metal + (cell - metal) / lattice.between))
    mean = sum(float(np.cbrt(lattice.atoms * lattice.volumes[e])) for e in (a, b)) / 2
    return float(mean - (lattice.contraction if "Al" in (a, b) and a != b else 0.0))


@lru_cache(maxsize=256)
def _tables(elements: tuple[str, ...], lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Volumes [E, E] of cells in Å³ and linear expansion [E] in 1/K."""
    pairs = [[pair_lattice(a, b, lattice=lattice) for b in elements] for a in elements]
    volumes = np.array(pairs) ** 3
    expansion = np.array([THERMAL_EXPANSION.get(e, np.nan) for e in elements])
    return volumes, expansion


def _normalised(fractions: np.ndarray) -> np.ndarray:
    """Site fractions without vacancies."""
    fractions = np.asarray(fractions, float)
    return fractions / fractions.sum(axis=-1, keepdims=True)
