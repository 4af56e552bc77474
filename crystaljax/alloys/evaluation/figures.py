"""Figures of alloys: phases against temperature, rewards, diversity, and changes of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from crystaljax.alloys.composition import TAGS, Tags
from crystaljax.alloys.engines.thermodynamics import Equilibria
from crystaljax.alloys.evaluation.metrics import AlloyEvaluation
from crystaljax.alloys.evaluation.table_one import summary
from crystaljax.alloys.evaluation.tokens import by_element, columns
from crystaljax.alloys.family import BCC_B2, AlloyFamily, AlloyRule
from crystaljax.alloys.rules import PRESENT, Part
from crystaljax.evaluation.rates import Measure
from crystaljax.plots import COLOURS, chart, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from crystaljax.text.divergence import TokenDivergence

_PART_COLOURS = (COLOURS[2], COLOURS[1])  # of matrix and precipitate
_LIQUID = COLOURS[3]
_OTHER_COLOURS = ("#66a182", "#8a94a6", "#9c7fb5", "#b08968", "#5f9ea0", "#c0c6d0")
_LEAST_COST = 1e-3  # Å: smaller mismatches are in the outermost bar
_MAP = "magma_r"


def phase_fractions(
    equilibria: Equilibria, n: int = 0, title: str = "", family: AlloyFamily = BCC_B2
) -> Figure:
    """Phase fractions of composition n, and lattice parameters of its two phases, by temperature.

    As in figure 9 of arXiv 2511.12036: stacked mole fractions; other phases have their names in the
    database. Lattice parameters are those of the largest composition set of each phase. Failed
    temperatures are white.
    """
    from matplotlib.figure import Figure

    one = equilibria[[n]]
    temperature, solved = one.temperatures, one.solved[0]
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    parts = dict(zip(family.tags[:2], family.parts, strict=True))
    part_colours = dict(zip(parts, _PART_COLOURS, strict=True))
    others = ~np.logical_or.reduce([part.rows(one) for part in parts.values()])
    others &= ~one.rows_of("liquid")
    series = {label: part.amount(one)[0] for label, part in parts.items()}
    series["liquid"] = one.amount("liquid")[0]
    series |= {name: _amount(one, name) for name in sorted(set(one.phase[others].tolist()))}
    series = {k: v for k, v in series.items() if np.nansum(v) > PRESENT}
    known = part_colours | {"liquid": _LIQUID}
    colours = [known.get(k) or _OTHER_COLOURS[i % 6] for i, k in enumerate(series)]
    heights = [np.where(solved, values, 0.0) for values in series.values()]
    if heights:
        above.stackplot(temperature, heights, labels=list(series), colors=colours, alpha=0.8, lw=0)
        figure.legend(loc="outside center right", frameon=False, reverse=True)  # type: ignore[call-overload]
    for start in np.flatnonzero(~solved):
        width = np.gradient(temperature)[start] if len(temperature) > 1 else 1.0
        above.axvspan(temperature[start] - width, temperature[start] + width, color="white", lw=0)
    above.set(ylim=(0, 1), xlim=(temperature[0], temperature[-1]), ylabel="mole fraction")
    figure.suptitle(title, fontsize=9)
    for label, part in parts.items():
        below.plot(
            temperature, _lattice(one, part), marker="o", ms=3.5, lw=1.4, color=part_colours[label]
        )
    below.set(xlabel="temperature (K)", ylabel="lattice parameter (Å)")
    below.spines[["top", "right"]].set_visible(False)
    below.grid(axis="y", color="0.9", lw=0.8)
    return figure


def _amount(one: Equilibria, phase: str) -> np.ndarray:
    """float64 [T]: fraction of a phase of one composition, by its name."""
    rows = one.phase == phase
    return np.bincount(one.step[rows], one.fraction[rows], minlength=len(one.temperatures))


def _lattice(one: Equilibria, part: Part) -> np.ndarray:
    """float64 [T]: Å, of the largest composition set; nan where there is none."""
    found = np.full(len(one.temperatures), np.nan)
    rows = np.flatnonzero(part.rows(one) & (one.fraction > PRESENT))
    for row in rows[np.argsort(one.fraction[rows])]:
        found[one.step[row]] = one.lattice[row]
    return found


def reward_histogram(
    values: Mapping[str, np.ndarray],
    n_bins: int = 42,
    rules: Mapping[str, AlloyRule] = BCC_B2.rules,
) -> Figure:
    """Histograms of rewards (Eq. 1) by label, on a logarithmic scale of cost.

    Better rewards are to the right; the last bar includes all smaller costs, as its tick says. Bars
    are fractions of all samples. As the costs of the rules are powers of ten, each step of the
    staircase is one broken rule.
    """
    figure, axes = chart((6.8, 3.9))
    most = max((float(-np.min(v)) for v in values.values() if len(v)), default=1.0)
    low, high = math.log10(_LEAST_COST), math.log10(max(2 * most, 1.0))
    edges = np.logspace(low, high, n_bins + 1)
    for i, (label, each) in enumerate(values.items()):
        cost = np.clip(-np.asarray(each, float), edges[0], edges[-1])
        heights = np.histogram(cost, edges)[0] / max(len(each), 1)
        colour = look(i).colour
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(heights, edges, color=colour, lw=1.6, label=label)
    for name, rule in rules.items():
        axes.axvline(rule.cost, color="0.55", lw=0.8, ls=":", zorder=0)
        words = fill(f"not {name}".replace("_", " "), 14)
        axes.annotate(
            words, (rule.cost, 1.01), xycoords=("data", "axes fraction"), fontsize=7, color="0.35",
            ha="center", va="bottom",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(edges[-1], edges[0])
    axes.xaxis.set_major_formatter(_cost_text)
    axes.set_xlabel("cost: minus the reward (below 1: the mismatch in Å, all rules kept)")
    axes.set_ylabel("fraction of samples")
    figure.legend(loc="outside upper right", ncols=len(values), frameon=False)
    return figure


def _cost_text(cost: float, _: object = None) -> str:
    """A cost as a power of ten; the smallest one with "≤", as its bar includes smaller costs."""
    sign = r"\leq" if math.isclose(cost, _LEAST_COST) else ""
    return f"${sign} 10^{{{round(math.log10(cost))}}}$"


def reward_against_diversity(
    runs: Mapping[str, Sequence[AlloyEvaluation]],
    reward: str = "mean reward",
    diversity: str = "unique pairs @100",
) -> Figure:
    """Reward against diversity of each run, by label, with means; `reward`, `diversity`: metrics.

    Rates are in per cent.
    """
    figure, axes = chart((6.4, 4.0))
    names, words = (diversity, reward), {}
    for i, (label, found) in enumerate(runs.items()):
        # As in the table, which has rates in per cent.
        measures = [[summary([run[name]]) for name in names] for run in found]
        words = dict(zip(names, (each.name for each in measures[0]), strict=True))
        points = np.array([[each.value for each in of_run] for of_run in measures])
        colour, marker, _ = look(i)
        axes.scatter(
            points[:, 0], points[:, 1], 14, marker=marker, color=colour, alpha=0.6, linewidths=0
        )
        means = [Measure.mean("", column, "", "") for column in points.T]
        (x, x_error), (y, y_error) = [(m.value, np.nan_to_num(m.standard_error)) for m in means]
        axes.errorbar(x, y, y_error, x_error, marker, color=colour, ms=6.5, lw=1.2, label=label)
    axes.set_xlabel(words.get(diversity, diversity))
    axes.set_ylabel(words.get(reward, reward))
    figure.legend(loc="outside upper right", ncols=min(len(runs), 4), frameon=False)
    return figure


def token_heat_map(divergence: TokenDivergence, texts: Sequence[int] = range(8)) -> Figure:
    """Some texts, one per row, with every token shaded by its KL divergence (nats)."""
    found = (np.flatnonzero(divergence.sample == text) for text in texts)
    rows = [row for row in found if len(row)]
    words = [[token.strip() or "·" for token in divergence.token[row]] for row in rows]
    ends = [np.cumsum([len(word) + 1.0 for word in row]) for row in words]
    longest = max((row[-1] for row in ends), default=1.0)
    shown = divergence.divergence[np.concatenate([np.zeros(0, int), *rows])]
    figure, axes = chart((0.09 * longest + 1.4, 0.36 * len(rows) + 0.5))
    colours = _shades(figure, axes, shown, "KL (nat)")
    for y, (row, word, end) in enumerate(zip(rows, words, ends, strict=True)):
        nats, width = divergence.divergence[row], np.diff(end, prepend=0.0)
        axes.barh(y, width, 0.92, left=end - width, color=colours.to_rgba(nats), ec="white", lw=0.4)
        for x, text, value in zip(end - width / 2, word, nats, strict=True):
            _write(axes, x, y, text, value, colours, size=6)
    axes.set(xlim=(0, longest), ylim=(len(rows) - 0.5, -0.5), xticks=[], yticks=[])
    return figure


def element_heat_map(divergence: TokenDivergence, tags: Tags = TAGS) -> Figure:
    """Mean KL divergence (nats) at each element's symbol and amount, in each phase."""
    found = by_element(divergence, tags)
    figure, axes = chart((4.6, 0.34 * len(found.symbols) + 1.2))
    colours = _shades(figure, axes, found.mean, "mean KL (nat)")
    axes.imshow(colours.to_rgba(np.ma.masked_invalid(found.mean)), aspect="auto")
    for (y, x), value in np.ndenumerate(found.mean):
        if np.isfinite(value):
            _write(axes, x, y, f"{value:.2g}", value, colours, size=7)
    axes.set_xticks(range(found.mean.shape[1]), columns(tags), fontsize=8)
    axes.set_yticks(range(len(found.symbols)), found.symbols)
    return figure


def _shades(figure: Figure, axes: Axes, values: np.ndarray, label: str) -> ScalarMappable:
    """Colours of values from 0 to the largest, with a colour bar; hides frame and ticks."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    finite = values[np.isfinite(values)]
    colours = ScalarMappable(Normalize(0, float(finite.max(initial=0)) or 1.0), _MAP)
    figure.colorbar(colours, ax=axes, label=label, pad=0.01)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return colours


def _write(
    axes: Axes, x: float, y: float, text: str, value: float, colours: ScalarMappable, size: float
) -> None:
    """Write text on a cell, in white on dark cells."""
    ink = "white" if value > 0.55 * (colours.get_clim()[1] or 0.0) else "0.1"
    axes.annotate(text, (x, y), fontsize=size, color=ink, ha="center", va="center")
