"""Iterated direct preference optimisation.

Each iteration draws samples, judges them, pairs the better with the worse of the same prompt and
trains on the pairs, with the policy that drew them as the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import optax

from crystaljax import user_code
from crystaljax.crystal import Array
from crystaljax.objectives import BELOW_HALF, Metrics, dpo
from crystaljax.ranges import FINITE, NOT_NEGATIVE, POSITIVE, at_least, check
from crystaljax.training.iteration import (
    IterationConfig,
    Lessons,
    Loss,
    Method,
    Update,
    iterate,
    make_loss_update,
)
from crystaljax.training.tasks import LogProbs, Params, RewardedSamples, Task


@dataclass(frozen=True)
class DpoConfig:
    """The loss of DPO; see `objectives.dpo`."""

    beta: float = 0.1
    """DPO β: weight of the divergence from the reference policy."""
    label_smoothing: float = 0.0
    """Probability that a preference is wrong."""
    anchor: float = 0.0
    """Weight of an added loss, −ln p per action of the preferred samples, against drift from the
    data."""
    objective: str = ""
    """A loss of your own, as FILE.py:FUNCTION with the arguments and results of
    `objectives.dpo`."""

    def __post_init__(self) -> None:
        check(self, beta=POSITIVE, label_smoothing=BELOW_HALF, anchor=NOT_NEGATIVE)
        if self.objective:
            user_code.load_called(self.objective, *signature(dpo).parameters)


@dataclass(frozen=True)
class PreferenceConfig(IterationConfig, DpoConfig):
    """A run of iterated DPO on pairs of better and worse samples of the same prompt."""

    n_samples: int = 500
    """Samples in an iteration."""
    group_size: int = 10
    """Samples drawn in a row for one prompt. Pairs are made within a prompt."""
    min_gap: float = 0.05
    """Smallest difference between the rewards of a pair, in the reward's unit (eV/atom for
    energies)."""
    temperature_step: float = 0.0
    """Added to the sampling temperature at every iteration."""

    def __post_init__(self) -> None:
        IterationConfig.__post_init__(self)
        DpoConfig.__post_init__(self)
        check(self, n_samples=at_least(2), group_size=at_least(2))
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
    reward: np.ndarray,
    best: float,
    worst: float,
    n_rejected: int,
    rng: np.random.Generator,
    *,
    by_rank: bool = False,
) -> np.ndarray:
    """int [P, 2]: samples (chosen, rejected): each of the best against several that are worse.

    Of all samples the share `best` each meet `n_rejected` of the share `worst`, drawn at random
    among those with a lower reward [B] (all of them where there are fewer), or `by_rank` of those
    that come later in the order of rewards, equal ones in the order in which they are given. In
    arXiv 2511.12036 the best quarter meets 100 of all samples of lower rank. ValueError for shares
    out of range.
    """
    if not (0 < best <= 1 and 0 < worst <= 1):
        raise ValueError(f"best {best:g} and worst {worst:g}: they must be above 0, 1 at most")
    order = np.argsort(-reward, kind="stable")
    n_best, n_worst = round(best * len(order)), round(worst * len(order))
    chosen_ones, others = order[:n_best], order[len(order) - n_worst :]
    pairs = [np.zeros((0, 2), np.int64)]
    first_other = len(order) - n_worst
    for rank, chosen in enumerate(chosen_ones):
        if by_rank:
            worse = others[max(rank + 1 - first_other, 0) :]
        else:
            worse = others[reward[others] < reward[chosen]]
        rejected = rng.choice(worse, min(n_rejected, len(worse)), replace=False)
        pairs.append(np.stack([np.full_like(rejected, chosen), rejected], axis=1))
    return np.concatenate(pairs)


def pair_loss(config: DpoConfig) -> Loss:
    """Loss of samples that are the chosen and the rejected of a pair in turn: `objectives.dpo`, or
    the one that is configured."""
    objective: Callable[..., tuple[Array, Metrics]] = dpo
    if config.objective:
        objective = user_code.load_called(config.objective, *signature(dpo).parameters)

    def loss(logp: Array, reference: Array, n_actions: Array) -> tuple[Array, Metrics]:
        return objective(
            *(logp[::2], logp[1::2], reference[::2], reference[1::2]),
            *(config.beta, config.label_smoothing, config.anchor),
            n_actions[::2],
        )

    return loss


def make_update(
    log_probs: LogProbs,
    optimizer: optax.GradientTransformation,
    config: DpoConfig,
    ema_decay: float,
) -> Update:
    """One update by DPO on a batch of pairs, for any policy that has log-probabilities; jitted."""
    return make_loss_update(log_probs, optimizer, pair_loss(config), ema_decay)


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

    def lessons(_: int, rollout: RewardedSamples, rng: np.random.Generator) -> Lessons:
        return Lessons(preference_pairs(rollout.reward, rollout.prompt, config.min_gap, rng))

    method = Method(
        "dpo",
        pair_loss(config),
        size=2,
        n_samples=config.n_samples,
        most_lessons=config.n_samples // 2,
        lessons=lessons,
        temperature_offset=lambda iteration: iteration * config.temperature_step,
        group_size=config.group_size,
    )
    return iterate(task, base, config, method, folder, track, run_id=run_id)
