"""The paper's table 1: every model's metrics side by side, as text, CSV and a W&B table."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from crystaljax.alloys.evaluation.metrics import VALUE, AlloyEvaluation, duels
from crystaljax.data.files import replacing
from crystaljax.evaluation.rates import Measure, Metric, Rate
from crystaljax.evaluation.report import Table

Runs = Mapping[str, AlloyEvaluation | Sequence[AlloyEvaluation]]
"""Evaluations by label of the model: one, or several of different seeds."""


@dataclass(frozen=True)
class TableOne:
    """Metrics of several models; rates are in per cent."""

    caption: str
    models: Mapping[str, Mapping[str, Measure]]
    """Numbers with standard errors, by label and by name."""

    @property
    def columns(self) -> dict[str, list[str | float]]:
        """Columns with one row per model: label, each metric and its standard error, if any.

        For `Tracker.log_table` and CSV; nan if a model lacks a metric.
        """
        found: dict[str, list[str | float]] = {"model": list(self.models)}
        for name in self._names():
            of_all = [metrics.get(name) for metrics in self.models.values()]
            found[name] = [math.nan if m is None else m.value for m in of_all]
            errors = [math.nan if m is None else m.standard_error for m in of_all]
            if any(map(math.isfinite, errors)):
                found[f"{name} ±"] = [*errors]
        return found

    @property
    def table(self) -> Table:
        """Table for a report: one row per metric, one column per model."""
        rows = [["", *self.models]]
        for name in self._names():
            of_all = [metrics.get(name) for metrics in self.models.values()]
            rows.append([name, *("–" if m is None else plus_minus(m) for m in of_all)])
        return Table(self.caption, rows)

    def write(self, folder: str | PathLike[str], name: str = "table_1") -> Path:
        """Write `folder`/`name`.md and .csv; returns the former's path."""
        path = Path(folder) / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(self.table.to_markdown() + "\n", encoding="utf-8")
        with (
            replacing(path.with_suffix(".csv")) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            columns = self.columns
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        return path

    def _names(self) -> list[str]:
        """Names of all metrics, in the order of their first occurrence."""
        return list(dict.fromkeys(name for of_one in self.models.values() for name in of_one))


def table_one(runs: Runs, baseline: str | None = None, tolerance: float = 1e-3) -> TableOne:
    """The metrics of every model, and win, draw and loss against all samples of the baseline.

    For a model with several evaluations: their mean with its standard error. With a single one: the
    standard error over its samples. ValueError if `baseline` is no label, or evaluations of one
    label have different metrics.
    """
    several = {
        label: (found,) if isinstance(found, AlloyEvaluation) else tuple(found)
        for label, found in runs.items()
    }
    if baseline is not None and baseline not in several:
        raise ValueError(f"no run {baseline!r} to compare with: there are {', '.join(several)}")
    models = {}
    for label, found in several.items():
        _check_same(label, found)
        metrics: list[tuple[Metric, ...]] = [*zip(*(run.metrics for run in found), strict=True)]
        judged = all(VALUE in run.columns for run in found)  # compositions have no rewards
        if baseline is not None and label != baseline and judged:
            values = np.concatenate([run.columns[VALUE] for run in several[baseline]])
            metrics += zip(
                *(duels(r.columns[VALUE], values, tolerance) for r in found), strict=True
            )
        summed = [summary(same) for same in metrics]
        models[label] = {each.name: each for each in summed}
    seeds = ", ".join(f"{label} {len(found)}" for label, found in several.items())
    against = "" if baseline is None else f"; win, draw and loss against {baseline}"
    return TableOne(f"Runs of each model: {seeds}{against}.", models)


def _check_same(label: str, found: Sequence[AlloyEvaluation]) -> None:
    """ValueError if evaluations of a label have different metrics."""
    first, *others = ([metric.name for metric in run.metrics] for run in found)
    if any(names != first for names in others):
        raise ValueError(
            f"runs of {label!r} have different metrics, as texts and compositions have: give each"
            " kind a label of its own"
        )


def summary(same: Sequence[Metric]) -> Measure:
    """One metric over several runs: the mean with its standard error; of a single run its own.

    Rates are in per cent, as their names say. Runs where it is nan are left out.
    """
    first = same[0]
    rate = isinstance(first, Rate) or first.name in ("win", "draw", "loss")
    name, scale = (f"{first.name} (%)", 100) if rate else (first.name, 1)
    unit = "%" if rate else getattr(first, "unit", "")
    if len(same) == 1:
        value, error = scale * first.value, scale * first.standard_error
        return Measure(name, value, error, unit, first.total, first.description, first.denominator)
    values = scale * np.array([each.value for each in same])
    return Measure.mean(name, values, unit, first.description, denominator="runs")


def plus_minus(measure: Measure) -> str:
    """Text like "12.3 ± 1.1": the error with two digits, the value to the same decimals."""
    value, error = measure.value, measure.standard_error
    if not math.isfinite(value):
        return "–"
    if not (math.isfinite(error) and error > 0):
        return f"{value:.4g}"
    digits = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{value:.{digits}f} ± {error:.{digits}f}"
