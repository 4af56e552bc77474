"""The rules of a BCC/B2 superalloy over tables of equilibria (arXiv 2511.12036, Eq. 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from crystaljax.alloys.engines.thermodynamics import Equilibria

PRESENT = 1e-3
"""Mole fraction above which a phase is there."""

OTHERS = 0.10
"""Mole fraction of phases other than BCC, B2 and liquid that is still allowed."""

Rule = Callable[[Equilibria, float], np.ndarray]
"""Equilibria of C compositions and the lowest temperature (K) to be looked at -> bool [C]."""


def coexist(equilibria: Equilibria, lowest: float = 0.0) -> np.ndarray:
    """bool [C]: BCC and B2 coexist at some temperature."""
    return np.asarray((_both(equilibria) & (equilibria.temperatures >= lowest)).any(axis=1))


def bcc_first(equilibria: Equilibria, lowest: float = 0.0) -> np.ndarray:
    """bool [C]: what forms first on cooling is BCC.

    That is, at the highest temperature with a solid there is more disordered BCC than B2 and than
    all other solids: at steps of 100 K several phases may appear in one step.
    """
    bcc, b2, others = _solids(equilibria)
    looked_at = equilibria.solved & (equilibria.temperatures >= lowest)
    solid = looked_at & (bcc + b2 + others > PRESENT)
    hottest = solid.shape[1] - 1 - np.argmax(solid[:, ::-1], axis=1)
    rows = np.arange(len(solid))
    most = bcc[rows, hottest] > np.maximum(b2, others)[rows, hottest]
    return np.asarray(solid.any(axis=1) & most)


def b2_at_room_temperature(equilibria: Equilibria, lowest: float = 0.0) -> np.ndarray:
    """bool [C]: there is B2 at the lowest temperature that is known, 373 K in the paper."""
    looked_at = equilibria.solved & (equilibria.temperatures >= lowest)
    coldest = np.argmax(looked_at, axis=1)
    amount = equilibria.amount("bcc", ordered=True)[np.arange(len(looked_at)), coldest]
    return np.asarray(looked_at.any(axis=1) & (amount > PRESENT))


def few_other_phases(equilibria: Equilibria, lowest: float = 0.0) -> np.ndarray:
    """bool [C]: at every temperature phases other than BCC, B2 and liquid are at most 10 %.

    Points that failed are passed over; a composition of which nothing is known fails.
    """
    looked_at = equilibria.solved & (equilibria.temperatures >= lowest)
    few = _solids(equilibria)[2] <= OTHERS + 1e-9
    return np.asarray(looked_at.any(axis=1) & (few | ~looked_at).all(axis=1))


def smallest_mismatch(equilibria: Equilibria, lowest: float = 0.0) -> np.ndarray:
    """float64 [C]: least difference of the lattice parameters of BCC and B2 where both are, in Å.

    Over all temperatures and composition sets; nan where they never coexist or one is unknown.
    """
    smallest = np.full(len(equilibria), np.nan)
    here = (equilibria.fraction > PRESENT) & np.isfinite(equilibria.lattice)
    here &= equilibria.temperatures[equilibria.step] >= lowest
    cell = equilibria.composition * len(equilibria.temperatures) + equilibria.step
    matrix = np.flatnonzero(here & equilibria.rows_of("bcc", ordered=False))
    b2 = np.flatnonzero(here & equilibria.rows_of("bcc", ordered=True))
    b2 = b2[np.argsort(cell[b2], kind="stable")]
    for row in matrix:
        start, end = np.searchsorted(cell[b2], [cell[row], cell[row] + 1])
        if start < end:
            difference = np.abs(equilibria.lattice[b2[start:end]] - equilibria.lattice[row]).min()
            n = equilibria.composition[row]
            smallest[n] = np.fmin(smallest[n], difference)
    return smallest


RULES: Mapping[str, tuple[Rule, float]] = MappingProxyType(
    {
        "coexist": (coexist, 1000.0),
        "bcc_first": (bcc_first, 100.0),
        "b2_at_room_temperature": (b2_at_room_temperature, 10.0),
        "few_other_phases": (few_other_phases, 1.0),
    }
)
"""Name -> rule, and what breaking it costs."""


def _solids(equilibria: Equilibria) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fractions [C, T] of disordered BCC, B2 and other solids; nan at points that failed."""
    bcc = equilibria.amount("bcc", ordered=False)
    return bcc, equilibria.amount("bcc", ordered=True), equilibria.amount("other")


def _both(equilibria: Equilibria) -> np.ndarray:
    """bool [C, T]: BCC and B2 are both there."""
    bcc, b2, _ = _solids(equilibria)
    return np.asarray((bcc > PRESENT) & (b2 > PRESENT))
