"""Figures of runs and evaluations, for reports: drawn without a screen, as Figure objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystaljax.composition import SYMBOLS, formulas
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.evaluation.rates import Rate
from crystaljax.structure_pictures import draw_cell, formula_text, space_group_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METALLIC = 0.1
"""eV: predicted gaps up to this are those of metals."""

COLOURS = (
    *("#8c8c8c", "#d55e00", "#0072b2", "#e69f00", "#009e73", "#56b4e9", "#cc79a7", "#000000"),
    *("#595959", "#8b3d00", "#004a75", "#946600", "#00664a", "#2f7ea8", "#8a4a6e", "#b3a100"),
)
"""Colours of a chart's series, in order; the first, grey, is what the others are compared with.

Then come those of Okabe and Ito (jfly.uni-koeln.de/color, 2008), which people who are colour-blind
tell apart, and darker ones of them.
"""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


class Look(NamedTuple):
    """Colour, point and line of a series."""

    colour: str
    marker: str
    line: str


def look(i: int) -> Look:
    """The look of the i-th series of a chart: neither colour nor shape alone tells it apart."""
    line = "-" if i < len(MARKERS) else "--"
    return Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], line)


def save(figure: Figure, path: str | PathLike[str], dpi: int = 160) -> Path:
    """Write a figure, in the format of the extension, and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, facecolor="white", bbox_inches="tight")
    return path


def e_above_hull_histogram(
    energies: Mapping[str, np.ndarray],
    threshold: float = 0.1,
    limits: tuple[float, float] = (-0.2, 1.5),
    n_bins: int = 34,
) -> Figure:
    """Histograms of energy above hull (eV/atom), overlaid, with the metastability threshold.

    `energies` by label; nan are left out. Bars are fractions of all samples, so that sets of
    different sizes compare; the last bar holds all beyond `limits`, and the first all below.
    """
    figure, axes = chart((6.4, 3.9))
    edges = np.linspace(*limits, n_bins + 1)
    for i, (label, values) in enumerate(energies.items()):
        n = max(len(values), 1)
        known = np.asarray(values, np.float64)
        known = known[np.isfinite(known)]
        text = f"{label} ({100 * (known <= threshold).sum() / n:.1f} % ≤ {threshold:g})"
        heights = np.histogram(np.clip(known, *limits), edges)[0] / n
        colour = look(i).colour
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(heights, edges, color=colour, lw=1.6, label=text)
    axes.axvline(
        threshold, color="0.15", lw=1.1, ls="--", label=f"metastable: ≤ {threshold:g} eV/atom"
    )
    axes.set_xlim(*limits)
    axes.set_xlabel("energy above hull (eV/atom; the outer bars hold all beyond)")
    axes.set_ylabel("fraction of samples")
    axes.legend(frameon=False)
    return figure


def histogram(
    values: Mapping[str, np.ndarray],
    x_label: str,
    n_bins: int = 34,
    of: str = "samples",
    known_as: str = "judged",
) -> Figure:
    """Histograms of values by label, overlaid; nan are left out.

    Bars are fractions of all values, so that sets of different sizes compare. They reach from the
    1st to the 99th percentile of all; the outer bars hold those beyond.

    of, known_as: names of the values, and of those that are not nan.
    """
    figure, axes = chart((6.4, 3.9))
    known = {label: np.asarray(x, float)[np.isfinite(x)] for label, x in values.items()}
    every = np.concatenate([*known.values(), np.zeros(0)])
    low, high = np.quantile(every, [0.01, 0.99]) if len(every) else (0.0, 1.0)
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, n_bins + 1)
    for i, (label, some) in enumerate(known.items()):
        heights = np.histogram(np.clip(some, low, high), edges)[0] / max(len(values[label]), 1)
        colour = look(i).colour
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.35)
        text = f"{label} ({len(some)} of {len(values[label])} {known_as})"
        axes.stairs(heights, edges, color=colour, lw=1.6, label=text)
    axes.set_xlabel(x_label)
    axes.set_ylabel(f"fraction of {of}")
    axes.legend(frameon=False)
    return figure


def space_group_bars(fractions: Mapping[str, np.ndarray], n_bars: int = 20) -> Figure:
    """Fractions of crystals in the space groups that are commonest in any series.

    `fractions` [230] by label; group g stands at g - 1.
    """
    names = [f"{space_group_text(group)} {group}" for group in range(1, 231)]
    figure = _bars(fractions, names, n_bars, "fraction of crystals", {})
    figure.axes[0].tick_params(axis="x", rotation=60)
    for label in figure.axes[0].get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    figure.axes[0].set_xlabel("space group")
    return figure


def element_bars(
    fractions: Mapping[str, np.ndarray],
    n_bars: int = 36,
    of: str = "crystals",
    errors: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Fractions of crystals (or `of` what else) with the elements commonest in any series.

    `fractions` [119] by label, by atomic number; and their standard errors, nan where none is
    known.
    """
    words = f"fraction of {of} with the element"
    figure = _bars(fractions, ["", *SYMBOLS], n_bars, words, errors or {})
    figure.axes[0].set_xlabel("element")
    return figure


def training_curves(
    series: Mapping[str, np.ndarray], y_label: str, x_label: str = "step", log_y: bool = False
) -> Figure:
    """Curves over training: `series` [n, 2] of (step, value) by label, as `read_metrics` gives.

    Long noisy curves are drawn pale, with their running mean (over 1/50 of the points) on top.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = chart((6.4, 3.6))
    for i, (label, points) in enumerate(series.items()):
        curve = np.asarray(points, np.float64)
        curve = curve[np.isfinite(curve).all(axis=1)]
        colour, marker, line = look(i + 1)
        window = len(curve) // 50
        if window > 1:
            axes.plot(*curve.T, color=colour, lw=0.7, alpha=0.3)
            curve = _running_mean(curve, window)
        every = max(1, len(curve) // 12)
        how: dict[str, Any] = {"color": colour, "ls": line, "marker": marker, "markevery": every}
        axes.plot(*curve.T, lw=1.8, ms=4, label=label, **how)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if log_y:
        axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(series) > 1:
        axes.legend(frameon=False)
    return figure


def rates_at_k(first: Mapping[str, np.ndarray], most: int) -> Figure:
    """Shares of items that one of the first k attempts succeeds at, for k from 1 to `most`.

    `first` [N] by label: the number of the first such attempt, from 1, and 0 if there is none.
    Bands are Wilson's one-sigma intervals. Labels without items are left out.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = chart((6.4, 3.9))
    at = np.arange(1, most + 1)
    for i, (label, numbers) in enumerate(first.items()):
        if not len(numbers):
            continue
        found = [Rate.of(label, (numbers > 0) & (numbers <= k), "") for k in at.tolist()]
        values = 100 * np.array([rate.value for rate in found])
        low, high = 100 * np.array([rate.interval(z=1) for rate in found]).T
        colour, marker, line = look(i + 1)
        text = f"{label} ({found[-1].fraction})"
        axes.plot(at, values, color=colour, marker=marker, ls=line, ms=4, lw=1.6, label=text)
        axes.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("attempts k")
    axes.set_ylabel("match rate @k (%)")
    axes.legend(frameon=False)
    return figure


def rates_by_group(rates: Mapping[str, Sequence[Rate]], groups: Sequence[int]) -> Figure:
    """Bars of one rate in some space groups, with Wilson's one-sigma intervals, by label."""
    figure, axes = chart((max(4.0, 0.5 * len(groups) + 1.5), 3.6))
    width = 0.8 / len(rates)
    for i, (label, of_groups) in enumerate(rates.items()):
        at = np.arange(len(groups)) + (i - (len(rates) - 1) / 2) * width
        values = np.array([100 * rate.value for rate in of_groups])
        low, high = 100 * np.array([rate.interval(z=1) for rate in of_groups]).T
        errors = np.abs([values - low, high - values])
        colour = look(i).colour
        axes.bar(at, values, width, yerr=errors, color=colour, label=label, error_kw={"lw": 0.9})
    axes.set_xticks(np.arange(len(groups)), [str(group) for group in groups])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("space group")
    axes.set_ylabel(f"{next(iter(rates.values()))[0].name} (% of samples)")
    figure.legend(loc="outside upper right", ncols=len(rates), frameon=False)
    return figure


def merit_scatter(
    points: Mapping[str, tuple[np.ndarray, np.ndarray]], levels: Sequence[float] = (5, 10, 20, 40)
) -> Figure:
    """Band gaps (eV) against dielectric constants, by label, with lines of equal product.

    The axes hold those with a gap; the constants of metals would leave them no room.
    """
    figure, axes = chart((6.4, 4.4))
    for i, (label, (gap, dielectric)) in enumerate(points.items()):
        colour, marker, _ = look(i)
        how: dict[str, Any] = {"color": colour, "marker": marker, "linewidths": 0}
        axes.scatter(gap, dielectric, s=9, alpha=0.55, label=label, **how)
    pairs = np.concatenate([np.stack(pair, axis=1) for pair in points.values()])
    gapped = pairs[pairs[:, 0] > METALLIC]  # nan is not
    right = 1.05 * gapped[:, 0].max(initial=1.0)
    top = 1.1 * np.quantile(gapped[:, 1], 0.995) if len(gapped) else 10.0
    axes.set_yscale("log")
    axes.set_xlim(0, right)
    axes.set_ylim(1, top)
    for level in levels:
        gaps = np.linspace(level / top, right, 300)
        axes.plot(gaps, level / gaps, color="0.6", lw=0.8, ls="--", zorder=0)
        if level > right:
            at = (right, level / right)
            axes.annotate(f" {level:g} eV", at, fontsize=8, color="0.45", va="center")
    axes.set_xlabel("band gap (eV)")
    axes.set_ylabel("electronic dielectric constant")
    axes.legend(frameon=False)
    return figure


def trade_off(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], x_label: str, y_label: str
) -> Figure:
    """Paths (x, y) by label, from a small dot at the start to a large one at the end.

    Long paths are running means, over a quarter of their points.
    """
    figure, axes = chart((6.4, 4.0))
    for i, (label, path) in enumerate(curves.items()):
        points = np.stack(path, axis=1)
        if len(points) >= 12:
            points = _running_mean(points, len(points) // 4)
        x, y = points.T
        colour, marker, line = look(i)
        axes.plot(x, y, color=colour, ls=line, lw=1.2)
        axes.scatter(x[:1], y[:1], s=12, color=colour, marker=marker, zorder=3)
        axes.scatter(x[-1:], y[-1:], s=40, color=colour, marker=marker, zorder=3, label=label)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(frameon=False)
    return figure


def structure_grid(
    crystals: Crystals, captions: Sequence[str] | None = None, n_columns: int = 4
) -> Figure:
    """Pictures of crystals (conventional cells) in a grid, each with formula and space group.

    `captions` [B] are a second line for each, such as its energy above hull. Rows that are no
    crystal are left out; if none is left, the figure says so.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    n_samples = len(crystals)
    crystals, rows = _drawable(crystals)
    n_columns = max(1, min(n_columns, len(crystals)))
    n_rows = max(1, -(-len(crystals) // n_columns))
    layout = ConstrainedLayoutEngine(hspace=0.06, h_pad=0.06)
    figure = Figure(figsize=(2.5 * n_columns, 3.05 * n_rows), layout=layout)
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes in grid[len(crystals) :]:
        axes.set_axis_off()
    if not len(crystals):
        grid[0].text(0.5, 0.5, f"none of {n_samples} samples is a crystal", ha="center")
    for axes, (cell, title), row in zip(grid, _titled(crystals), rows, strict=False):
        draw_cell(axes, cell)
        axes.set_title(title if captions is None else f"{title}\n{captions[row]}", fontsize=9.5)
    return figure


def structure_pictures(crystals: Crystals, folder: str | PathLike[str]) -> list[Path | None]:
    """One PNG for each crystal, `folder`/0000.png and so on; None for rows that are no crystal."""
    from matplotlib.figure import Figure

    paths: list[Path | None] = [None] * len(crystals)
    crystals, rows = _drawable(crystals)
    for row, (cell, title) in zip(rows, _titled(crystals), strict=True):
        figure = Figure(figsize=(2.6, 2.9), layout="constrained")
        axes = figure.subplots()
        draw_cell(axes, cell)
        axes.set_title(title, fontsize=9.5)
        paths[row] = save(figure, Path(folder) / f"{row:04d}.png", dpi=110)
    return paths


def _drawable(crystals: Crystals) -> tuple[Crystals, np.ndarray]:
    """The rows that are crystals, and which they are."""
    from crystaljax.validity import is_crystal

    crystals = crystals.to_numpy()
    rows = np.flatnonzero(is_crystal(crystals))
    return crystals[rows], rows


def _titled(crystals: Crystals) -> list[tuple[AtomicCell, str]]:
    """The conventional cell of each crystal, and its formula with its space group."""
    from crystaljax.structures import to_cells

    return [
        (cell, f"{formula_text(formula)}  {space_group_text(int(group))}")
        for cell, formula, group in zip(
            to_cells(crystals), formulas(crystals), crystals.space_group, strict=True
        )
    ]


def chart(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """An empty chart without a box around it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _bars(
    fractions: Mapping[str, np.ndarray],
    names: Sequence[str],
    n_bars: int,
    y_label: str,
    errors: Mapping[str, np.ndarray],
) -> Figure:
    """Grouped bars of the entries that are largest in any series, in their own order."""
    largest = np.max([np.asarray(values) for values in fractions.values()], axis=0)
    shown = np.argsort(-largest, kind="stable")[:n_bars]
    shown = np.sort(shown[largest[shown] > 0])
    figure, axes = chart((max(4.0, 0.3 * len(shown) + 1.5), 3.6))
    width = 0.8 / len(fractions)
    for i, (label, values) in enumerate(fractions.items()):
        at = np.arange(len(shown)) + (i - (len(fractions) - 1) / 2) * width
        colour = look(i).colour
        error = np.nan_to_num(np.asarray(errors[label])[shown]) if label in errors else None
        height = np.asarray(values)[shown]
        axes.bar(at, height, width, color=colour, label=label, yerr=error, error_kw={"lw": 0.8})
    axes.set_xticks(np.arange(len(shown)), [names[i] for i in shown], fontsize=8.5)
    axes.set_xlim(-0.7, len(shown) - 0.3)
    axes.set_ylabel(y_label)
    figure.legend(loc="outside upper right", ncols=min(len(fractions), 5), frameon=False)
    return figure


def _running_mean(points: np.ndarray, window: int) -> np.ndarray:
    """Means of `window` neighbouring points [n, 2], of both columns."""
    total = np.cumsum(np.vstack([np.zeros((1, 2)), points]), axis=0)
    return (total[window:] - total[:-window]) / window
