"""Results of single runs of a study, kept as JSON beside what the runs made."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from crystaljax.data.files import HeldByAnother, locked, replacing
from crystaljax.evaluation.policies import Drawn
from crystaljax.evaluation.rates import MetricSet
from crystaljax.evaluation.report import Table
from crystaljax.training.rollouts import NothingJudged
from crystaljax.user_messages import one_line

log = logging.getLogger(__name__)

Name = TypeVar("Name", bound=str)

RESULT_FILE = "result.json"

N_REASONS = 5
"""Commonest reasons why samples are no crystals that are kept."""


def check_seeds(seeds: Sequence[int]) -> None:
    """ValueError for no seed, a negative one, or one given twice, which would shrink the errors."""
    if not seeds or min(seeds) < 0 or len({*seeds}) < len(seeds):
        given = " ".join(map(str, seeds)) or "none"
        raise ValueError(f"--seeds are one or more different whole numbers from 0, not {given}")


def check_parts(owner: str, batch_size: int, n_parts: int, n_minibatches: int = 1) -> None:
    """ValueError if training, hours later, could not split a batch into micro-batches, or these
    into mini-batches.

    `owner`: what is trained, for the message.
    """
    if batch_size % n_parts:
        raise ValueError(
            f"{owner}: batch_size {batch_size} cannot be split into n_parts {n_parts} of one size:"
            " give a multiple of n_parts"
        )
    if n_parts % n_minibatches:
        raise ValueError(
            f"{owner}: n_parts {n_parts} cannot be split into n_minibatches {n_minibatches}: give"
            " a multiple of n_minibatches"
        )


def chosen(names: Iterable[Name], only: Sequence[str]) -> list[Name]:
    """The names, each once, that are among `only`; all if it is empty.

    ValueError for one of `only` that is none of the names.
    """
    known = list(dict.fromkeys(names))
    if unknown := [name for name in only if name not in known]:
        raise ValueError(
            f"--only has {unknown[0]!r}, which is not compared here: choose among"
            f" {'; '.join(known)}"
        )
    return [name for name in known if not only or name in only]


def read_result(path: Path) -> dict[str, Any]:
    """ValueError if the file is damaged."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it, and the run is done again"
        ) from error
    return found


def write_result(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all; ValueError for numbers that are not finite."""
    with replacing(path) as temporary:
        text = json.dumps(content, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def do_run(
    name: str,
    folder: Path,
    failures: list[str],
    work: Callable[[], object],
    *also: type[Exception],
) -> None:
    """Do the work of one run of a study, whose failure does not end the study: it is noted.

    Failures are a loss that is not finite, samples that cannot be judged, and errors of `also`. A
    run that another process has begun is left to it.

    Args:
      folder: the run's; its lock (`data.files.locked`) is held meanwhile.
      failures: gets a line if it fails.
    """
    faults: tuple[type[Exception], ...] = (FloatingPointError, NothingJudged, *also)
    try:
        with locked(folder, wait=False):
            work()
    except HeldByAnother:
        log.info("%s: another process has begun it", name)
    except faults as error:
        failures.append(f"{name}: {one_line(error)}")
        log.warning("%s", failures[-1])


def result_of_samples(drawn: Drawn, evaluation: MetricSet) -> dict[str, Any]:
    """Dictionary of the stored results of samples and their evaluation."""
    return {
        "metrics": [metric.to_dict() for metric in evaluation.metrics],
        "context": list(evaluation.context),
        "n": len(drawn.crystals),
        "seconds_per_sample": drawn.seconds,
        "cpu_seconds_per_sample": drawn.cpu_seconds,
        "reasons": dict(drawn.reasons.most_common(N_REASONS)),
    }


def logged(table: Table) -> Table:
    """The table, which is told in the log, a line a row."""
    log.info("%s\n%s", table.caption, "\n".join(map(": ".join, table.rows[1:])))
    return table


def kept_table(table: Table) -> dict[str, Any]:
    """A table as results keep it."""
    return {"caption": table.caption, "rows": table.rows}


def read_tables(kept: Iterable[Mapping[str, Any]]) -> list[Table]:
    """Tables that results have kept; of those with one caption the last."""
    return [*{table["caption"]: Table(**table) for table in kept}.values()]
