"""Several runs side by side: their results, curves, and the settings in which they differ."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystaljax import plots
from crystaljax.data.files import replacing
from crystaljax.evaluation.rates import MetricSet, Rate
from crystaljax.evaluation.report import Picture, Report, Table
from crystaljax.evaluation.safeguards import writable_folder
from crystaljax.experiment.run_folder import SETTINGS_FILE
from crystaljax.numbers import number_format
from crystaljax.tracking import METRICS_FILE, read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = {
    "reward/mean": "mean reward",
    "rl/kl_base": "KL from the base model (nats)",
    "samples/unique": "share of unique samples",
    "samples/novel": "share of novel samples",
    "train/nll": "training loss (nats)",
    "validation/nll": "validation loss (nats)",
}
"""Metrics whose curves are drawn if a run has them, and their axes."""

TABLE_FILE = "results.csv"
"""Name of the table of results."""

HEADER = (
    *("run", "evaluation", "metric", "value", "standard error", "count", "total", "unit"),
    *("of", "compared with"),
)
"""Columns of the table of results."""


@dataclass(frozen=True)
class FinishedRun:
    """Results of a run, read from its folder."""

    label: str
    evaluations: Mapping[str, MetricSet]
    """By label, in order, as in the run's report; may be empty."""
    curves: Mapping[str, np.ndarray]
    """[n, 2] of (step, value) by the name of the metric."""
    settings: Mapping[str, Any]
    """By name, such as rl.tau."""


def read_runs(folders: Sequence[str | Path]) -> list[FinishedRun]:
    """Runs from their folders, or LABEL=FOLDER; by default labelled by their distinct paths.

    ValueError for no run, equal labels, and a folder that holds neither report nor metrics.
    """
    if not folders:
        raise ValueError("no run to compare: give their folders")
    given = [_named(str(folder)) for folder in folders]
    short = _told_apart([path for _, path in given])
    labels = [label or path for (label, _), path in zip(given, short, strict=True)]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"two runs are called {twice[0]}: rename them with NAME=FOLDER")
    return [read_run(label, path) for label, (_, path) in zip(labels, given, strict=True)]


def read_run(label: str, folder: Path) -> FinishedRun:
    """A run from its folder; ValueError if it holds neither report nor metrics."""
    report, metrics = folder / "report.json", folder / METRICS_FILE
    if not report.is_file() and not metrics.is_file():
        raise ValueError(
            f"{folder} is not the folder of a run: it has neither {report.name} nor {metrics.name}"
        )
    settings = folder / SETTINGS_FILE
    found = _json(report).get("evaluations", {}) if report.is_file() else {}
    return FinishedRun(
        label,
        {name: MetricSet.from_dict(each) for name, each in found.items()},
        read_metrics(folder) if metrics.is_file() else {},
        dict(_flat(_json(settings))) if settings.is_file() else {},
    )


def compare(runs: Sequence[FinishedRun], folder: str | Path) -> Path:
    """Write a report of runs, and results.csv with all their results; returns the report's path.

    The report has the last evaluation of each run, the metrics of `CURVES` with their first and
    last values, and the settings that differ. FileExistsError if the folder holds something else
    that has a report, such as one of the runs.
    """
    folder = writable_folder(folder)
    if any((folder / name).exists() for name in (SETTINGS_FILE, METRICS_FILE)) or (
        (folder / "report.json").exists() and not (folder / TABLE_FILE).exists()
    ):
        raise FileExistsError(
            f"{folder} holds a run or a report of another kind: give another output folder"
        )
    with replacing(folder / TABLE_FILE) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *results(runs)])
    pictures = [
        Picture(plots.save(figure, folder / f"{name.replace('/', '_')}.png"), caption)
        for name, (figure, caption) in figures(runs).items()
    ]
    last = {run.label: list(run.evaluations.values())[-1] for run in runs if run.evaluations}
    tables = [ends(runs)] if any(name in run.curves for run in runs for name in CURVES) else []
    tables += [differing(runs)] if len(runs) > 1 else []
    notes = [
        f"{run.label}: {', '.join(run.evaluations) or 'no evaluation'}."
        + (f" The results are those of {list(run.evaluations)[-1]}." if run.evaluations else "")
        for run in runs
    ]
    return Report("Runs side by side", last, pictures, tables, notes).write(folder)


def results(runs: Sequence[FinishedRun]) -> Iterator[list[Any]]:
    """Rows of `HEADER`; unknown numbers are empty."""
    for run in runs:
        for name, evaluation in run.evaluations.items():
            for metric in evaluation.metrics:
                count: Any = metric.count if isinstance(metric, Rate) else ""
                unit = "" if isinstance(metric, Rate) else metric.unit
                yield [
                    *(run.label, name, metric.name),
                    *(x if math.isfinite(x) else "" for x in (metric.value, metric.standard_error)),
                    *(count, metric.total, unit, metric.denominator, metric.reference),
                ]


def figures(runs: Sequence[FinishedRun]) -> dict[str, tuple[Figure, str]]:
    """Curves of the metrics of `CURVES` that any run has, with captions."""
    found = {}
    for name, axis in CURVES.items():
        curves = {run.label: run.curves[name] for run in runs if name in run.curves}
        if curves:
            found[name] = plots.training_curves(curves, axis), f"{axis} ({name}) by run"
    return found


def ends(runs: Sequence[FinishedRun]) -> Table:
    """First and last values of the curves of `CURVES`; of losses also the lowest."""
    rows = [["", *(run.label for run in runs)]]
    for name, axis in CURVES.items():
        if any(name in run.curves for run in runs):
            rows.append([axis, *(_ends(name, run.curves.get(name)) for run in runs)])
    return Table("First and last values of the curves", rows)


def _ends(name: str, curve: np.ndarray | None) -> str:
    values = np.array([]) if curve is None else curve[np.isfinite(curve[:, 1]), 1]
    if not len(values):
        return "—"
    shown = number_format([values[0], values[-1]])
    lowest = f" (lowest {values.min():{shown}})" if name.endswith("nll") else ""
    return f"{values[0]:{shown}} → {values[-1]:{shown}}{lowest}"


def differing(runs: Sequence[FinishedRun]) -> Table:
    """The settings that are not the same in all runs; those not given or empty are shown as "—"."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    rows = [["setting", *(run.label for run in runs)]]
    for name in names:
        values = [_shown(run.settings.get(name)) for run in runs]
        if len(set(values)) > 1:
            rows.append([name, *values])
    return Table("Settings that differ", rows)


def _shown(value: Any) -> str:
    """A setting as text, the same for values of equal meaning: none and empty, 1 and 1.0."""
    if value is None or value in ("", []):
        return "—"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


def _named(folder: str) -> tuple[str, Path]:
    """Label, or nothing, and path of LABEL=FOLDER or FOLDER."""
    label, equals, path = folder.partition("=")
    if equals and label and not Path(folder).exists():
        return label, Path(path)
    return "", Path(folder)


def _told_apart(folders: Sequence[Path]) -> list[str]:
    """The shortest last parts of paths that make all of them different."""
    parts = [folder.resolve().parts for folder in folders]
    for n in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-n:]) for each in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [folder.as_posix() for folder in folders]


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return found


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings within settings by names such as rl.tau."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
