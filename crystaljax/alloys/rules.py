"""Rules of superalloys over tables of equilibria (arXiv 2511.12036, Eq. 1).

The paper's alloys have a matrix of BCC and precipitates of B2; here they are any two phases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from crystaljax.alloys.engines.thermodynamics import Equilibria, Kind

PRESENT = 1e-3
"""Mole fraction above which a phase counts as present."""

OTHERS = 0.10
"""Largest allowed mole fraction of phases other than the two and liquid."""

NO_MISMATCH = 1.0
"""Å: mismatch if the phases coexist only at temperatures where it is not computed. It is larger
than any mismatch of two metals, and equal to the smallest cost of a rule."""

VERSION = 2
"""Changes when the same equilibria may get another reward."""

LOWEST = ("coexist_from", "bcc_first_from", "b2_from", "others_from", "mismatch_from")
"""Names of the lowest temperatures of rules, fields of `rule_rewards.RulesConfig`."""


@dataclass(frozen=True)
class Part:
    """One of the two phases of an alloy, and how it is recognised in equilibria.

    By its kind, by the beginning of its name, or both; and by whether it is ordered.
    """

    kind: Kind | None = None
    """Its kind in engines; any if None."""
    ordered: bool | None = None
    """Whether it is ordered, by site fractions; None for either."""
    names: tuple[str, ...] = ()
    """Beginnings of its names in the database, such as "FCC_L12"; any name if empty."""

    def rows(self, equilibria: Equilibria) -> np.ndarray:
        """bool [R]: rows of a table that are this phase."""
        rows = np.ones(len(equilibria.kind), bool)
        if self.kind is not None:
            rows &= equilibria.kind == self.kind
        if self.ordered is not None:
            rows &= equilibria.ordered == self.ordered
        if self.names:
            starts = [np.char.startswith(equilibria.phase.astype(str), name) for name in self.names]
            rows &= np.logical_or.reduce(starts)
        return rows

    def amount(self, equilibria: Equilibria) -> np.ndarray:
        """float64 [C, T]: its fraction; nan at failed points."""
        return equilibria.amount_of(self.rows(equilibria))


class Parts(NamedTuple):
    """The phases of an alloy."""

    matrix: Part
    precipitate: Part


BCC_AND_B2 = Parts(Part("bcc", ordered=False), Part("bcc", ordered=True))
"""Disordered BCC with ordered BCC."""

FCC_AND_L12 = Parts(Part("fcc", ordered=False), Part("fcc", ordered=True))
"""γ and γ′: disordered FCC with ordered FCC."""

Rule = Callable[[Equilibria, float, Parts], np.ndarray]
"""From equilibria of C compositions, the lowest temperature (K) of the rule, and the two phases, to
float64 [C]: 1 where the rule is kept, 0 where it is broken, nan where that is unknown.

Failed points are ignored, so that the grid of temperatures is coarser, unless the rule is about
that temperature.
"""

_Rows = tuple[np.ndarray, np.ndarray]  # rows of a table, for example of matrix and precipitate

_SAME_PHASE = 0.2  # largest difference of mole fractions of a phase at neighbouring temperatures


def coexist(equilibria: Equilibria, lowest: float = 0.0, parts: Parts = BCC_AND_B2) -> np.ndarray:
    """Matrix and precipitate coexist at some temperature; see `Rule`."""
    looked_at = _looked_at(equilibria, lowest)
    return _told(looked_at, (_both(equilibria, parts) & looked_at).any(axis=1))


def matrix_first(
    equilibria: Equilibria, lowest: float = 0.0, parts: Parts = BCC_AND_B2
) -> np.ndarray:
    """The first solid on cooling is the matrix; see `Rule`.

    That is, at the highest temperature with a solid its fraction is larger than that of the
    precipitate and than that of all other solids: with steps of 100 K several phases may appear in
    one step.
    """
    matrix, precipitate, others = _solids(equilibria, parts)
    looked_at = _looked_at(equilibria, lowest)
    solid = looked_at & (matrix + precipitate + others > PRESENT)
    hottest = solid.shape[1] - 1 - np.argmax(solid[:, ::-1], axis=1)
    rows = np.arange(len(solid))
    most = matrix[rows, hottest] > np.maximum(precipitate, others)[rows, hottest]
    return _told(looked_at, solid.any(axis=1) & most)


def precipitate_when_cold(
    equilibria: Equilibria, lowest: float = 0.0, parts: Parts = BCC_AND_B2
) -> np.ndarray:
    """Precipitate is present at the lowest temperature of the rule; see `Rule`.

    373 K in the paper.
    """
    looked_at = equilibria.temperatures >= lowest
    if not looked_at.any():
        return np.full(len(equilibria), np.nan)
    amount = parts.precipitate.amount(equilibria)[:, np.argmax(looked_at)]
    return np.where(np.isnan(amount), np.nan, amount > PRESENT)


def few_other_phases(
    equilibria: Equilibria, lowest: float = 0.0, parts: Parts = BCC_AND_B2
) -> np.ndarray:
    """Phases other than the two and liquid are at most 10 % at every temperature; see `Rule`."""
    looked_at = _looked_at(equilibria, lowest)
    few = _solids(equilibria, parts)[2] <= OTHERS + 1e-9
    return _told(looked_at, (few | ~looked_at).all(axis=1))


def smallest_mismatch(
    equilibria: Equilibria,
    lowest: float = 0.0,
    parts: Parts = BCC_AND_B2,
    *,
    crossing: bool = True,
) -> np.ndarray:
    """float64 [C]: smallest difference in Å of the lattice parameters of the coexisting phases.

    Over all temperatures and composition sets. With `crossing` it is zero if the difference changes
    its sign between neighbouring temperatures. nan if the phases never coexist, or if a lattice
    parameter that it may depend on is unknown.
    """
    looked_at = _looked_at(equilibria, lowest)
    both = _both(equilibria, parts) & looked_at
    cell = equilibria.composition * both.shape[1] + equilibria.step
    order = np.argsort(cell, kind="stable")
    order = order[both.ravel()[cell[order]] & (equilibria.fraction[order] > PRESENT)]
    sides = [order[part.rows(equilibria)[order]] for part in parts]
    smallest = np.full(len(equilibria), np.nan)
    for n in np.flatnonzero(both.any(axis=1)):
        found, before = [], None
        for step in np.flatnonzero(looked_at[n]):
            # Without failed points, whose neighbours become neighbours of each other.
            here = n * both.shape[1] + step
            first, second = (
                rows[slice(*np.searchsorted(cell[rows], [here, here + 1]))] for rows in sides
            )
            now = (first, second) if both[n, step] else None
            if now is not None:
                found.append(np.abs(_differences(equilibria, first, second)).ravel())
                if crossing and before is not None and _crosses(equilibria, before, now):
                    found.append(np.zeros(1))
            before = now
        smallest[n] = np.concatenate(found).min(initial=np.inf)  # nan if one is
    return np.where(np.isfinite(smallest), smallest, np.nan)


def _differences(equilibria: Equilibria, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Å [rows of one phase, rows of the other]: the other's lattice parameter minus the one's."""
    return np.asarray(equilibria.lattice[second] - equilibria.lattice[first][:, None])


def _crosses(equilibria: Equilibria, before: _Rows, now: _Rows) -> bool:
    """Whether two phases have equal lattice parameters somewhere between two temperatures."""
    (first, first_now), (second, second_now) = (
        _followed(equilibria, *rows) for rows in zip(before, now, strict=True)
    )
    change = _differences(equilibria, first, second)
    change = change * _differences(equilibria, first_now, second_now)
    return bool((change <= 0).any())


def _followed(equilibria: Equilibria, before: np.ndarray, now: np.ndarray) -> _Rows:
    """Rows of one temperature and, in the same order, rows of the same phases at another."""
    apart = np.abs(equilibria.contents[before][:, None] - equilibria.contents[now]).max(axis=-1)
    first, second = linear_sum_assignment(apart)
    same = apart[first, second] < _SAME_PHASE
    return before[first[same]], now[second[same]]


def _solids(equilibria: Equilibria, parts: Parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fractions [C, T] of matrix, precipitate and other solids; nan at failed points."""
    matrix, precipitate = (part.rows(equilibria) for part in parts)
    others = ~(matrix | precipitate | equilibria.rows_of("liquid"))
    first, second, third = map(equilibria.amount_of, (matrix, precipitate, others))
    return first, second, third


def _both(equilibria: Equilibria, parts: Parts) -> np.ndarray:
    """bool [C, T]: whether matrix and precipitate are both present."""
    matrix, precipitate, _ = _solids(equilibria, parts)
    return np.asarray((matrix > PRESENT) & (precipitate > PRESENT))


def _looked_at(equilibria: Equilibria, lowest: float) -> np.ndarray:
    """bool [C, T]: points that did not fail and are not below a temperature."""
    return np.asarray(equilibria.solved & (equilibria.temperatures >= lowest))


def _told(looked_at: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """float64 [C]: whether a rule is kept; nan without a point that it applies to."""
    return np.where(looked_at.any(axis=1), kept, np.nan)
