"""Training by reward of a policy of crystals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crystaljax.conditions import Condition, chosen
from crystaljax.crystal import Array
from crystaljax.evaluation.matching import StructureSet
from crystaljax.policies.base import Params, Policy, Rollout, SamplingConfig
from crystaljax.rewards.asked import AnyReward, Asked
from crystaljax.rewards.bounds import UNBOUNDED, RewardBounds, quantity_of
from crystaljax.rewards.guards import NO_GUARDS, Guards
from crystaljax.training.rollouts import (
    Clock,
    FlatRewards,
    compared,
    judge,
    prepare,
    sample_metrics,
)
from crystaljax.training.tasks import RewardedSamples, part_size


class CrystalTask:
    """Crystals of a policy, rewarded; a `tasks.Task` whose prompts are conditions.

    Args:
      base: parameters of the base model; its samples show how large crystals are.
      reward: judges crystals, or crystals with what they were asked to be (`rewards.asked`); see
        `judge`.
      conditions: conditions of the crystals. A rollout takes as many as it has room for, in a
        random order; when all were taken, it starts again.
      sampling: settings of sampling. The log-probabilities that are trained are the model's own: at
        another temperature, with top-p or a grammar, rollouts are off-policy, and PPO only
        approximate. Samples count alike, whatever their `weight`.
      bounds: bounds of the reward, and the penalty; by default the reward's own.
      reference: training structures, for the share of novel samples.
      n_parts: micro-batches that a batch is split into, to save memory.
      judge_all: judge samples that do not meet their condition, too; by default they fail.
      guards: guards of the reward; what they do not believe counts as not judged.

    ValueError for conditions that the policy cannot be asked.
    """

    def __init__(
        self,
        policy: Policy,
        base: Params,
        reward: AnyReward,
        conditions: Sequence[Condition] = (Condition(),),
        sampling: SamplingConfig | None = None,
        bounds: RewardBounds | None = None,
        reference: StructureSet | None = None,
        n_parts: int = 1,
        judge_all: bool = False,
        guards: Guards = NO_GUARDS,
    ) -> None:
        if not conditions:
            raise ValueError("no conditions: for crystals of any kind give Condition()")
        self.policy, self.reward, self.reference = policy, reward, reference
        self.conditions, self.n_parts, self.guards = tuple(conditions), n_parts, guards
        self.sampling, self.judge_all = sampling or SamplingConfig(), judge_all
        self.bounds = (bounds or UNBOUNDED).over(quantity_of(reward).bounds)
        self._base, self._warn_if_flat = base, FlatRewards()
        policy.check(self.conditions, self.sampling)

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of the policy."""
        return self.policy.identity

    @property
    def frozen(self) -> Any:
        """The frozen part of the network."""
        return self.policy.frozen

    @property
    def memory(self) -> dict[str, np.ndarray]:
        """Memory of the guards."""
        return self.guards.memory

    def remember(self, memory: Mapping[str, np.ndarray]) -> None:
        """Restore the memory of the guards; ValueError if it belongs to other guards."""
        self.guards.remember(memory)

    def place(self, tree: Any) -> Any:
        """Place arrays on the devices, as the policy needs it."""
        return self.policy.place(tree)

    def rollout(
        self,
        params: Params,
        n: int,
        seed: int,
        clock: Clock,
        repeat: int = 1,
        temperature_offset: float = 0.0,
    ) -> RewardedSamples:
        """Sample and judge n crystals; each condition has `repeat` in a row, which share a
        prompt."""
        temperature = self.sampling.temperature + temperature_offset
        sampling = dataclasses.replace(self.sampling, temperature=temperature)
        with clock("sample"):
            asked = chosen(self.conditions, -(-n // repeat), seed)
            samples = self.policy.sample(params, asked, seed, sampling, repeat)
            crystals, ok, met = samples.crystals[:n], samples.ok[:n], samples.met[:n]
        with clock("reward"):
            judged_ones = ok if self.judge_all else met
            items = Asked.of(crystals, samples.conditions[:n], np.arange(n) // repeat)
            judged = judge(self.reward, items, judged_ones, samples.reasons[:n])
        with clock("guards"):
            judged, share, guarded = self.guards(items, judged)
        with clock("metrics"):
            value, metrics = prepare(judged, self.bounds, share)
            self._warn_if_flat(judged, value, self.bounds)
            columns = compared(crystals, ok, self.reference)
            metrics |= guarded | sample_metrics(columns)
        if any(condition.asked for condition in self.conditions):
            metrics["samples/met"] = float(met.mean())
        metrics["samples/temperature"] = temperature
        return RewardedSamples(samples, value, samples.prompt[:n], metrics, judged, columns)

    def parts(self, samples: Rollout, rows: np.ndarray) -> Any:
        """Micro-batches of the policy's sequences."""
        part_size(len(rows), self)
        return self.policy.parts(samples, rows, self.n_parts, self._typical)

    def _typical(self, n: int) -> Rollout:
        asked = chosen(self.conditions, n, 0)
        return self.policy.sample(self._base, asked, 0, self.sampling)

    def log_probs(
        self, params: Params, frozen: Any, part: Any, n_samples: int
    ) -> tuple[Array, Array]:
        """Log-probabilities of the policy's actions."""
        return self.policy.log_probs(params, frozen, part, n_samples)
