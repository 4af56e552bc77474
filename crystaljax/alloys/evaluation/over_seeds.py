"""Comparisons over seeds: table 2 and figures 2 to 4 of arXiv 2511.12036, and A.6 over models."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from crystaljax.alloys.composition import TAGS, Tags
from crystaljax.alloys.evaluation.diversity import Phase
from crystaljax.alloys.evaluation.metrics import VALUE, AlloyEvaluation, duels
from crystaljax.alloys.evaluation.table_one import plus_minus, summary
from crystaljax.alloys.evaluation.tokens import NUMERALS, ElementTable
from crystaljax.evaluation.rates import Measure, Rate
from crystaljax.evaluation.report import Table
from crystaljax.plots import COLOURS, chart, element_bars, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Seeds = Sequence[AlloyEvaluation]
"""Evaluations of one model, one per seed."""

_OUTCOMES = {"win": COLOURS[4], "draw": COLOURS[0], "loss": COLOURS[1]}
_N_ELEMENTS = 20  # largest number shown


def element_set_shares(
    found: Seeds, n: int = 5, phase: Phase = "bcc", tags: Tags = TAGS
) -> list[Measure]:
    """The n sets of elements of a phase with the largest mean shares of a model's candidates.

    In per cent, with the standard error over seeds, or over candidates of a single seed.
    """
    shares: list[dict[str, Rate]] = []
    for evaluation in found:
        phases = [getattr(one, phase) for one in evaluation.candidates if one is not None]
        sets = Counter("-".join(sorted(amounts)) for amounts in phases)
        words = f"the {_name(phase, tags)} has these elements and no others"
        total = len(phases)
        shares.append({k: Rate(k, count, total, words, "candidates") for k, count in sets.items()})
    names = dict.fromkeys(name for each in shares for name in each)
    measures = []
    for name in names:
        totals = [next(iter(each.values())).total if each else 0 for each in shares]
        rates = [
            each.get(name, Rate(name, 0, total, "", "candidates"))
            for each, total in zip(shares, totals, strict=True)
        ]
        measures.append(summary(rates))
    return sorted(measures, key=lambda one: (-one.value, one.name))[:n]


def _name(phase: Phase, tags: Tags) -> str:
    return tags.matrix if phase == "bcc" else tags.precipitate


def element_set_table(
    found: Mapping[str, Seeds], n: int = 5, phase: Phase = "bcc", tags: Tags = TAGS
) -> Table:
    """Table 2: the most frequent sets of elements of each model's BCC, with errors over seeds.

    `tags`: of the candidates' family.
    """
    rows = [["", *(f"{i}." for i in range(1, n + 1))]]
    for label, seeds in found.items():
        cells = [
            f"{one.name.removesuffix(' (%)')} {plus_minus(one)} %"
            for one in element_set_shares(seeds, n, phase, tags)
        ]
        rows.append([label, *cells, *[""] * (n - len(cells))])
    return Table(f"Commonest sets of elements in the {_name(phase, tags)}, over seeds", rows)


def outcomes(
    found: Mapping[str, Seeds], baseline: str, tolerance: float = 1e-3
) -> dict[str, dict[str, Measure]]:
    """Win, draw and loss (%) of each model against the same seed's baseline, over seeds."""
    measured = {}
    for label, seeds in found.items():
        if label == baseline:
            continue
        each = [
            duels(after.columns[VALUE], before.columns[VALUE], tolerance)
            for after, before in zip(seeds, found[baseline], strict=True)
        ]
        measured[label] = {
            name: summary(same)
            for name, same in zip(_OUTCOMES, zip(*each, strict=True), strict=True)
        }
    return measured


def outcome_bars(found: Mapping[str, Seeds], baseline: str) -> Figure:
    """Figure 2: win, draw and loss against the baseline, with errors over seeds."""
    measured = outcomes(found, baseline)
    figure, axes = chart((max(4.0, 1.1 * len(measured) + 1.6), 3.6))
    bottom = np.zeros(len(measured))
    at = np.arange(len(measured))
    for name, colour in _OUTCOMES.items():
        shown = [of_model[name] for of_model in measured.values()]
        values = np.nan_to_num([one.value for one in shown])
        errors = np.nan_to_num([one.standard_error for one in shown])
        axes.bar(
            at, values, 0.6, bottom, color=colour, label=name, yerr=errors, error_kw={"lw": 0.9}
        )
        for x, value, low in zip(at, values, bottom, strict=True):
            if value > 4:
                axes.annotate(
                    f"{value:.1f}", (x, low + value / 2), ha="center", va="center", fontsize=8
                )
        bottom += values
    axes.set_xticks(at, list(measured))
    axes.set_ylabel(f"% of pairs of a sample with one of {baseline}")
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure


def rule_changes(
    found: Mapping[str, Seeds], baseline: str
) -> dict[str, dict[str, tuple[Measure, Measure]]]:
    """Change, by model and rule, of the share of samples that keep the rule, from the baseline.

    The baseline is that of the same seed. In per cent of its share, as in figure 3 of the paper,
    and in percentage points. Errors are over seeds, or of the two shares of a single seed. nan if
    the baseline never keeps the rule.
    """
    changes: dict[str, dict[str, tuple[Measure, Measure]]] = {}
    for label, seeds in found.items():
        if label == baseline:
            continue
        changes[label] = {
            name: _change(
                [
                    (after[name], before[name])
                    for after, before in zip(seeds, found[baseline], strict=True)
                ],
                name,
            )
            for name in found[baseline][0].rules
        }
    return changes


def _change(pairs: Sequence[tuple[object, object]], name: str) -> tuple[Measure, Measure]:
    """Relative change and change in points, of (after, before) for each seed."""
    rates = [(a, b) for a, b in pairs if isinstance(a, Rate) and isinstance(b, Rate)]
    relative = np.array([100 * (a.value / b.value - 1) if b.count else math.nan for a, b in rates])
    points = np.array([100 * (a.value - b.value) for a, b in rates])
    found = [
        Measure.mean(
            name, relative, "%", "change in per cent of the baseline's", denominator="runs"
        ),
        Measure.mean(name, points, "%", "change in percentage points", denominator="runs"),
    ]
    if len(rates) == 1:
        ((a, b),) = rates
        points_error = 100 * math.hypot(a.standard_error, b.standard_error)
        relative_error = math.nan
        if b.count:
            ratio = a.value / b.value
            relative_error = 100 / b.value * math.hypot(a.standard_error, ratio * b.standard_error)
        found = [
            Measure(
                one.name, one.value, error, one.unit, one.total, one.description, one.denominator
            )
            for one, error in zip(found, (relative_error, points_error), strict=True)
        ]
    return found[0], found[1]


def rule_change_bars(found: Mapping[str, Seeds], baseline: str) -> Figure:
    """Figure 3: relative change of the satisfaction of each rule, with errors over seeds."""
    changes = rule_changes(found, baseline)
    names = [name for name in found[baseline][0].rules if name != "all rules"]
    figure, axes = chart((7.4, 3.6))
    width = 0.8 / max(len(changes), 1)
    for i, (label, each) in enumerate(changes.items()):
        at = np.arange(len(names)) + (i - (len(changes) - 1) / 2) * width
        shown = [each[name][0] for name in names]
        values = np.nan_to_num([one.value for one in shown])
        errors = np.nan_to_num([one.standard_error for one in shown])
        colour = look(i + 1).colour
        axes.bar(at, values, width, yerr=errors, color=colour, label=label, error_kw={"lw": 0.8})
    words = [fill(name.replace("_", " "), 16) for name in names]
    axes.set_xticks(np.arange(len(names)), words, fontsize=8.5)
    axes.axhline(0, color="0.3", lw=0.8)
    axes.set_ylabel(f"change from {baseline} (% of its share)")
    figure.legend(loc="outside upper right", ncols=4, frameon=False)
    return figure


def element_share_bars(found: Mapping[str, Seeds], training: np.ndarray) -> Figure:
    """Figure 4: share of candidates with each element, and that of the training data, over seeds.

    `training`: float64 [119], by atomic number.
    """
    fractions, errors = {"training data": training}, {}
    for label, seeds in found.items():
        each = np.array([one.elements for one in seeds])
        fractions[label] = each.mean(axis=0)
        if len(each) > 1:
            errors[label] = each.std(axis=0, ddof=1) / math.sqrt(len(each))
    return element_bars(fractions, _N_ELEMENTS, "candidates", errors)


def element_divergence_table(tables: Mapping[str, ElementTable]) -> Table:
    """Table 3: KL(model ‖ SFT) at each element in SFT's samples, with its number of occurrences."""
    symbols, counts = _places(tables)
    rows = [["", "count", *(f"KL ({label})" for label in tables)]]
    for symbol in symbols:
        values = [each.values().get(symbol) for each in tables.values()]
        cells = ["–" if value is None else f"{value:.3g}" for value in values]
        rows.append([symbol, f"{counts[symbol]}", *cells])
    return Table("KL(model ‖ SFT) at tokens of SFT's samples (nats, a mean over tokens)", rows)


def _places(tables: Mapping[str, ElementTable]) -> tuple[list[str], dict[str, int]]:
    """Elements, in the order of the first model, then others, with their numbers of occurrences."""
    counts: dict[str, int] = {}
    for symbols, places, _ in tables.values():
        for symbol, n in zip(symbols, places.tolist(), strict=True):
            counts.setdefault(symbol, n)
    return sorted(counts, key=lambda symbol: symbol == NUMERALS), counts


def divergence_change_bars(tables: Mapping[str, ElementTable], one: str, other: str) -> Figure:
    """Figure 11, left: difference of the KL of two models, at each element.

    Elements are sorted by frequency in the texts of `one`, and shown with their occurrences.
    """
    first, second = tables[one].values(), tables[other].values()
    shown = [symbol for symbol in tables[one].symbols if symbol in second]
    counts = dict(zip(tables[one].symbols, tables[one].places.tolist(), strict=True))
    figure, axes = chart((max(4.0, 0.45 * len(shown) + 1.5), 3.4))
    change = [first[symbol] - second[symbol] for symbol in shown]
    axes.bar(range(len(shown)), change, 0.7, color=[COLOURS[1 if x > 0 else 2] for x in change])
    axes.axhline(0, color="0.3", lw=0.8)
    axes.set_xticks(range(len(shown)), [f"{s}\n({counts[s]})" for s in shown], fontsize=8)
    axes.set_ylabel(f"KL({one}) − KL({other}) (nat)")
    return figure


def divergence_map(tables: Mapping[str, ElementTable]) -> Figure:
    """Figure 11, right: mean KL (nats) at a token of each element, of each model."""
    symbols, _ = _places(tables)
    values = np.array([[each.values().get(s, np.nan) for each in tables.values()] for s in symbols])
    figure, axes = chart((1.1 * len(tables) + 2.0, 0.32 * len(symbols) + 1.2))
    image = axes.imshow(np.ma.masked_invalid(values), aspect="auto", cmap="magma_r", vmin=0)
    figure.colorbar(image, ax=axes, label="mean KL of a token (nat)")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = "white" if value > 0.55 * top else "0.1"
            axes.annotate(f"{value:.2g}", (x, y), ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(len(tables)), list(tables), fontsize=8)
    axes.set_yticks(range(len(symbols)), symbols, fontsize=8)
    return figure
