"""The rules of a BCC/B2 superalloy over tables of equilibria (arXiv 2511.12036, Eq. 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from scipy.optimize import linear_sum_assignment

from crystaljax.alloys.engines.thermodynamics import Equilibria

PRESENT = 1e-3
"""Mole fraction above which a phase is there."""

OTHERS = 0.10
"""Mole fraction of phases other than BCC, B2 and liquid that is still allowed."""

NO_MISMATCH = 1.0
"""Å taken off where BCC and B2 coexist, but nowhere that the mismatch is looked for: more than any
mismatch of two metals, and as much as the least rule costs."""

VERSION = 2
"""Changes when the same equilibria may get another reward."""

Rule = Callable[[Equilibria, float], np.ndarray]
"""Equilibria of C compositions and the lowest temperature (K) to be looked at -> float64 [C]: 1
where the rule is kept, 0 where it is broken, nan where that is unknown.

A point that failed makes the grid of temperatures coarser, no more, unless the rule is about that
temperature.
"""

_Rows = tuple[np.ndarray, np.ndarray]  # rows of a table: of BCC and of B2 phases, for one

_SAME_PHASE = 0.2  # largest difference of mole fractions of a phase at neighbouring temperatures


def coexist(equilibria: Equilibria, lowest: float = 0.0) -> np.ndarray:
    """BCC and B2 coexist at some temperature; see `Rule`."""
    looked_at = _looked_at(equilibria, lowest)
    return _told(looked_at, (_both(equilibria) & looked_at).any(axis=1))


def bcc_first(equilibria: Equilibria, lowest: float = 0.0) -> np.ndarray:
    """The first solid on cooling is BCC; see `Rule`.

    That is, at the highest temperature with a solid there is more disordered BCC than B2 and than
    all other solids: at steps of 100 K several phases may appear in one step.
    """
    bcc, b2, others = _solids(equilibria)
    looked_at = _looked_at(equilibria, lowest)
    solid = looked_at & (bcc + b2 + others > PRESENT)
    hottest = solid.shape[1] - 1 - np.argmax(solid[:, ::-1], axis=1)
    rows = np.arange(len(solid))
    most = bcc[rows, hottest] > np.maximum(b2, others)[rows, hottest]
    return _told(looked_at, solid.any(axis=1) & most)


def b2_at_room_temperature(equilibria: Equilibria, lowest: float = 0.0) -> np.ndarray:
    """There is B2 at the lowest temperature that is looked at, 373 K in the paper; see `Rule`."""
    looked_at = equilibria.temperatures >= lowest
    if not looked_at.any():
        return np.full(len(equilibria), np.nan)
    amount = equilibria.amount("bcc", ordered=True)[:, np.argmax(looked_at)]
    return np.where(np.isnan(amount), np.nan, amount > PRESENT)


def few_other_phases(equilibria: Equilibria, lowest: float = 0.0) -> np.ndarray:
    """Phases other than BCC, B2 and liquid are at most 10 % at every temperature; see `Rule`."""
    looked_at = _looked_at(equilibria, lowest)
    few = _solids(equilibria)[2] <= OTHERS + 1e-9
    return _told(looked_at, (few | ~looked_at).all(axis=1))


def smallest_mismatch(
    equilibria: Equilibria, lowest: float = 0.0, *, crossing: bool = True
) -> np.ndarray:
    """float64 [C]: least difference of the lattice parameters of BCC and B2 where both are, in Å.

    Over all temperatures and composition sets; zero, with `crossing`, where the difference changes
    its sign between neighbouring temperatures. nan where they never coexist, or where a lattice
    parameter that it may depend on is unknown.
    """
    looked_at = _looked_at(equilibria, lowest)
    both = _both(equilibria) & looked_at
    cell = equilibria.composition * both.shape[1] + equilibria.step
    order = np.argsort(cell, kind="stable")
    order = order[both.ravel()[cell[order]] & (equilibria.fraction[order] > PRESENT)]
    sides = [order[equilibria.rows_of("bcc", ordered)[order]] for ordered in (False, True)]
    smallest = np.full(len(equilibria), np.nan)
    for n in np.flatnonzero(both.any(axis=1)):
        found, before = [], None
        for step in np.flatnonzero(looked_at[n]):
            # A point that failed is not among these: its neighbours become each other's.
            here = n * both.shape[1] + step
            bcc, b2 = (
                rows[slice(*np.searchsorted(cell[rows], [here, here + 1]))] for rows in sides
            )
            now = (bcc, b2) if both[n, step] else None
            if now is not None:
                found.append(np.abs(_differences(equilibria, bcc, b2)).ravel())
                if crossing and before is not None and _crosses(equilibria, before, now):
                    found.append(np.zeros(1))
            before = now
        smallest[n] = np.concatenate(found).min(initial=np.inf)  # nan if one is
    return np.where(np.isfinite(smallest), smallest, np.nan)


def _differences(equilibria: Equilibria, bcc: np.ndarray, b2: np.ndarray) -> np.ndarray:
    """Å [rows of BCC, rows of B2]: by how much the lattice parameter of B2 is larger."""
    return np.asarray(equilibria.lattice[b2] - equilibria.lattice[bcc][:, None])


def _crosses(equilibria: Equilibria, before: _Rows, now: _Rows) -> bool:
    """Whether a BCC and a B2 that are there at two temperatures have the same lattice between."""
    (bcc, bcc_now), (b2, b2_now) = (
        _followed(equilibria, *rows) for rows in zip(before, now, strict=True)
    )
    change = _differences(equilibria, bcc, b2) * _differences(equilibria, bcc_now, b2_now)
    return bool((change <= 0).any())


def _followed(equilibria: Equilibria, before: np.ndarray, now: np.ndarray) -> _Rows:
    """Rows of one temperature and, in the same order, those that are the same phases at another."""
    apart = np.abs(equilibria.contents[before][:, None] - equilibria.contents[now]).max(axis=-1)
    first, second = linear_sum_assignment(apart)
    same = apart[first, second] < _SAME_PHASE
    return before[first[same]], now[second[same]]


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


def _looked_at(equilibria: Equilibria, lowest: float) -> np.ndarray:
    """bool [C, T]: points that are known and not below a temperature."""
    return np.asarray(equilibria.solved & (equilibria.temperatures >= lowest))


def _told(looked_at: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """float64 [C]: whether a rule is kept; nan where no point was looked at."""
    return np.where(looked_at.any(axis=1), kept, np.nan)
