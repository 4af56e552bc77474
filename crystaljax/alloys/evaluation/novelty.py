"""Distances of candidates from known ones: Magpie features, coverage and novelty."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from crystaljax.alloys.composition import Candidate, CompositionError, fractions, master
from crystaljax.alloys.lattice import BCC, Lattice
from crystaljax.evaluation.rates import GENERATED, Rate

_MAGPIE_FEATURES = 132

COVERAGE = 10 / math.sqrt(_MAGPIE_FEATURES)
"""Distance up to which candidates cover each other: 10 over 132 scaled features, which is CDVAE's
for the compositions of MP-20 (Xie et al., ICLR 2022), as a root mean square: 0.87."""

NOVELTY = 2 / math.sqrt(_MAGPIE_FEATURES)
"""Distance beyond which a candidate is new: 2 over 132 scaled features, as in Gruver et al. (ICLR
2024), as a root mean square: 0.17."""

STATISTICS = ("mean", "average deviation", "minimum", "maximum", "range", "mode")
PROPERTIES = (
    "atomic number", "Mendeleev number", "atomic mass", "melting point", "group", "period",
    "atomic radius", "electronegativity", "molar volume",
    "s electrons", "p electrons", "d electrons", "f electrons", "valence electrons",
    "s holes", "p holes", "d holes", "f holes", "holes",
)  # fmt: skip
"""Properties of elements, from pymatgen: those of Ward et al. (2016) except ground-state volume,
band gap, magnetic moment and space group; molar volume and atomic radius are from other tables.
Electrons are those outside the noble-gas core; holes are unoccupied places in open shells."""

_CAPACITY = {"s": 2, "p": 6, "d": 10, "f": 14}

Features = Literal["master", "phases"]
"""Features of the whole alloy, or of each of the two phases."""


def magpie_features(mixtures: Sequence[Mapping[str, float]]) -> np.ndarray:
    """float64 [N, 114]: each of `STATISTICS` of each of `PROPERTIES`, over mole fractions.

    Amounts may be on any scale. The mode is the property of the most abundant element, or the
    smallest one of several equally abundant elements. nan if pymatgen lacks a property.
    L. Ward et al., npj Comput. Mater. 2 (2016), 16028.
    """
    elements = sorted({element for mixture in mixtures for element in mixture})
    x = np.array([[mixture.get(e, 0.0) for e in elements] for mixture in mixtures], float)
    x = (x.reshape(len(mixtures), -1) / x.sum(axis=-1, keepdims=True))[..., None]
    table = np.array([_properties(e) for e in elements]).reshape(1, len(elements), -1)
    there = x > 0

    def total(values: np.ndarray) -> np.ndarray:
        return np.where(there, x * values, 0.0).sum(axis=1)

    mean = total(table)
    deviation = total(np.abs(table - mean[:, None]))
    low = np.where(there, table, np.inf).min(axis=1)
    high = np.where(there, table, -np.inf).max(axis=1)
    most = x >= x.max(axis=1, keepdims=True) - 1e-9
    mode = np.where(most, table, np.inf).min(axis=1)
    return np.concatenate([mean, deviation, low, high, high - low, mode], axis=1)


@lru_cache
def _properties(symbol: str) -> tuple[float, ...]:
    """The values of `PROPERTIES`; nan where one is unknown."""
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns about unknown values
        element = Element(symbol)
        names = ["Z", "mendeleev_no", "atomic_mass", "melting_point", "group", "row"]
        names += ["atomic_radius", "X", "molar_volume"]
        values = [getattr(element, name) for name in names]
        shells = re.findall(r"\d([spdf])(\d+)", element.electronic_structure.split("]")[-1])
    electrons = dict.fromkeys(_CAPACITY, 0)
    for shell, n in shells:
        electrons[shell] += int(n)
    holes = [_CAPACITY[shell] - n if n else 0 for shell, n in electrons.items()]
    values += [*electrons.values(), sum(electrons.values()), *holes, sum(holes)]
    return tuple(math.nan if value is None else float(value) for value in values)


@dataclass(frozen=True)
class FeatureSpace:
    """Space of scaled features, with their root mean square difference as the distance."""

    centre: np.ndarray
    """float64 [F]: means of the candidates it was made from."""
    weight: np.ndarray
    """float64 [F]: 1 / (standard deviation · √(number of features that vary)); 0 for features that
    do not vary."""
    features: Features = "master"
    mix_by: Literal["volume", "mole"] = "volume"
    """Basis of B2 percentages."""
    lattice: Lattice = BCC
    """Lattice of the phases, for their volumes."""

    @staticmethod
    def of(
        candidates: Sequence[Candidate],
        features: Features = "master",
        mix_by: Literal["volume", "mole"] = "volume",
        lattice: Lattice = BCC,
    ) -> FeatureSpace:
        """Space in which the given candidates have unit variance.

        ValueError if there are none, or none whose features are known.
        """
        if not candidates:
            raise ValueError("no training candidates: features cannot be scaled")
        values = _candidate_features(candidates, features, mix_by, lattice)
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            raise ValueError(
                f"features are known of none of {len(candidates)} training candidates: pymatgen"
                " must have all properties of their elements, and, unless they are mixed by mole,"
                " their atomic volumes must be known"
            )
        spread = values.std(axis=0)
        varies = spread > 1e-9 * np.maximum(1.0, np.abs(values).max(axis=0))
        weight = np.where(varies, 1 / np.where(varies, spread, 1.0), 0.0)
        weight /= math.sqrt(max(varies.sum(), 1))
        return FeatureSpace(values.mean(axis=0), weight, features, mix_by, lattice)

    def __call__(self, candidates: Sequence[Candidate | None]) -> np.ndarray:
        """float64 [N, F]: points; nan for None and for unknown features."""
        values = _candidate_features(candidates, self.features, self.mix_by, self.lattice)
        return (values - self.centre) * self.weight

    def of_mixtures(self, mixtures: Sequence[Mapping[str, float] | None]) -> np.ndarray:
        """float64 [N, F]: points of whole alloys (amounts); nan for None.

        ValueError if the features are those of the phases.
        """
        if self.features != "master":
            raise ValueError("compositions of whole alloys are compared by features of the master")
        rows = [row for row, mixture in enumerate(mixtures) if mixture is not None]
        values = np.full((len(mixtures), len(self.centre)), np.nan)
        if rows:
            values[rows] = magpie_features([one for one in mixtures if one is not None])
        return (values - self.centre) * self.weight


def _candidate_features(
    candidates: Sequence[Candidate | None],
    features: Features,
    mix_by: Literal["volume", "mole"],
    lattice: Lattice,
) -> np.ndarray:
    """float64 [N, F]."""
    parts: list[list[Mapping[str, float]]] = []
    rows = []
    for row, candidate in enumerate(candidates):
        if candidate is None:
            continue
        if features == "phases":
            parts.append([fractions(candidate.bcc), fractions(candidate.b2)])
        else:
            try:
                parts.append([master(candidate, mix_by, lattice)])
            except CompositionError:
                continue
        rows.append(row)
    n_parts = 2 if features == "phases" else 1
    found = np.full((len(candidates), n_parts * len(STATISTICS) * len(PROPERTIES)), np.nan)
    if rows:
        flat = magpie_features([mixture for part in parts for mixture in part])
        found[rows] = flat.reshape(len(rows), -1)
    return found


def nearest(points: np.ndarray, others: np.ndarray, at_once: int = 512) -> np.ndarray:
    """float64 [N]: distance of each point [N, F] to the nearest of others [M, F].

    nan for points that are nan. Others that are nan are ignored; inf if none is left.
    """
    others = others[np.isfinite(others).all(axis=1)]
    if not len(others):
        return np.where(np.isfinite(points).all(axis=1), np.inf, np.nan)
    squares = (others**2).sum(axis=1)
    found = np.empty(len(points))
    for start in range(0, len(points), at_once):
        part = points[start : start + at_once]
        least = (squares - 2 * part @ others.T).min(axis=1) + (part**2).sum(axis=1)
        found[start : start + at_once] = np.sqrt(np.maximum(least, 0.0))
    return found


def coverage_rates(
    samples: np.ndarray, reference: np.ndarray, threshold: float, name: str
) -> tuple[Rate, Rate]:
    """Recall and precision of coverage (CDVAE's COV-R and COV-P), of points [N, F] and [M, F].

    `name`: that of the reference.
    """
    within = f"within {threshold:.3g} (rms of scaled Magpie features)"
    recall = nearest(reference, samples) <= threshold
    precision = nearest(samples, reference) <= threshold
    return (
        Rate.of("COV-R", recall, f"{within} of a sample", "reference candidates", name),
        Rate.of("COV-P", precision, f"{within} of a reference candidate", GENERATED, name),
    )
