"""Training by reward of a Wyckoff policy: samples of space groups, judged as crystals."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array
from crystaljax.evaluation.matching import StructureSet
from crystaljax.parallel import make_mesh, parts_sharding, replicated
from crystaljax.policies.wyckoff import Params, WyckoffPolicy
from crystaljax.rewards.base import Reward
from crystaljax.rewards.bounds import UNBOUNDED, RewardBounds, quantity_of
from crystaljax.sampling import SamplingConfig
from crystaljax.tokenizations.packing import RowPlan, pack
from crystaljax.tokenizations.wyckoff import WyckoffTokens
from crystaljax.training.batches import Packed, even
from crystaljax.training.rollouts import (
    Clock,
    judge,
    prepare,
    rows_for,
    sample_metrics,
)
from crystaljax.training.tasks import RewardedSamples


class Drawn(NamedTuple):
    """Samples, and how many of a space group are in a row."""

    tokens: WyckoffTokens
    repeat: int


class CrystalTask:
    """Crystals of a Wyckoff policy, rewarded; a `tasks.Task` whose prompts are space groups.

    Args:
      base: parameters whose samples tell how large crystals are.
      reward: judges crystals; see `judge`.
      sampling: how samples are drawn. The log-probabilities that are trained are the model's own:
        at another temperature rollouts are off-policy, and PPO only approximate. Under
        constraints they are of the policy given that the demands are met, ln p less the ln of the
        probability Z of that. PPO's ratios leave out how Z changes in the inner steps; the term
        with the gradient of ln Z vanishes as advantages average to zero. Samples count alike,
        whatever their `weight`, nearly equal unless the demands are rare.
      bounds: how rewards are made fit to be trained on, as far as not the reward's own say.
      reference: training structures, for the share of novel samples.
    """

    frozen = ()
    n_parts = 1

    def __init__(
        self,
        policy: WyckoffPolicy,
        base: Params,
        reward: Reward,
        sampling: SamplingConfig | None = None,
        bounds: RewardBounds | None = None,
        reference: StructureSet | None = None,
    ) -> None:
        self.policy, self.reward, self.reference = policy, reward, reference
        self.sampling = sampling or SamplingConfig()
        self.bounds = (bounds or UNBOUNDED).over(quantity_of(reward).bounds)
        self._base = base
        self._plans: dict[tuple[int, int], RowPlan] = {}
        self._mesh = make_mesh()

    @property
    def identity(self) -> dict[str, Any]:
        """The policy's."""
        return self.policy.identity

    def rollout(
        self,
        params: Params,
        n: int,
        seed: int,
        clock: Clock,
        repeat: int = 1,
        temperature_offset: float = 0.0,
    ) -> RewardedSamples:
        """n crystals; each space group is drawn for `repeat` samples in a row."""
        temperature = self.sampling.temperature + temperature_offset
        sampling = dataclasses.replace(self.sampling, temperature=temperature)
        with clock("sample"):
            tokens = self.policy.sample(params, n, seed, sampling, repeat).tokens
            decoded = self.policy.tokenization.decode(tokens)
        with clock("reward"):
            judged = judge(self.reward, decoded.crystals, decoded.ok)
        with clock("metrics"):
            value, metrics = prepare(judged, self.bounds)
            metrics |= sample_metrics(decoded.crystals, decoded.ok, self.reference)
        metrics["samples/temperature"] = temperature
        return RewardedSamples(
            Drawn(tokens, repeat), value, np.asarray(tokens.space_group), metrics, judged
        )

    def place(self, tree: Any) -> Any:
        """A copy on every device."""
        return jax.device_put(tree, replicated(self._mesh))

    def parts(self, samples: Drawn, rows: np.ndarray) -> Packed:
        """One micro-batch of packed rows."""
        key = len(rows), samples.repeat
        if key not in self._plans:
            self._plans[key] = rows_for(
                self.policy, self._base, len(rows), self.sampling, samples.repeat
            )
        packed = even(pack(samples.tokens[rows], self._plans[key]), self._mesh)
        only = jax.tree.map(lambda x: x[None], packed)
        return jax.device_put(only, parts_sharding(self._mesh))

    def log_probs(
        self, params: Params, frozen: Any, part: Packed, n_samples: int
    ) -> tuple[Array, Array]:
        """Of whole crystals [n, 1]: each is one action."""
        del frozen
        logp = self.policy.log_prob(params, part, n_samples).total[:, None]
        return logp, jnp.ones(logp.shape, bool)
