"""Pareto fronts of two objectives: what nothing else is better than in both, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crystaljax.plots import chart, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pareto_plot(
    points: Mapping[str, tuple[np.ndarray, np.ndarray]],
    x_label: str,
    y_label: str,
    maximised: tuple[bool, bool] = (False, True),
) -> Figure:
    """Two objectives (x, y) [N] of samples by label, and the front of those that none is better.

    A sample is on its label's front if no other is at least as good in both and better in one. nan
    are left out. The axes hold the middle 95 % of either objective and all fronts; the legend
    counts what lies beyond.
    """
    figure, axes = chart((6.4, 4.2))
    known, fronts = {}, {}
    for label, pair in points.items():
        some = np.stack([np.asarray(x, np.float64) for x in pair], axis=1)
        known[label] = some[np.isfinite(some).all(axis=1)]
        fronts[label] = known[label][pareto_front(known[label], maximised)]
    limits = _limits(np.concatenate([*known.values()]), np.concatenate([*fronts.values()]))
    for i, (label, some) in enumerate(known.items()):
        colour, marker, line = look(i)
        beyond = int(((some < limits[0]) | (some > limits[1])).any(axis=1).sum())
        text = f"{label} ({len(some)}, {beyond} beyond the axes)" if beyond else label
        how: dict[str, Any] = {"color": colour, "marker": marker}
        axes.scatter(some[:, 0], some[:, 1], s=9, alpha=0.45, linewidths=0, label=text, **how)
        front = fronts[label][np.argsort(fronts[label][:, 0])]
        axes.plot(*front.T, ls=line, lw=1.4, ms=5, label=f"{label}: Pareto front", **how)
    axes.set_xlim(limits[0, 0], limits[1, 0])
    axes.set_ylim(limits[0, 1], limits[1, 1])
    axes.set_xlabel(f"{x_label}, {'higher' if maximised[0] else 'lower'} is better")
    axes.set_ylabel(f"{y_label}, {'higher' if maximised[1] else 'lower'} is better")
    axes.legend(frameon=False, fontsize=8.5)
    return figure


def pareto_front(points: np.ndarray, maximised: Sequence[bool]) -> np.ndarray:
    """Rows of the points [N, 2] that are not dominated: no other is as good in both objectives and
    better in one. Of equal points all are taken or none."""
    cost = np.where(maximised, -points, points)
    rows: list[int] = []
    for row in np.lexsort((cost[:, 1], cost[:, 0])):
        last = cost[rows[-1]] if rows else np.full(2, np.inf)
        if cost[row, 1] < last[1] or (cost[row] == last).all():
            rows.append(int(row))
    return np.array(rows, int)


def _limits(points: np.ndarray, always: np.ndarray) -> np.ndarray:
    """Lower and upper ends [2, 2] of axes that hold most of the points [N, 2], and others all."""
    if not len(points):
        return np.array([[0.0, 0.0], [1.0, 1.0]])
    low, high = np.quantile(points, [0.025, 0.975], axis=0)
    low, high = np.minimum(low, always.min(axis=0)), np.maximum(high, always.max(axis=0))
    margin = np.where(high > low, 0.05 * (high - low), 0.5)
    return np.stack([low - margin, high + margin])
