"""Figures of alloys: phases against temperature, rewards, diversity, and changes of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from crystaljax.alloys.metrics import VALUE, AlloyEvaluation
from crystaljax.alloys.rules import PRESENT, RULES
from crystaljax.alloys.thermodynamics import Equilibria
from crystaljax.alloys.tokens import COLUMNS, by_element
from crystaljax.evaluation.rates import Measure
from crystaljax.plots import COLOURS, chart
from crystaljax.text.divergence import TokenDivergence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SERIES = {"BCC": ("bcc", False), "B2": ("bcc", True), "liquid": ("liquid", None)}
_PHASE_COLOURS = {"BCC": COLOURS[2], "B2": COLOURS[1], "liquid": COLOURS[3]}
_OTHER_COLOURS = ("#66a182", "#8a94a6", "#9c7fb5", "#b08968", "#5f9ea0", "#c0c6d0")
_LEAST_COST = 1e-3  # Å: mismatches below are drawn in the outermost bar
_MAP = "magma_r"


def phase_fractions(equilibria: Equilibria, n: int = 0, title: str = "") -> Figure:
    """Phases of the n-th composition against temperature, over lattice parameters of BCC and B2.

    As figure 9 of arXiv 2511.12036: mole fractions, stacked; other phases by their names in the
    database. The largest composition set of each phase gives its lattice parameter. Temperatures
    that failed are left white.
    """
    one = equilibria[[n]]
    temperature, solved = one.temperatures, one.solved[0]
    figure, above = chart((6.4, 5.4))
    above.remove()
    grid = figure.add_gridspec(2, 1, height_ratios=[2, 1])
    above = figure.add_subplot(grid[0])
    below = figure.add_subplot(grid[1], sharex=above)
    others = sorted(set(one.phase[one.rows_of("other")].tolist()))
    series = {label: one.amount(*key)[0] for label, key in _SERIES.items()}  # type: ignore[arg-type]
    series |= {name: _amount(one, name) for name in others}
    series = {k: v for k, v in series.items() if np.nansum(v) > PRESENT}
    colours = [_PHASE_COLOURS.get(k) or _OTHER_COLOURS[i % 6] for i, k in enumerate(series)]
    heights = [np.where(solved, values, 0.0) for values in series.values()]
    if heights:
        above.stackplot(temperature, heights, labels=list(series), colors=colours, alpha=0.8, lw=0)
    for start in np.flatnonzero(~solved):
        width = np.gradient(temperature)[start] if len(temperature) > 1 else 1.0
        above.axvspan(temperature[start] - width, temperature[start] + width, color="white", lw=0)
    above.set(ylim=(0, 1), xlim=(temperature[0], temperature[-1]), ylabel="mole fraction")
    above.set_title(title, fontsize=10)
    above.tick_params(labelbottom=False)
    figure.legend(loc="outside right upper", frameon=False, reverse=True)
    for label, ordered in (("BCC", False), ("B2", True)):
        below.plot(
            temperature, _lattice(one, ordered), marker="o", ms=3.5, lw=1.4,
            color=_PHASE_COLOURS[label],
        )  # fmt: skip
    below.set(xlabel="temperature (K)", ylabel="lattice parameter (Å)")
    below.spines[["top", "right"]].set_visible(False)
    below.grid(axis="y", color="0.9", lw=0.8)
    return figure


def _amount(one: Equilibria, phase: str) -> np.ndarray:
    """float64 [T]: fraction of a phase of one composition, by its name."""
    rows = one.phase == phase
    return np.bincount(one.step[rows], one.fraction[rows], minlength=len(one.temperatures))


def _lattice(one: Equilibria, ordered: bool) -> np.ndarray:
    """float64 [T]: Å, of the largest composition set; nan where there is none."""
    found = np.full(len(one.temperatures), np.nan)
    rows = np.flatnonzero(one.rows_of("bcc", ordered) & (one.fraction > PRESENT))
    for row in rows[np.argsort(one.fraction[rows])]:
        found[one.step[row]] = one.lattice[row]
    return found


def reward_histogram(values: Mapping[str, np.ndarray], n_bins: int = 42) -> Figure:
    """Histograms of rewards (Eq. 1) by label, before and after, on a logarithmic scale of cost.

    Better is to the right. Bars are fractions of all samples. The costs of the rules are powers
    of ten, so that each height of the staircase is one rule that is broken.
    """
    figure, axes = chart((6.8, 3.9))
    most = max((float(-np.min(v)) for v in values.values() if len(v)), default=1.0)
    low, high = math.log10(_LEAST_COST), math.log10(max(2 * most, 1.0))
    edges = np.logspace(low, high, n_bins + 1)
    for i, (label, each) in enumerate(values.items()):
        cost = np.clip(-np.asarray(each, float), edges[0], edges[-1])
        heights = np.histogram(cost, edges)[0] / max(len(each), 1)
        colour = COLOURS[i % len(COLOURS)]
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(heights, edges, color=colour, lw=1.6, label=label)
    for name, (_, cost) in RULES.items():
        axes.axvline(cost, color="0.55", lw=0.8, ls=":", zorder=0)
        axes.annotate(
            f"not {name}", (cost, 1.0), xycoords=("data", "axes fraction"), rotation=90,
            fontsize=7, color="0.45", ha="right", va="top",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(edges[-1], edges[0])
    axes.set_xlabel("cost: minus the reward (below 1: the mismatch in Å, all rules kept)")
    axes.set_ylabel("fraction of samples")
    figure.legend(loc="outside upper right", ncols=len(values), frameon=False)
    return figure


def reward_against_diversity(
    runs: Mapping[str, Sequence[AlloyEvaluation]],
    reward: str = "mean reward",
    diversity: str = "unique pairs @100",
) -> Figure:
    """Each run's reward against its diversity, by label, with their means; metrics by name."""
    figure, axes = chart((6.4, 4.0))
    for i, (label, found) in enumerate(runs.items()):
        points = np.array([[run[diversity].value, run[reward].value] for run in found])
        colour = COLOURS[i % len(COLOURS)]
        axes.scatter(*points.T, s=14, color=colour, alpha=0.6, linewidths=0)
        means = [Measure.mean("", column, "", "") for column in points.T]
        (x, x_error), (y, y_error) = [(m.value, np.nan_to_num(m.standard_error)) for m in means]
        axes.errorbar(x, y, y_error, x_error, "o", color=colour, ms=6.5, lw=1.2, label=label)
    axes.set_xlabel(diversity)
    axes.set_ylabel(reward)
    figure.legend(loc="outside upper right", ncols=min(len(runs), 4), frameon=False)
    return figure


def reward_histogram_of(runs: Mapping[str, AlloyEvaluation]) -> Figure:
    """`reward_histogram` of evaluations."""
    return reward_histogram({label: run.columns[VALUE] for label, run in runs.items()})


def token_heat_map(divergence: TokenDivergence, texts: Sequence[int] = range(8)) -> Figure:
    """Some texts, a row each, every token shaded by the KL divergence where it stands (nats)."""
    chosen = [np.flatnonzero(divergence.sample == text) for text in texts]
    rows = [row for row in chosen if len(row)]
    longest = max(map(len, rows), default=1)
    figure, axes = chart((max(6.4, 0.36 * longest), 0.42 * len(rows) + 1.2))
    values = np.full((max(len(rows), 1), longest), np.nan)
    for i, row in enumerate(rows):
        values[i, : len(row)] = divergence.divergence[row]
    image = _heat(figure, axes, values, "KL (nat)")
    for i, row in enumerate(rows):
        for j, token in enumerate(divergence.token[row].tolist()):
            _write(axes, j, i, token.strip() or "·", values[i, j], image, size=6)
    axes.set_xticks([])
    axes.set_yticks([])
    return figure


def element_heat_map(divergence: TokenDivergence) -> Figure:
    """Mean KL divergence (nats) at each element's symbol and amount, in BCC and in B2."""
    found = by_element(divergence)
    figure, axes = chart((4.6, 0.34 * len(found.symbols) + 1.6))
    image = _heat(figure, axes, found.mean, "mean KL (nat)")
    for (i, j), value in np.ndenumerate(found.mean):
        if np.isfinite(value):
            _write(axes, j, i, f"{value:.2g}", value, image, size=7)
    axes.set_xticks(range(len(COLUMNS)), COLUMNS, fontsize=8)
    axes.set_yticks(range(len(found.symbols)), found.symbols)
    return figure


def _heat(figure: Figure, axes: Axes, values: np.ndarray, label: str) -> float:
    """A heat map from 0; returns its largest value."""
    largest = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    image = axes.imshow(values, cmap=_MAP, vmin=0, vmax=largest or 1.0, aspect="auto")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label=label, pad=0.01)
    return largest or 1.0


def _write(
    axes: Axes, x: int, y: int, text: str, value: float, largest: float, size: float
) -> None:
    """Text on a cell, white on dark ones."""
    colour = "white" if value > 0.55 * largest else "0.1"
    axes.annotate(text, (x, y), fontsize=size, color=colour, ha="center", va="center")
