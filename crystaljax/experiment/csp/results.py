"""Results of a study of structure prediction, as far as there are any: tables and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystaljax import plots
from crystaljax.evaluation.rates import Measure, pooled, standard_error
from crystaljax.evaluation.report import Table
from crystaljax.experiment.csp.setup import PRETRAINED, TRAINED, ExamConfig, RowName
from crystaljax.experiment.csp.study import BY_TARGET, Arm
from crystaljax.experiment.run_results import read_tables
from crystaljax.reasons import in_words
from crystaljax.tracking import read_metrics, wandb_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DISJOINT = " (formula-disjoint)"
"""End of the names of metrics of formulas that are not in the training set."""


PER_CENT = "%"
"""The unit that stands beside the numbers, not in the header."""


@dataclass(frozen=True)
class Line:
    """A row of the tables, over the seeds whose runs are finished."""

    row: RowName
    label: str
    arms: Sequence[Arm]
    output: Path

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """Results by seed."""
        found = (arm.result(self.output) for arm in self.arms)
        return [x for x in found if x is not None]

    @property
    def missing(self) -> list[str]:
        """Runs that are not finished, in words."""
        done = [arm for arm in self.arms if arm.result(self.output) is not None]
        why = " (it takes a model, --texts.pretrained)" if self.row in PRETRAINED else ""
        return [f"{arm.name} is not finished{why}." for arm in self.arms if arm not in done]

    def number(self, name: str) -> Measure | None:
        """A metric: the mean over the seeds; None if no run has it.

        Its error is the standard error over the seeds, or the mean error of one seed where that is
        larger (Wilson's, of a rate): seeds ask for the same test crystals, so the attempts of
        several do not tell more about other crystals.
        """
        found = [m for x in self.results for m in x["metrics"] if m["name"] == name]
        found = [m for m in found if m["value"] is not None]
        if not found:
            return None
        values = np.array([m["value"] for m in found], float)
        error = _larger(standard_error(values), float(np.mean([_own_error(m) for m in found])))
        unit = found[0].get("unit", "")
        total, about = found[0]["total"], found[0]["description"]
        return Measure(name, float(values.mean()), error, unit, total, about)

    def text(self, name: str) -> str:
        """A metric without its unit, unless that is per cent; a dash if there is none."""
        found = self.number(name)
        if found is None:
            return "–"
        if found.unit == PER_CENT:
            return found.text
        if found.unit or not self._is_rate(name):
            return replace(found, unit="").text
        error = f" ± {100 * found.standard_error:.1f}" if np.isfinite(found.standard_error) else ""
        return f"{100 * found.value:.1f}{error} %"

    def _is_rate(self, name: str) -> bool:
        return any("count" in m for x in self.results for m in x["metrics"] if m["name"] == name)


def _own_error(metric: Mapping[str, Any]) -> float:
    """Standard error of a metric of one run; nan if it has none."""
    rate = pooled([metric], metric["name"])
    error = metric["standard_error"] if rate is None else rate.standard_error
    return np.nan if error is None else float(error)


def _larger(one: float, other: float) -> float:
    """The larger of two errors, or the one that is known; nan if none is."""
    return float(np.fmax(one, other))


def lines_of(
    rows: Sequence[RowName], labels: Mapping[str, str], arms: Sequence[Arm], output: Path
) -> list[Line]:
    """A line of each row."""
    return [
        Line(row, labels.get(row, row), [arm for arm in arms if arm.row == row], output)
        for row in rows
    ]


def all_tables(lines: Sequence[Line], exam: ExamConfig) -> list[Table]:
    """Matches, stability as in table 1 of the paper, validity and variety as in its table 2.

    Also what became of the other attempts, and what RL changed.
    """
    matches = _rates("match rate", exam.k)
    matches += ["matching attempts", "RMSE @1", "cRMSE @1"]
    stability = ["metastable", "metastable as asked", "median energy above hull"]
    stability += ["median relative energy", "no higher than the truth"]
    if exam.relax_steps:  # without relaxation a few clashes of atoms are all that a mean tells
        stability += ["mean energy above hull", "relative energy"]
        stability += _rates("relaxed match rate", min(exam.judged, exam.k))
        stability += ["match to relaxed", "RMSD to relaxed"]
    validity = ["crystal", "as asked", "valid structure", "valid composition", "valid"]
    kinds = ("structure", "composition")
    variety = [f"{kind} {what}" for kind in kinds for what in ("diversity", "novelty")]
    captions = {
        "Structure prediction: share of test crystals of which an attempt matches": matches,
        "Stability of the attempts that have energies": stability,
        "Validity of all attempts, as they stand": validity,
        "Diversity and novelty of all attempts, as they stand": variety,
    }
    tables = []
    for caption, names in captions.items():
        there = [x for x in names if any(line.number(x) is not None for line in lines)]
        rows = [[line.label, *map(line.text, there)] for line in lines]
        if there:
            tables.append(Table(caption, [["", *(_header(x, lines) for x in there)], *rows]))
    tables += [losses(lines)] if lines else []
    tables += gains(lines)
    memories = (x["memory"] for line in lines for x in line.results if x.get("memory"))
    return [*tables, *read_tables(memories)]


def _rates(name: str, k: int) -> list[str]:
    """Names of the rates @1 and @k, of all test crystals and of the formula-disjoint ones."""
    return [f"{name} @{x}{end}" for end in ("", DISJOINT) for x in sorted({1, k})]


def losses(lines: Sequence[Line]) -> Table:
    """Attempts that are no crystal, over the seeds, and the most frequent reasons."""
    rows = []
    for line in lines:
        names = ("n", "lost", "not_asked", "dead_ends")
        n, lost, *others = (sum(result[name] for result in line.results) for name in names)
        reasons: Counter[str] = Counter()
        for result in line.results:
            reasons.update(result["reasons"])
        rows.append([line.label, f"{lost} of {n}", *map(str, others), in_words(reasons)])
    header = ["", "attempts lost", "formulas not asked", "dead ends", "most frequent reasons"]
    caption = (
        "Attempts lost, by reason: they are no crystal, and count as attempts that do not match."
        " All attempts at formulas that the model cannot be asked are among them; candidates that"
        " came to a dead end were replaced"
    )
    return Table(caption, [header, *rows])


def _header(name: str, lines: Sequence[Line]) -> str:
    """Name of a metric with its unit, if it has one; see `Line.text`."""
    units = (found.unit for line in lines if (found := line.number(name)) is not None)
    unit = next(filter(None, units), "")
    return f"{name} ({unit})" if unit not in ("", PER_CENT) else name


def gains(lines: Sequence[Line]) -> list[Table]:
    """Trained rows less the rows that they start from, on the same test crystals.

    The errors are smaller than those of the rates, which have the differences between crystals in
    them. They are standard errors over the test crystals (of the mean change of each over the
    seeds), or over the seeds where these are larger.
    """
    by_row = {line.row: line for line in lines}
    changes: dict[str, dict[str, str]] = {}
    for line in lines:
        if line.row in TRAINED and (start := by_row.get(TRAINED[line.row])) is not None:
            changes[line.label] = _changes(line, start)
    names = list(dict.fromkeys(name for found in changes.values() for name in found))
    if not names:
        return []
    rows = [[label, *(found.get(x, "–") for x in names)] for label, found in changes.items()]
    caption = "Changes by RL in percentage points, on the same test crystals"
    return [Table(caption, [["", *names], *rows])]


def _changes(line: Line, start: Line) -> dict[str, str]:
    """Mean changes by name, with their standard errors."""
    of_seed: dict[str, list[np.ndarray]] = {}
    for arm in line.arms:
        before = next((x.result(line.output) for x in start.arms if x.seed == arm.seed), None)
        after = arm.result(line.output)
        was, became = ((x or {}).get(BY_TARGET, {}) for x in (before, after))
        for name in became:
            if name in was:
                change = np.array(became[name], float) - np.array(was[name], float)
                of_seed.setdefault(name, []).append(change)
    found = {}
    for name, changes in of_seed.items():
        by_seed = np.stack(changes)
        over_crystals, over_seeds = (standard_error(by_seed.mean(axis)) for axis in (0, 1))
        found[name] = f"{by_seed.mean():+.1f} ± {_larger(over_crystals, over_seeds):.1f}"
    return found


def figures_of(lines: Sequence[Line], k: int) -> dict[str, tuple[Figure, str]]:
    """Match rates of all lines, and the rewards of those that were trained."""
    figures = {"matches": (_matches(lines, k), "Match rates; bars of one standard error")}
    curves = {}
    for line in lines:
        if line.row in TRAINED:
            metrics = read_metrics(line.arms[0].folder(line.output))
            if "reward/mean" in metrics:
                curves[line.label] = metrics["reward/mean"]
    if curves:
        figure = plots.training_curves(curves, "mean reward (eV/atom)")
        figures["rewards"] = figure, "Reward during training, first seed"
    return figures


def _matches(lines: Sequence[Line], k: int) -> Figure:
    figure, axes = plots.chart((max(4.5, 0.9 * len(lines) + 2), 3.8))
    names = _rates("match rate", k)
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        found = [line.number(name) for line in lines]
        values = np.array([np.nan if x is None else 100 * x.value for x in found])
        errors = np.array([np.nan if x is None else 100 * x.standard_error for x in found])
        at = np.arange(len(lines)) + (i - (len(names) - 1) / 2) * width
        colour = plots.COLOURS[i % len(plots.COLOURS)]
        axes.bar(at, values, width, yerr=np.nan_to_num(errors), color=colour, label=name)
    axes.set_xticks(np.arange(len(lines)), [line.label for line in lines])
    axes.tick_params("x", rotation=20)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    axes.set_ylabel("test crystals found (%)")
    axes.legend(frameon=False, fontsize="small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def headline(lines: Sequence[Line], k: int) -> dict[str, float]:
    """Numbers of the report by which studies compare."""
    found = {}
    for line in lines:
        for name in (f"match rate @{k}", "match rate @1", "metastable as asked"):
            if (number := line.number(name)) is not None:
                found[wandb_name(line.row, name)] = number.value
    return found
