"""Runs that are killed and started again."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Lines = dict[int, dict[str, float]]
Train = Callable[[Path, Callable[[dict[str, Any], int], None]], Any]


class Killed(Exception):
    pass


def metrics_of(train: Train, folder: Path, stop_after: int | None = None) -> Lines:
    """What a run tracks, seconds aside, by step; it is killed once `stop_after` was tracked."""
    lines: Lines = {}

    def track(metrics: dict[str, Any], step: int) -> None:
        lines[step] = {k: v for k, v in metrics.items() if not k.startswith("seconds")}
        if step == stop_after:
            raise Killed

    with contextlib.suppress(Killed):
        train(folder, track)
    return lines


def killed_and_resumed(train: Train, folder: Path, stop_after: int) -> tuple[Lines, Lines, Lines]:
    """Metrics of a run that was not killed, of one until it was killed, and of its resumption."""
    whole = metrics_of(train, folder / "whole")
    first = metrics_of(train, folder / "killed", stop_after)
    return whole, first, metrics_of(train, folder / "killed")
