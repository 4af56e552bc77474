"""Iterated direct preference optimisation.

Each iteration draws samples, judges them, pairs the better with the worse of the same prompt and
trains on the pairs, with the policy that drew them as the reference (as in PLaID++, arXiv
2509.07150, with its rising temperature).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from crystaljax import user_code
from crystaljax.checkpoints import About, RunCheckpoints
from crystaljax.crystal import Array
from crystaljax.objectives import BELOW_HALF, Metrics, dpo
from crystaljax.ranges import FINITE, NOT_NEGATIVE, POSITIVE, at_least, check
from crystaljax.training.optimizer import OptimizerConfig, TrainState, fine_tuning
from crystaljax.training.progress import progress_bar
from crystaljax.training.rollouts import Clock, Unjudged
from crystaljax.training.tasks import (
    LogProbs,
    Params,
    Task,
    mean_over_parts,
    over_parts,
    part_size,
    sequence_log_probs,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DpoConfig:
    """The loss of DPO; see `objectives.dpo`."""

    beta: float = 0.1
    """β of DPO: what a nat of divergence from the reference costs, in units of preference."""
    label_smoothing: float = 0.0
    """Probability that a preference is the wrong way round."""
    anchor: float = 0.0
    """Weight of the preferred samples' −ln p by action, against drifting from the data."""
    objective: str = ""
    """Another loss of pairs, FILE.py:FUNCTION: of the arguments and results of `objectives.dpo`."""

    def __post_init__(self) -> None:
        check(self, beta=POSITIVE, label_smoothing=BELOW_HALF, anchor=NOT_NEGATIVE)
        if self.objective:
            user_code.load_called(self.objective, *signature(dpo).parameters)


@dataclass(frozen=True)
class PreferenceConfig(DpoConfig):
    """A run of iterated DPO."""

    n_iterations: int = 5
    """Times that samples are drawn, paired and trained on."""
    n_samples: int = 500
    """Samples of an iteration."""
    group_size: int = 10
    """Samples drawn in a row for a prompt; pairs are of one prompt."""
    min_gap: float = 0.05
    """Least difference of the rewards of a pair, in the reward's unit (eV/atom)."""
    epochs: int = 2
    """Passes over an iteration's pairs."""
    batch_size: int = 25
    """Pairs in an update."""
    temperature_step: float = 0.0
    """Added to the sampling temperature at every iteration."""
    optimizer: OptimizerConfig = field(default_factory=fine_tuning)
    """The optimiser."""
    seed: int = 0
    """Of the samples and of the order of the pairs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one, two = at_least(1), at_least(2)
        check(self, n_iterations=one, epochs=one, batch_size=one, n_samples=two, group_size=two)
        check(self, min_gap=NOT_NEGATIVE, temperature_step=FINITE)


def preference_pairs(
    reward: np.ndarray, group: np.ndarray, min_gap: float, rng: np.random.Generator
) -> np.ndarray:
    """int [P, 2]: samples (chosen, rejected) of the same group, no sample in two pairs.

    The better half of each group meets the worse half, at random. Pairs whose rewards [B] differ
    by less than `min_gap`, or not at all, are left out.
    """
    pairs = [np.zeros((0, 2), np.int64)]
    for value in np.unique(group):
        rows = np.flatnonzero(group == value)
        rows = rows[np.argsort(-reward[rows], kind="stable")]
        half = len(rows) // 2
        better, worse = rows[:half], rows[len(rows) - half :]
        pairs.append(np.stack([rng.permutation(better), rng.permutation(worse)], axis=1))
    found = np.concatenate(pairs)
    gap = reward[found[:, 0]] - reward[found[:, 1]]
    return found[(gap >= min_gap) & (gap > 0)]


def ranked_pairs(
    reward: np.ndarray, best: float, worst: float, n_rejected: int, rng: np.random.Generator
) -> np.ndarray:
    """int [P, 2]: samples (chosen, rejected): each of the best against several that are worse.

    Of all samples the share `best` each meet `n_rejected` of the share `worst`, drawn at random
    among those with a lower reward [B] (all of them where there are fewer). In arXiv 2511.12036 the
    best quarter meets 100 of all samples of lower rank. ValueError for shares out of range.
    """
    if not (0 < best <= 1 and 0 < worst <= 1):
        raise ValueError(f"best {best:g} and worst {worst:g}: they must be above 0, 1 at most")
    order = np.argsort(-reward, kind="stable")
    n_best, n_worst = round(best * len(order)), round(worst * len(order))
    chosen_ones, others = order[:n_best], order[len(order) - n_worst :]
    pairs = [np.zeros((0, 2), np.int64)]
    for chosen in chosen_ones:
        worse = others[reward[others] < reward[chosen]]
        rejected = rng.choice(worse, min(n_rejected, len(worse)), replace=False)
        pairs.append(np.stack([np.full_like(rejected, chosen), rejected], axis=1))
    return np.concatenate(pairs)


Update = Callable[[TrainState, Any, Any, Array], tuple[TrainState, Metrics]]


def make_update(
    log_probs: LogProbs,
    optimizer: optax.GradientTransformation,
    config: DpoConfig,
    ema_decay: float,
) -> Update:
    """One update by DPO on a batch of pairs, for any policy that has log-probabilities; jitted.

    The update takes the state, the frozen arrays, A micro-batches of 2 P samples (chosen and
    rejected in turn), and their log-probabilities [A, 2 P] under the reference. It uses the
    state's memory: only the new state is of use afterwards.
    """

    objective: Callable[..., tuple[Array, Metrics]] = dpo
    if config.objective:
        objective = user_code.load_called(config.objective, *signature(dpo).parameters)

    @partial(jax.jit, donate_argnums=0)
    def update(
        state: TrainState, frozen: Any, parts: Any, reference: Array
    ) -> tuple[TrainState, Metrics]:
        def loss(params: Params, part: Any) -> tuple[Array, Metrics]:
            samples, before = part
            found = log_probs(params, frozen, samples)
            logp, n_actions = sequence_log_probs(found), found[1].sum(axis=-1)
            return objective(
                *(logp[::2], logp[1::2], before[::2], before[1::2]),
                *(config.beta, config.label_smoothing, config.anchor),
                n_actions[::2],
            )

        with_gradient = jax.value_and_grad(loss, has_aux=True)
        (value, metrics), gradient = mean_over_parts(
            partial(with_gradient, state.params), (parts, reference)
        )
        new = state.apply(gradient, optimizer, ema_decay)
        return new, metrics | {"loss": value}

    return update


def prefer(
    task: Task,
    base: Params,
    config: PreferenceConfig,
    folder: Path,
    track: Callable[[dict[str, Any], int], None],
    *,
    run_id: str | None = None,
) -> Params:
    """Fine-tune from `base` by iterated DPO, going on from the folder's last checkpoint.

    Arguments and errors as of `reinforce.reinforce`; a step of `track` is an iteration. Returns
    the last parameters.
    """
    most_updates = config.epochs * max(1, config.n_samples // 2 // config.batch_size)
    optimizer = config.optimizer.build(config.n_iterations * most_updates)
    base = task.place(base)
    state = task.place(TrainState.create(base, optimizer, averaged=False))
    about = About(task.identity, {"config": dataclasses.asdict(config), "wandb_run_id": run_id})
    log_probs = partial(task.log_probs, n_samples=2 * part_size(config.batch_size, task))
    update = make_update(log_probs, optimizer, config, config.optimizer.ema_decay)
    score = make_score(task, log_probs, 2 * config.batch_size)
    with RunCheckpoints(folder / "checkpoints") as checkpoints, progress_bar() as progress:
        if checkpoints.latest is not None:
            state = task.place(checkpoints.restore(state, about)[0])
            log.info("going on from iteration %d", checkpoints.latest)
        first = checkpoints.latest or 0
        bar = progress.add_task("DPO", total=config.n_iterations, completed=first)
        unjudged = Unjudged(first)
        for iteration in range(first, config.n_iterations):
            clock = Clock()
            rng = np.random.default_rng([config.seed, 3, iteration])
            seed, temperature_offset = int(rng.integers(2**31)), iteration * config.temperature_step
            rollout = task.rollout(
                state.params, config.n_samples, seed, clock, config.group_size, temperature_offset
            )
            unjudged(rollout.judged)  # there will be no pairs
            with clock("update"):
                reference = score(state.params, rollout.samples, config.n_samples)
                kl = (reference - score(base, rollout.samples, config.n_samples)).mean()
                pairs = preference_pairs(rollout.reward, rollout.prompt, config.min_gap, rng)
                numbers: dict[str, float] = {"dpo/pairs": len(pairs), "dpo/kl_base": float(kl)}
                for both in _batches(pairs, config, task.n_parts, rng):
                    parts = task.parts(rollout.samples, both.ravel())
                    state, metrics = update(state, task.frozen, parts, jnp.asarray(reference[both]))
                    numbers |= {f"dpo/{name}": float(x) for name, x in metrics.items()}
                _require_finite(numbers, iteration, folder)
            track(numbers | rollout.metrics | clock.seconds, iteration + 1)
            text = f"DPO, reward {rollout.metrics['reward/mean']:.3f}"
            progress.update(bar, completed=iteration + 1, description=text)
            checkpoints.save(iteration + 1, state, about)
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
    pairs: np.ndarray, config: PreferenceConfig, n_parts: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Samples int [A, 2 P] of each update, the chosen and the rejected of a pair in turn.

    Every epoch has all pairs in a new order; its last batch is filled up with pairs of its first.
    """
    if not len(pairs):
        log.warning("no pair of samples differs by %g: nothing to learn from", config.min_gap)
        return
    for _ in range(config.epochs):
        order = rng.permutation(len(pairs))
        n_batches = -(-len(pairs) // config.batch_size)
        for rows in np.resize(order, (n_batches, n_parts, config.batch_size // n_parts)):
            yield pairs[rows].reshape(n_parts, -1)


def _require_finite(numbers: dict[str, float], iteration: int, folder: Path) -> None:
    if not math.isfinite(numbers.get("dpo/loss", 0.0)):
        raise FloatingPointError(
            f"the DPO loss of iteration {iteration + 1} is {numbers['dpo/loss']}: lower the"
            f" learning rate; the last checkpoint in {folder} is from before it"
        )
