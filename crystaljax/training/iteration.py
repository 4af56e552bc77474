"""Iterated learning from samples that a model has drawn itself.

Each iteration draws samples, judges them, selects lessons from them, and trains on these. The
reference is the policy that drew the samples, or the base model.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from crystaljax.checkpoints import About, RunCheckpoints
from crystaljax.crystal import Array
from crystaljax.objectives import Metrics
from crystaljax.progress import progress_bar
from crystaljax.ranges import at_least, check
from crystaljax.training.optimizer import OptimizerConfig, TrainState, fine_tuning
from crystaljax.training.rollouts import Clock, Unjudged
from crystaljax.training.tasks import (
    LogProbs,
    Params,
    RewardedSamples,
    Task,
    mean_over_parts,
    over_parts,
    part_size,
    sequence_log_probs,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IterationConfig:
    """Learning from samples that the model itself has drawn, iteration by iteration."""

    n_iterations: int = 5
    """Iterations. In each one, samples are drawn and judged, and the model is trained on them."""
    epochs: int = 2
    """Passes through the pairs (or samples) of an iteration."""
    batch_size: int = 25
    """Pairs (or samples, if there are no pairs) in an update."""
    optimizer: OptimizerConfig = field(default_factory=fine_tuning)
    """The optimiser."""
    seed: int = 0
    """Random seed for the samples, the pairs and their order."""

    def __post_init__(self) -> None:
        one = at_least(1)
        check(self, n_iterations=one, epochs=one, batch_size=one)


Update = Callable[[TrainState, Any, Any, Array], tuple[TrainState, Metrics]]
"""An update takes the state, the frozen arrays, A micro-batches of n samples, and their
log-probabilities [A, n] under the reference. It uses the state's memory: only the new state is of
use afterwards."""

Loss = Callable[[Array, Array, Array], tuple[Array, Metrics]]
"""Log-probabilities [n] of samples, those under the reference, and numbers of actions -> the loss
and metrics."""


def likelihood_loss(logp: Array, reference: Array, n_actions: Array) -> tuple[Array, Metrics]:
    """Mean −ln p of an action; the reference has no part in it."""
    return -logp.sum() / n_actions.sum(), {"nll": -logp.mean()}


def make_loss_update(
    log_probs: LogProbs, optimizer: optax.GradientTransformation, loss_of: Loss, ema_decay: float
) -> Update:
    """One update by a loss of the log-probabilities of whole samples; jitted."""

    @partial(jax.jit, donate_argnums=0)
    def update(
        state: TrainState, frozen: Any, parts: Any, reference: Array
    ) -> tuple[TrainState, Metrics]:
        def loss(params: Params, part: Any) -> tuple[Array, Metrics]:
            samples, logp_reference = part
            found = log_probs(params, frozen, samples)
            return loss_of(sequence_log_probs(found), logp_reference, found[1].sum(axis=-1))

        with_gradient = jax.value_and_grad(loss, has_aux=True)
        (value, metrics), gradient = mean_over_parts(
            partial(with_gradient, state.params), (parts, reference)
        )
        new = state.apply(gradient, optimizer, ema_decay)
        return new, metrics | {"loss": value}

    return update


class Lessons(NamedTuple):
    """Lessons from the samples of an iteration."""

    rows: np.ndarray
    """int [P, k]: the samples of each lesson, such as (chosen, rejected)."""
    metrics: Mapping[str, float] = {}
    """Metrics to log."""


@dataclass(frozen=True)
class Method:
    """A way of learning from a model's own samples; see `iterate`."""

    name: str
    """Name in metrics, like "dpo"."""
    loss: Loss
    size: int
    """k: samples of a lesson."""
    n_samples: int
    """Samples of an iteration."""
    most_lessons: int
    """Lessons of an iteration, at most or about, from which the length of the run is told."""
    lessons: Callable[[int, RewardedSamples, np.random.Generator], Lessons]
    """Function that selects the lessons from the samples of an iteration; iterations count from
    0."""
    temperature_offset: Callable[[int], float]
    """Function that gives the offset of the sampling temperature in an iteration."""
    group_size: int = 1
    """Number of consecutive samples for a prompt."""
    fixed_reference: bool = False
    """The reference is the base, instead of the policy that drew the samples."""
    after: Callable[[int, Params], None] = lambda _, __: None
    """Called with the number of iterations that are done and the parameters, before they are saved:
    a run that is killed in it does the iteration again."""


def iterate(
    task: Task,
    base: Params,
    config: IterationConfig,
    method: Method,
    folder: Path,
    track: Callable[[dict[str, Any], int], None],
    *,
    run_id: str | None = None,
) -> Params:
    """Draw samples, learn from them by a method, and so on, from the folder's last checkpoint.

    Arguments and errors as of `reinforce.reinforce`; a step of `track` is an iteration. Returns
    the last parameters. An iteration in which there is nothing to learn leaves the
    parameters as they are, with a warning.
    """
    most_updates = config.epochs * max(1, method.most_lessons // config.batch_size)
    optimizer = config.optimizer.build(config.n_iterations * most_updates)
    base = task.place(base)
    state = task.place(TrainState.create(base, optimizer, averaged=False))
    about = About(task.identity, {"config": dataclasses.asdict(config), "wandb_run_id": run_id})
    n_scored = method.size * config.batch_size
    log_probs = partial(task.log_probs, n_samples=method.size * part_size(config.batch_size, task))
    update = make_loss_update(log_probs, optimizer, method.loss, config.optimizer.ema_decay)
    score = make_score(task, log_probs, n_scored)
    name = method.name
    with RunCheckpoints(folder / "checkpoints") as checkpoints, progress_bar() as progress:
        if checkpoints.latest is not None:
            state = task.place(checkpoints.restore(state, about)[0])
            log.info("going on from iteration %d", checkpoints.latest)
        task.remember(checkpoints.memory())
        first = checkpoints.latest or 0
        bar = progress.add_task(name.upper(), total=config.n_iterations, completed=first)
        unjudged = Unjudged(first)
        for iteration in range(first, config.n_iterations):
            clock = Clock()
            rng = np.random.default_rng([config.seed, 3, iteration])
            seed, offset = int(rng.integers(2**31)), method.temperature_offset(iteration)
            rollout = task.rollout(
                state.params, method.n_samples, seed, clock, method.group_size, offset
            )
            unjudged(rollout.judged)  # there will be no lessons
            with clock("update"):
                own, of_base = (
                    score(params, rollout.samples, method.n_samples)
                    for params in (state.params, base)
                )
                reference = of_base if method.fixed_reference else own
                rows, found = method.lessons(iteration, rollout, rng)
                numbers = {**found, f"{name}/kl_base": float((own - of_base).mean())}
                for some in _batches(rows, config, task.n_parts, rng):
                    parts = task.parts(rollout.samples, some.ravel())
                    state, metrics = update(state, task.frozen, parts, jnp.asarray(reference[some]))
                    numbers |= {f"{name}/{key}": float(x) for key, x in metrics.items()}
                _require_finite(numbers, name, iteration, folder)
            if not len(rows):
                log.warning(
                    "iteration %d: nothing to learn from (no %s): the parameters stay as they are",
                    *(iteration + 1, "pair of samples" if method.size == 2 else "sample"),
                )
            numbers[f"{name}/{'pairs' if method.size == 2 else 'samples'}"] = len(rows)
            track(numbers | rollout.metrics | clock.seconds, iteration + 1)
            text = f"{name.upper()}, reward {rollout.metrics['reward/mean']:.4g}"
            progress.update(bar, completed=iteration + 1, description=text)
            method.after(iteration + 1, state.params)
            checkpoints.save(iteration + 1, state, about, task.memory)
    return state.params


Score = Callable[[Params, Any, int], np.ndarray]


def make_score(task: Task, log_probs: LogProbs, batch_size: int) -> Score:
    """Log-probabilities float32 [n] of n samples under some parameters, in batches of one shape."""

    @jax.jit
    def of_parts(params: Params, frozen: Any, parts: Any) -> Array:
        def of_part(part: Any) -> Array:
            return sequence_log_probs(log_probs(params, frozen, part))

        return over_parts(of_part, parts)

    def score(params: Params, samples: Any, n: int) -> np.ndarray:
        rows = np.resize(np.arange(n), (-(-n // batch_size), batch_size))
        found = [of_parts(params, task.frozen, task.parts(samples, x)) for x in rows]
        return np.concatenate([np.asarray(x).ravel() for x in found])[:n]

    return score


def _batches(
    lessons: np.ndarray, config: IterationConfig, n_parts: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Samples int [A, n] of each update, those of a lesson (of lessons int [P, k]) in turn.

    Every epoch has all lessons in a new order; its last batch is filled up with those of its first.
    """
    if not len(lessons):
        return
    for _ in range(config.epochs):
        order = rng.permutation(len(lessons))
        n_batches = -(-len(lessons) // config.batch_size)
        for rows in np.resize(order, (n_batches, n_parts, config.batch_size // n_parts)):
            yield lessons[rows].reshape(n_parts, -1)


def _require_finite(numbers: dict[str, float], name: str, iteration: int, folder: Path) -> None:
    loss = numbers.get(f"{name}/loss", 0.0)
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the {name.upper()} loss of iteration {iteration + 1} is {loss}: lower the"
            f" learning rate; the last checkpoint in {folder} is from before it"
        )
