"""Training on a dataset: epochs of batches, with validation, checkpoints and early stopping."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import jax

from crystaljax.checkpoints import About, RunCheckpoints
from crystaljax.objectives import Metrics
from crystaljax.progress import progress_bar
from crystaljax.ranges import at_least, check
from crystaljax.training.optimizer import OptimizerConfig, Params, TrainState

log = logging.getLogger(__name__)

Track = Callable[[dict[str, Any], int], None]
"""Takes metrics and the step, e.g. `Tracker.log`."""


@dataclass(frozen=True)
class FitConfig:
    """A run over a dataset."""

    n_epochs: int = 100
    """Passes through the training data."""
    n_steps: int = 0
    """Training steps, instead of passes through the data. 0: as many as the passes take."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimiser."""
    seed: int = 0
    """Random seed for new weights, the order of the data and dropout."""
    log_every: int = 20
    """Steps between lines of metrics."""
    save_every: int = 500
    """Steps between checkpoints. The first one is written within two minutes, and the last step is
    saved."""
    validate_every: int = 500
    """Steps between validations. 0: one validation for each pass. The last step is always
    validated, and the weights of the lowest loss are kept."""
    validate_start: bool = False
    """Also validate the weights that the run begins with. They are kept if no others are better."""
    patience: int = 0
    """The run ends after this number of validations without a lower loss. 0: never."""

    def __post_init__(self) -> None:
        none, one = at_least(0), at_least(1)
        check(self, n_epochs=one, log_every=one, save_every=one)
        check(self, n_steps=none, validate_every=none, patience=none)

    def total_steps(self, data: Data) -> int:
        """Steps of a run over a dataset."""
        return self.n_steps or self.n_epochs * data.steps_per_epoch

    def length(self, n: int, items: str) -> str:
        """How long a run over n items is, in words: "3 epochs of 100 crystals"."""
        if self.n_steps:
            return f"{self.n_steps} steps on {n} {items}"
        return f"{self.n_epochs} epochs of {n} {items}"

    def validation_steps(self, data: Data) -> int:
        """Steps between validations of a run over a dataset."""
        return self.validate_every or data.steps_per_epoch


class Data(Protocol):
    """Batches as a function of the step, so that a run can stop and go on anywhere."""

    batch_size: int
    """Items in a step."""

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
    """Train to the end, from the folder's last checkpoint if there is one.

    A run that was killed and started again has the same losses as one that was not. The folder
    keeps the last states, and the weights of the lowest validation loss (`best_weights`). With
    `FitConfig.patience` the end may come early.

    Args:
      update: a state and a batch -> the next state and metrics.
      state: the first one, on the devices.
      folder: where `checkpoints` and `best` go.
      title, loss, unit: name of the run, metric that has to stay finite, and name of a batch's
        items.
      identity: settings that a continued run must share with the first one.
      place: puts a restored state on the devices.
      validate: metrics of the validation data, the loss among them.
      run_id: the W&B run, kept in the checkpoints.

    FloatingPointError if the loss is not finite, naming the file that its batch is in.
    """
    n_steps, validation_steps = config.total_steps(data), config.validation_steps(data)
    run = {"config": dataclasses.asdict(config), "wandb_run_id": run_id}
    about = About(identity, run)
    with (
        RunCheckpoints(folder / "checkpoints") as checkpoints,
        Best(folder, about, anew=checkpoints.latest is None) as best,
        progress_bar() as progress,
    ):
        waiting = config.patience * validation_steps

        def validated(done: int) -> dict[str, float]:
            found = {name: float(x) for name, x in validate(state).items()}
            best.offer(done, found[loss], state.averaged)
            return {f"validation/{name}": x for name, x in found.items()}

        if checkpoints.latest is not None:
            state = place(checkpoints.restore(state, about)[0])
            log.info("going on from step %d", int(state.step))
        first = int(state.step)
        if first == 0 and config.validate_start:
            track(validated(0), 0)
        if best.waited(first, waiting):
            n_steps = first  # it ended early before
        bar = progress.add_task(title, total=n_steps, completed=first)
        clock, counted = time.perf_counter(), first
        for step, batch in data.stream(first, n_steps):
            state, metrics = update(state, batch)
            done = step + 1
            value = float(metrics[loss])
            if not math.isfinite(value):
                raise _not_finite(value, step, data.save_batch(step, folder))
            progress.update(bar, completed=done, description=f"{title}, {loss} {value:.4g}")
            seconds = time.perf_counter() - clock
            due = done % validation_steps == 0 or done == n_steps
            found = validated(done) if due else {}
            last = done == n_steps or best.waited(done, waiting)
            if done % config.log_every == 0 or last:
                numbers = {f"train/{name}": float(x) for name, x in metrics.items()}
                numbers[f"train/{unit}_per_second"] = (done - counted) * data.batch_size / seconds
                track(numbers | {"epoch": done / data.steps_per_epoch}, done)
            if found:
                track(found, done)
            if found or done % config.log_every == 0:
                clock, counted = time.perf_counter(), done
            if checkpoints.due(done, config.save_every) or last:
                checkpoints.save(done, state, about)
            if last:
                if done < n_steps:
                    log.info("ended early: the lowest loss is that of step %d", best.step)
                break
    return state


class Best:
    """The weights of the lowest validation loss of a run, kept in its folder; a context manager.

    anew: the run starts anew, and forgets what a former one left.
    """

    def __init__(self, folder: Path, about: About, anew: bool) -> None:
        if anew and jax.process_index() == 0:
            shutil.rmtree(folder / "best", ignore_errors=True)
        self._checkpoints = RunCheckpoints(folder / "best", keep=1)
        self._about = about
        self.loss, self.step = math.inf, 0
        if self._checkpoints.latest is not None:
            run = self._checkpoints.about().run
            self.loss, self.step = run["loss"], run["step"]

    def __enter__(self) -> Best:
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpoints.__exit__()

    def offer(self, step: int, loss: float, weights: Params) -> None:
        """Keep the weights of a step if their loss is the lowest so far."""
        if loss < self.loss:
            self.loss, self.step = loss, step
            run = self._about.run | {"loss": loss, "step": step}
            self._checkpoints.save(step, weights, About(self._about.identity, run))

    def waited(self, step: int, n_steps: int) -> bool:
        """Whether a step is `patience` or more validations after the best one; never for 0."""
        return 0 < n_steps <= step - self.step


def best_weights(folder: Path, template: Params, identity: dict[str, Any]) -> tuple[Params, int]:
    """The weights of the lowest validation loss of a run of `fit`, and their step.

    template: arrays or shapes of the weights. Errors as `RunCheckpoints.restore`.
    """
    with RunCheckpoints(folder / "best") as checkpoints:
        weights, run = checkpoints.restore(template, About(identity))
        return weights, run["step"]


def _not_finite(loss: float, step: int, path: Path) -> FloatingPointError:
    return FloatingPointError(
        f"the loss of step {step} is {loss}; its batch is in {path}. The last checkpoint is from "
        "before it: lower the learning rate, or look for odd items in the batch"
    )
