"""One start of an experiment script: its folder, its runs and what it reports, here and in W&B."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from crystaljax import plots
from crystaljax.checkpoints import latest_step
from crystaljax.evaluation.rates import Measure, MetricSet
from crystaljax.evaluation.report import Picture, Report, Table
from crystaljax.experiment.best import BestStructures
from crystaljax.experiment.run_folder import holds_results, open_run
from crystaljax.provenance import Provenance, digest
from crystaljax.settings import plain
from crystaljax.tracking import Tracker, TrackingConfig, kept_run_id, new_run_id, wandb_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SWEEP = "WANDB_SWEEP_ID"
"""Set by agents of W&B's sweeps."""

Figures = Mapping[str, tuple["Figure", str]]
"""Name of a file -> a figure and its caption."""


@dataclass(frozen=True)
class TrainingRun:
    """A run of a training loop, to begin or to go on with."""

    folder: Path
    """Folder of its checkpoints."""
    tracker: Tracker

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Record metrics of a step."""
        self.tracker.log(metrics, step)

    @property
    def run_id(self) -> str | None:
        """Its W&B id."""
        return self.tracker.run_id

    @property
    def metrics_folder(self) -> Path:
        """Folder of its metrics, for `tracking.read_metrics`."""
        return self.tracker.folder


class Experiment:
    """A study in a folder: new, or gone on with; use as a context manager.

    In W&B its runs are a group, called after the folder if --tracking.group is not given. The
    main run has the report; its metrics are in the folder itself. Runs that are gone on with are
    the same in W&B.

    Args:
      config: the script's configuration, a dataclass.
      output: folder; errors as of `open_run`.
      tracking: W&B.
      job_type: what the main run is called in W&B.
      checkpoints: the folder in `output` of the main run's checkpoints, if it trains.
      vary: settings that a run may be gone on with others of, as of `open_run`.
    """

    def __init__(
        self,
        config: Any,
        output: Path,
        tracking: TrackingConfig,
        job_type: str,
        checkpoints: str | None = None,
        vary: Collection[str] = (),
    ) -> None:
        self.provenance = Provenance(plain(dataclasses.asdict(config)))
        begun = holds_results(output)
        self.folder = open_run(output, config, vary)
        self.tracking = replace(tracking, group=tracking.group or self.folder.resolve().name)
        place = self.folder if checkpoints is None else self.folder / checkpoints
        # What only reports has no steps that could be there twice.
        step = 0 if checkpoints is None else latest_step(place)
        run_id = tracking.run_id or (kept_run_id(self.folder) if begun else None)
        config_shown = {**self.provenance.config, "provenance": self.provenance.to_dict()}
        del config_shown["provenance"]["config"]
        self.main = TrainingRun(
            place,
            Tracker(
                self.folder,
                replace(self.tracking, run_id=run_id),
                config_shown,
                step,
                job_type,
            ),
        )

    @contextmanager
    def run(
        self, name: str, job_type: str | None = None, settings: Any = None
    ) -> Iterator[TrainingRun]:
        """Another run of the study, in a folder of that name in the study's.

        In a sweep of W&B's, in which a process is one run, it is not in W&B.

        Args:
          job_type: what W&B calls its kind; its name if not given.
          settings: those of it alone, a dataclass.
        """
        folder = self.folder / name
        step = latest_step(folder)
        run_id = kept_run_id(folder) or new_run_id()
        tracking = replace(
            self.tracking,
            # An agent of a sweep gives its run's id to all that this process starts.
            mode="disabled" if SWEEP in os.environ else self.tracking.mode,
            run_id=run_id,
            name=f"{self.tracking.name} {name}" if self.tracking.name else None,
        )
        shown = {**self.provenance.config, "run": name}
        if settings is not None:
            shown["run_settings"] = plain(dataclasses.asdict(settings))
        with Tracker(folder, tracking, shown, step, job_type or name) as tracker:
            yield TrainingRun(folder, tracker)

    def describe(self, **inputs: Any) -> None:
        """Record what the study starts from: hull, potentials, data, in report.json and W&B."""
        known = {name: x for name, x in plain(inputs).items() if x not in (None, "")}
        self.provenance.inputs.update(known)
        self.main.tracker.configure({"inputs": self.provenance.inputs})

    def use(self, type: str, source: str | Path | None) -> None:
        """Record a file or folder that the study starts from, such as its model, with its lineage.

        What is no path, such as the name of a data set, is recorded as it is.
        """
        if not source:
            return
        path = Path(source)
        if not path.exists():
            self.describe(**{type: str(source)})
            return
        name = artifact_name(path)
        self.describe(**{type: {"path": str(source), "artifact": name, "sha256": digest(path)}})
        self.main.tracker.use_artifact(path, name, type)

    def pictures(self, figures: Figures) -> list[Picture]:
        """Save figures in the folder, for the report."""
        return [
            Picture(plots.save(figure, self.folder / f"{name}.png"), caption)
            for name, (figure, caption) in figures.items()
        ]

    def finish(
        self,
        report: Report,
        *,
        best: BestStructures | None = None,
        outputs: Mapping[Path, str] | None = None,
    ) -> Path:
        """Write the report, and show in W&B what is in it; returns the path of its page.

        Args:
          report: all but where its results come from, which is added.
          best: structures to show in the report and in W&B.
          outputs: files and folders that the study made, and what each is: "model", "structures".
        """
        report = self.provenance.added(report)
        if best is not None:
            report = dataclasses.replace(report, candidates=best.candidates())
        page = report.write(self.folder)
        track_report(self.main.tracker, report)
        if best is not None:
            best.track(self.main.tracker, self.folder / "structures")
        lineage = {"run": self.main.run_id, "inputs": self.provenance.inputs}
        for path, type in (outputs or {}).items():
            self.main.tracker.log_artifact(path, artifact_name(path), type, lineage)
        Console().print(f"The report is in [bold]{page}[/bold].")
        return page

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.main.tracker.close(failed=kind is not None)


def artifact_name(path: Path) -> str:
    """A name that is the same where something is made and where it is used: "llm_sft-model"."""
    path = path.resolve()
    return "-".join(wandb_name(part) for part in (path.parent.name, path.stem) if part)


def track_report(tracker: Tracker, report: Report) -> None:
    """Results, tables and pictures of a report in W&B."""
    for label, evaluation in report.evaluations.items():
        summarize(tracker, label, evaluation)
    numbers = {k: x for k, x in report.extra.items() if isinstance(x, int | float)}
    tracker.summarize(numbers)
    if report.evaluations:
        tracker.log_table("results", results_table(report.evaluations))
    for table in report.tables:
        tracker.log_table(f"tables/{wandb_name(table.caption)[:60]}", columns_of(table))
    if report.pictures:
        tracker.log_images({f"report/{x.path.stem}": x.path for x in report.pictures})


def summarize(tracker: Tracker, label: str, evaluation: MetricSet) -> None:
    """All metrics of an evaluation and their standard errors as results of a run in W&B.

    Their names are like "after_PPO/metastable_SUN" and "after_PPO/metastable_SUN_se".
    """
    for metric in evaluation.metrics:
        name = wandb_name(label, metric.name)
        tracker.summarize({name: metric.value, f"{name}_se": metric.standard_error})


def results_table(evaluations: Mapping[str, MetricSet]) -> dict[str, list[Any]]:
    """Columns of a table with every metric of every evaluation."""
    rows: list[Sequence[Any]] = [
        (
            label,
            metric.name,
            metric.value,
            metric.standard_error,
            metric.unit if isinstance(metric, Measure) else "",
            metric.fraction,
        )
        for label, evaluation in evaluations.items()
        for metric in evaluation.metrics
    ]
    names = ("samples", "metric", "value", "standard error", "unit", "count / total")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def columns_of(table: Table) -> dict[str, list[Any]]:
    """Columns of a report's table; those of numbers alone as numbers."""
    header, *rows = table.rows
    found: dict[str, list[Any]] = {}
    for i, name in enumerate(header):
        column: list[Any] = [row[i] for row in rows]
        with suppress(ValueError):
            column = [float(x) for x in column]
        found[name if name and name not in found else f"{name} {i}".strip()] = column
    return found
