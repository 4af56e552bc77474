"""Metrics, results and files of a run: metrics in a local file, and everything in W&B if
configured."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

import jax
import numpy as np

from crystaljax.data.files import replacing

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"

WANDB_FOLDER = "wandb"
"""Subfolder of a run's folder for W&B's files."""

RUN_ID_FILE = "run-id.txt"
"""File in this subfolder with the id of the W&B run, to continue it."""

LARGEST_COPY = 1_000_000_000
"""Largest size of an uploaded artifact in bytes; for a larger one W&B gets only its path."""


@dataclass(frozen=True)
class TrackingConfig:
    """Weights & Biases, besides the local metrics.jsonl, which is always written."""

    mode: Literal["online", "offline", "disabled"] = "disabled"
    """Weights & Biases: online (needs `wandb login` once), offline (for `wandb sync`), or
    disabled."""
    project: str = "crystaljax"
    """W&B project."""
    entity: str | None = None
    """W&B user or team. Not given: the account's default."""
    group: str | None = None
    """W&B group for the runs of one study."""
    tags: tuple[str, ...] = ()
    """W&B tags."""
    name: str | None = None
    """Name of the run. Not given: W&B invents one."""
    run_id: str | None = None
    """W&B id of a run to continue (`Tracker.run_id`)."""
    timeout: float = 30.0
    """Seconds to wait for W&B before the run goes on offline."""


class Tracker:
    """Writes a run's metrics to `folder`/metrics.jsonl, and with its files to W&B if configured.

    W&B never stops a run: without a key or a network it falls back to offline, and if it fails
    altogether the local file goes on alone; both are logged. In a run of many processes only the
    first writes. Use as a context manager: the W&B run is then marked failed after an exception.

    Args:
      folder: made if need be; PermissionError if it cannot be written to.
      config: see `TrackingConfig`.
      run_config: the experiment's configuration, shown in W&B.
      resume_step: the step of the checkpoint this run starts from. Lines of metrics.jsonl beyond
        it are dropped, so that no step is there twice. None: a new run; the metrics.jsonl of an
        earlier one is kept as metrics.1.jsonl, metrics.2.jsonl, ...
      job_type: what W&B calls this kind of run within its group.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: TrackingConfig | None = None,
        run_config: Mapping[str, Any] | None = None,
        resume_step: int | None = None,
        job_type: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.config = config or TrackingConfig()
        self._file: TextIO | None = None
        self._run: Any = None
        if jax.process_index() != 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / METRICS_FILE
        if resume_step is None:
            _set_aside(path)
        else:
            _drop_after(path, resume_step)
        self._file = path.open("a", encoding="utf-8", buffering=1)  # every line reaches the system
        if self.config.mode != "disabled":
            former = kept_run_id(self.folder)
            self._run = _start(self.config, self.folder, dict(run_config or {}), job_type)
            if self._run is not None and self._run.id == former:
                where = f"step {resume_step}" if resume_step else "its start"
                log.info("W&B: the run %s is gone on with, from %s", former, where)

    @property
    def run_id(self) -> str | None:
        """The W&B run's id, to be kept in checkpoints; None without W&B."""
        return self._run.id if self._run is not None else self.config.run_id

    @property
    def mode(self) -> str:
        """State of W&B: "online", "offline" or "disabled"."""
        if self._run is None:
            return "disabled"
        return "offline" if self._run.offline else "online"

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Record numbers at a step; in the local file non-finite ones are null.

        Values are Python, numpy or jax scalars. ValueError naming a metric that is none.
        """
        numbers = {name: _scalar(name, value) for name, value in metrics.items()}
        if self._file is None:
            return
        finite = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        self._file.write(json.dumps({"step": int(step), **finite}) + "\n")
        self._wandb(lambda run: run.log(numbers, step=int(step)))

    def configure(self, entries: Mapping[str, Any]) -> None:
        """Add to the configuration that W&B shows."""
        self._wandb(lambda run: run.config.update(dict(entries), allow_val_change=True))

    def summarize(self, values: Mapping[str, float]) -> None:
        """Set results of the whole run, by which W&B compares runs; those not finite are left out.

        Names as of `wandb_name`.
        """
        finite = {name: float(x) for name, x in values.items() if math.isfinite(x)}
        self._wandb(lambda run: run.summary.update(finite))

    def log_table(
        self,
        name: str,
        columns: Mapping[str, Sequence[Any] | np.ndarray],
        step: int | None = None,
        pictures: Sequence[Path | None] | None = None,
    ) -> None:
        """Show a table in W&B, such as generated structures with their energies and pictures.

        `columns` are of one length; `pictures` are image files, one a row (None for no picture).
        ValueError if the lengths differ.
        """
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        if pictures is not None and len(pictures) != len(rows):
            raise ValueError(f"the table {name!r} has {len(rows)} rows, {len(pictures)} pictures")

        def show(run: Any) -> None:
            import wandb

            data = [[_plain(x) for x in row] for row in rows]
            header: list[str | int] = list(columns)
            if pictures is not None:
                images = [None if path is None else wandb.Image(str(path)) for path in pictures]
                data = [[image, *row] for image, row in zip(images, data, strict=True)]
                header = ["picture", *header]
            run.log({name: wandb.Table(columns=header, data=data)}, step=step)

        self._wandb(show)

    def log_images(self, images: Mapping[str, Path], step: int | None = None) -> None:
        """Show image files, such as the report's figures, in W&B."""

        def show(run: Any) -> None:
            import wandb

            run.log({k: wandb.Image(str(path)) for k, path in images.items()}, step=step)

        self._wandb(show)

    def log_artifact(
        self,
        path: str | os.PathLike[str],
        name: str,
        type: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a file or folder in W&B: type "model" for checkpoints, "structures" for crystals.

        FileNotFoundError if there is nothing at `path`.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"cannot track {path} as the artifact {name!r}: no such file")
        self._wandb(lambda run: run.log_artifact(_artifact(path, name, type, metadata)))

    def use_artifact(self, path: str | os.PathLike[str], name: str, type: str) -> None:
        """Tell W&B that the run starts from a file or folder; offline, W&B cannot take note of it.

        What an earlier run kept under the same name with the same content is that run's output.
        """
        path = Path(path)
        if self.mode == "online" and path.exists():
            self._wandb(lambda run: run.use_artifact(_artifact(path, name, type, None)))

    def close(self, failed: bool = False) -> None:
        """Finish the run and wait for W&B to take what is left; further calls do nothing."""
        self._wandb(lambda run: run.finish(exit_code=int(failed)))
        self._run = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)

    def _wandb(self, action: Callable[[Any], None]) -> None:
        """Do something with the W&B run, if there is one; if that fails, go on without W&B."""
        if self._run is None:
            return
        import wandb

        try:
            action(self._run)
        except (wandb.Error, OSError, TimeoutError) as error:
            log.warning("W&B failed (%s); the run goes on with %s alone", error, METRICS_FILE)
            self._run = None


def wandb_name(*parts: str) -> str:
    """A name that W&B can sort, filter and optimise by: "after_PPO/metastable_SUN".

    W&B takes a dot for a step into a nested entry and asks for letters, digits and underscores;
    slashes make sections.
    """
    words = (re.findall(r"\w+", part.replace("S.U.N.", "SUN"), re.ASCII) for part in parts)
    return "/".join("_".join(each) for each in words)


def kept_run_id(folder: str | os.PathLike[str]) -> str | None:
    """The W&B id of the run that was in a folder last, if there was one."""
    path = Path(folder) / WANDB_FOLDER / RUN_ID_FILE
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def new_run_id() -> str:
    """A W&B id that no other run has."""
    return secrets.token_hex(4)


def _artifact(path: Path, name: str, type: str, metadata: Mapping[str, Any] | None) -> Any:
    """A file or folder as W&B keeps it."""
    import wandb

    artifact = wandb.Artifact(name, type, metadata=dict(metadata or {}))
    files = [path] if path.is_file() else [x for x in path.rglob("*") if x.is_file()]
    if sum(file.stat().st_size for file in files) > LARGEST_COPY:
        artifact.add_reference(path.resolve().as_uri(), checksum=False)
    elif path.is_dir():
        artifact.add_dir(str(path))
    else:
        artifact.add_file(str(path))
    return artifact


def _start(
    config: TrackingConfig, folder: Path, run_config: dict[str, Any], job_type: str | None
) -> Any:
    """A W&B run in the mode asked for, or offline if that fails, or None."""
    import wandb

    modes = ["online", "offline"] if config.mode == "online" else ["offline"]
    for mode in modes:
        try:
            run = wandb.init(
                mode=mode,  # type: ignore[arg-type]
                project=config.project,
                entity=config.entity,
                group=config.group,
                job_type=job_type,
                tags=list(config.tags),
                name=config.name,
                id=config.run_id,
                resume="allow" if config.run_id else None,
                reinit="create_new",  # runs of one study may be open beside each other
                dir=str(folder.resolve()),  # the service keeps the directory that it began in
                config=run_config,
                settings=wandb.Settings(
                    init_timeout=config.timeout, login_timeout=config.timeout, silent=True
                ),
            )
            (folder / WANDB_FOLDER).mkdir(exist_ok=True)
            (folder / WANDB_FOLDER / RUN_ID_FILE).write_text(f"{run.id}\n", encoding="utf-8")
            return run
        except (wandb.Error, OSError, TimeoutError) as error:
            then = "goes on offline" if mode == "online" else "is tracked locally alone"
            log.warning("no W&B %s (%s): the run %s", mode, str(error).splitlines()[0], then)
    return None


def _set_aside(path: Path) -> None:
    """Rename the file, if it exists, to the first free numbered name."""
    if not path.exists():
        return
    number = 1
    while (kept := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    path.rename(kept)


def _drop_after(path: Path, step: int) -> None:
    """Keep the lines up to `step`, and none that a kill cut short.

    A file with no other lines is left alone: another process of the same study may be writing it.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = []
    for line in lines:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line.rstrip("\n") + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            log.warning("%s: dropped a line that is no metrics of a step: %.60s", path, line)
    if kept != lines:
        with replacing(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def _scalar(name: str, value: Any) -> float:
    """A metric as a number: int stays int."""
    if np.size(value) != 1 or isinstance(value, str):
        raise ValueError(f"the metric {name!r} is no single number but {value!r:.80}")
    number = np.asarray(value).reshape(()).item()
    if not isinstance(number, bool | int | float):
        raise ValueError(f"the metric {name!r} is no number but {value!r:.80}")
    return number


def _plain(value: Any) -> Any:
    """A table's entry as a Python object."""
    return value.item() if isinstance(value, np.generic) else value


def read_metrics(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The metrics of a run's folder, for plots: {name: float64 [n, 2] of (step, value)}.

    Null values come back as nan. FileNotFoundError if the folder has no metrics.jsonl.
    """
    path = Path(folder) / METRICS_FILE
    series: dict[str, list[tuple[float, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a run that was killed
        step = row.pop("step")
        for name, value in row.items():
            series.setdefault(name, []).append((step, math.nan if value is None else value))
    return {name: np.array(points, float) for name, points in series.items()}
