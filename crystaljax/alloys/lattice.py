"""Lattice parameters of BCC and B2 solutions: a model of pair volumes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from crystaljax.alloys.volumes import ATOMIC_VOLUME, AVOGADRO, B2_LATTICE, THERMAL_EXPANSION

ROOM = 298.15
"""K: where the tables hold."""

CONTRACTION = 0.134
"""Å by which B2 compounds of aluminium are smaller than the mean of their elements."""

MOST_ELEMENTS = 8
"""Of a B2 whose best order is looked for."""

ERROR = 0.03
"""Å: the model's error. Left out one by one, the tabulated compounds of aluminium with metals of
groups 8 to 10 are met within 0.03 Å and the others within 0.12 Å; both parts of an alloy share
elements, so their difference is known better. Expansion is linear with the coefficient at 25 °C:
at 1000 K 0.01 Å too little."""


def lattice_parameter(
    elements: Sequence[str],
    first: np.ndarray,
    second: np.ndarray,
    temperature: float | np.ndarray,
) -> np.ndarray:
    """Cubic lattice parameter a of BCC (`first` = `second`) or B2, in Å; nan for unknown elements.

    `first`, `second`: site fractions [..., E] of the two sublattices; `temperature` [...] in K.
    The cell's volume is a mean over pairs of atoms on the two sublattices, Σ y'ᵢ y''ⱼ aᵢⱼ³, times
    exp(3 Σ xᵢ αᵢ (T - 298 K)); aᵢᵢ is the BCC metal's, aᵢⱼ the B2 compound's where tabulated, else
    the mean of the elements, less `CONTRACTION` with aluminium.
    """
    volumes, expansion = _tables(tuple(elements))
    first, second = _normalised(first), _normalised(second)
    mean = (first + second) / 2
    # An absent element that is not tabulated does not matter.
    weights = first[..., :, None] * second[..., None, :]
    volume = np.where(weights > 0, weights * volumes, 0.0).sum((-2, -1))
    growth = np.where(mean > 0, mean * expansion, 0.0).sum(-1)
    return np.cbrt(volume) * np.exp(growth * (np.asarray(temperature) - ROOM))


def atomic_volume(elements: Sequence[str], x: np.ndarray, *, ordered: bool) -> float:
    """Mean volume of an atom in Å³ at room temperature, of mole fractions [E] above zero.

    Of disordered BCC, or of a B2 ordered in the way that makes it smallest, as compounds are
    smaller than their elements: MnAl2Fe has Al on one sublattice. ValueError: a B2 of more than
    `MOST_ELEMENTS`, whose ways are too many.
    """
    x = _normalised(x)
    first, second = _orders(x) if ordered else (x, x)
    return float(lattice_parameter(elements, first, second, ROOM).min() ** 3 / 2)


def _orders(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Site fractions [W, E] of both sublattices in all ways to order mole fractions [E].

    Of those that split one element at most between the sublattices: where pairs are smaller than
    the mean of their elements, exchanging two elements is concave, and the least is among them.
    """
    n = len(x)
    if n > MOST_ELEMENTS:
        raise ValueError(f"a B2 of {n} elements: {MOST_ELEMENTS} at most")
    whole = np.array(list(product((0.0, 1.0), repeat=n)))  # which are on the first sublattice
    split = np.repeat(np.arange(n), len(whole))
    first = np.tile(whole * 2 * x, (n, 1))
    rows = np.arange(len(first))
    first[rows, split] = 0.0
    first[rows, split] = 1 - first.sum(axis=1)
    possible = (first[rows, split] >= -1e-9) & (first[rows, split] <= 2 * x[split] + 1e-9)
    first = first[possible].clip(0, None)
    return first, (2 * x - first).clip(0, None)


def lattice_from_molar_volume(molar_volume: float | np.ndarray) -> np.ndarray:
    """a in Å of a cubic cell with two atoms, from m³/mol of atoms."""
    return np.cbrt(2e30 * np.asarray(molar_volume) / AVOGADRO)


def pair_lattice(a: str, b: str, *, tabulated: bool = True) -> float:
    """aᵢⱼ in Å of a pair of elements at room temperature; nan if one is unknown."""
    pair = (min(a, b), max(a, b))
    if tabulated and pair in B2_LATTICE:
        return B2_LATTICE[pair]
    if a not in ATOMIC_VOLUME or b not in ATOMIC_VOLUME:
        return float("nan")
    mean = (np.cbrt(2 * ATOMIC_VOLUME[a]) + np.cbrt(2 * ATOMIC_VOLUME[b])) / 2
    return float(mean - (CONTRACTION if "Al" in pair and a != b else 0.0))


@lru_cache(maxsize=256)
def _tables(elements: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Volumes [E, E] of cells in Å³ and linear expansion [E] in 1/K."""
    volumes = np.array([[pair_lattice(a, b) ** 3 for b in elements] for a in elements])
    expansion = np.array([THERMAL_EXPANSION.get(e, np.nan) for e in elements])
    return volumes, expansion


def _normalised(fractions: np.ndarray) -> np.ndarray:
    """Site fractions without vacancies."""
    fractions = np.asarray(fractions, float)
    return fractions / fractions.sum(axis=-1, keepdims=True)
