"""Training on a dataset: epochs of batches, with validation, checkpoints and a clean end."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from crystaljax.checkpoints import About, RunCheckpoints
from crystaljax.objectives import Metrics
from crystaljax.ranges import at_least, check
from crystaljax.training.optimizer import OptimizerConfig, TrainState
from crystaljax.training.progress import progress_bar

log = logging.getLogger(__name__)

Track = Callable[[dict[str, Any], int], None]
"""Takes metrics and the step, e.g. `Tracker.log`."""


@dataclass(frozen=True)
class FitConfig:
    """A run over a dataset."""

    n_epochs: int = 100
    """Passes through the training data."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimiser."""
    seed: int = 0
    """Of random weights, the order of the data and the dropout."""
    log_every: int = 20
    """Steps between lines of metrics."""
    save_every: int = 500
    """Steps between checkpoints; the last step is always saved."""
    validate_every: int = 500
    """Steps between validations; the last step is always validated."""

    def __post_init__(self) -> None:
        one = at_least(1)
        check(self, n_epochs=one, log_every=one, save_every=one, validate_every=one)


class Data(Protocol):
    """Batches as a function of the step, so that a run can stop and go on anywhere."""

    batch_size: int
    """Items of a step."""

    @property
    def steps_per_epoch(self) -> int: ...

    def stream(self, first: int, last: int) -> Iterator[tuple[int, Any]]:
        """(step, batch on the devices) for steps first ... last − 1."""

    def save_batch(self, step: int, folder: Path) -> Path:
        """Write the batch of a step for a person to look at; returns the file."""


def fit(
    update: Callable[[TrainState, Any], tuple[TrainState, Metrics]],
    state: TrainState,
    data: Data,
    config: FitConfig,
    folder: Path,
    track: Track,
    *,
    title: str,
    loss: str,
    unit: str,
    identity: dict[str, Any],
    place: Callable[[Any], Any],
    validate: Callable[[TrainState], dict[str, float]],
    run_id: str | None = None,
) -> TrainState:
    """Train to the end, going on from the folder's last checkpoint if there is one.

    A run that was killed and started again has the same losses as one that was not.

    Args:
      update: a state and a batch -> the next state and metrics.
      state: the first one, on the devices.
      folder: where checkpoints go.
      title, loss, unit: what the run is called, which metric has to stay finite, and what the
        items of a batch are.
      identity: what a run must have in common with one that it goes on from.
      place: puts a restored state on the devices.
      validate: metrics of the validation data.
      run_id: the W&B run, kept in the checkpoints.

    FloatingPointError if the loss is not finite, naming the file that its batch is in.
    """
    n_steps = config.n_epochs * data.steps_per_epoch
    about = About(identity, {"config": dataclasses.asdict(config), "wandb_run_id": run_id})
    with RunCheckpoints(folder / "checkpoints") as checkpoints, progress_bar() as progress:
        if checkpoints.latest is not None:
            state = place(checkpoints.restore(state, about)[0])
            log.info("going on from step %d", int(state.step))
        first = int(state.step)
        bar = progress.add_task(title, total=n_steps, completed=first)
        clock, counted = time.perf_counter(), first
        for step, batch in data.stream(first, n_steps):
            state, metrics = update(state, batch)
            done = step + 1
            value = float(metrics[loss])
            if not math.isfinite(value):
                raise _not_finite(value, step, data.save_batch(step, folder))
            progress.update(bar, completed=done, description=f"{title}, {loss} {value:.3f}")
            if done % config.log_every == 0 or done == n_steps:
                speed = (done - counted) * data.batch_size / (time.perf_counter() - clock)
                clock, counted = time.perf_counter(), done
                numbers = {f"train/{name}": float(x) for name, x in metrics.items()}
                epoch = done / data.steps_per_epoch
                track(numbers | {"epoch": epoch, f"train/{unit}_per_second": speed}, done)
            if done % config.validate_every == 0 or done == n_steps:
                found = validate(state)
                track({f"validation/{name}": float(x) for name, x in found.items()}, done)
                clock, counted = time.perf_counter(), done
            if done % config.save_every == 0 or done == n_steps:
                checkpoints.save(done, state, about)
    return state


def _not_finite(loss: float, step: int, path: Path) -> FloatingPointError:
    return FloatingPointError(
        f"the loss of step {step} is {loss}; its batch is in {path}. The last checkpoint is from "
        "before it: lower the learning rate, or look for odd items in the batch"
    )
