"""Training by reward of a language model: completions of prompts, judged as texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from crystaljax.crystal import Array
from crystaljax.parallel import parts_sharding
from crystaljax.policies.text import Params, TextPolicy
from crystaljax.rewards.bounds import UNBOUNDED, RewardBounds, quantity_of
from crystaljax.rewards.completions import Completion, TextReward
from crystaljax.text.generation import GenerationConfig, TokenGrammar
from crystaljax.text.packing import (
    PackedTexts,
    RowPlan,
    TokenSequence,
    pack_micro_batches,
    plan_completions,
)
from crystaljax.training.rollouts import Clock, FlatRewards, judge, prepare
from crystaljax.training.tasks import RewardedSamples, part_size


class Prompt(NamedTuple):
    """A text to complete."""

    tokens: np.ndarray
    """int [n], e.g. from `Tokenizer.prompts` or `chat_prompts`."""
    fields: Mapping[str, str] = {}
    """Values it was made from, for the reward."""


class TextTask:
    """Completions of a language model, rewarded; a `tasks.Task`.

    Args:
      prompts: texts to complete. A rollout takes as many as it has room for, in a random order;
        when all were taken, it starts again.
      reward: judges completions; an item for which it raises is not ok.
      generation: settings of sampling. The log-probabilities that are trained are the model's own:
        at another temperature, with top-p or a grammar, rollouts are off-policy.
      bounds: bounds of the reward, and the penalty; by default the reward's own.
      n_parts: micro-batches that a batch is split into, to save memory.
    """

    def __init__(
        self,
        policy: TextPolicy,
        prompts: Sequence[Prompt],
        reward: TextReward,
        generation: GenerationConfig | None = None,
        bounds: RewardBounds | None = None,
        grammar: TokenGrammar | None = None,
        n_parts: int = 1,
    ) -> None:
        if not prompts:
            raise ValueError("no prompts: give at least one")
        self.policy, self.reward, self.grammar, self.n_parts = policy, reward, grammar, n_parts
        self.prompts = list(prompts)
        self.generation = generation or GenerationConfig()
        self._warn_if_flat = FlatRewards()
        self.bounds = (bounds or UNBOUNDED).over(quantity_of(reward).bounds)

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of the policy."""
        return self.policy.identity

    @property
    def frozen(self) -> Params:
        """The frozen part of the network."""
        return self.policy.frozen

    @property
    def memory(self) -> dict[str, np.ndarray]:
        """{}: rollouts do not change the task."""
        return {}

    def remember(self, memory: Mapping[str, np.ndarray]) -> None:
        """Do nothing: there is no memory."""

    def place(self, tree: Any) -> Any:
        """Place arrays on the mesh."""
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
        """Sample and judge n completions; each prompt has `repeat` in a row."""
        temperature = self.generation.temperature + temperature_offset
        generation = dataclasses.replace(self.generation, temperature=temperature)
        n_prompts = -(-n // repeat)
        order = np.random.default_rng(seed).permutation(len(self.prompts))
        chosen = np.resize(order, n_prompts)
        with clock("sample"):
            prompts = [self.prompts[i].tokens for i in chosen]
            drawn = self.policy.sample(params, prompts, seed, generation, repeat, self.grammar)
        asked = chosen[drawn.prompt][:n]
        with clock("reward"):
            answers = [
                Completion(self.prompts[i].fields, text, reason != "length")
                for i, text, reason in zip(asked, drawn.text, drawn.reason, strict=False)
            ]
            judged = judge(self.reward, answers, np.ones(len(answers), bool))
            value, metrics = prepare(judged, self.bounds)
            self._warn_if_flat(judged, value, self.bounds)
        sequences = [
            TokenSequence(np.concatenate([prompt, drawn.sequence(i)]), len(prompt))
            for i, prompt in enumerate(self.prompts[p].tokens for p in asked)
        ]
        metrics |= {
            "samples/temperature": temperature,
            "samples/tokens": float(drawn.length[:n].mean()),
            "samples/ended": float(np.mean([answer.whole for answer in answers])),
            "samples/unique": len({(i, x.text) for i, x in zip(asked, answers, strict=True)}) / n,
        }
        return RewardedSamples(sequences, value, asked, metrics, judged)

    def parts(self, samples: Sequence[TokenSequence], rows: np.ndarray) -> PackedTexts:
        """Micro-batches packed into the same rows."""
        size = part_size(len(rows), self)
        groups = [[samples[i] for i in part] for part in rows.reshape(self.n_parts, size)]
        packed = pack_micro_batches(groups, self._plan(size))
        return jax.device_put(packed, parts_sharding(self.policy.mesh))

    def _plan(self, size: int) -> RowPlan:
        """Rows for `size` samples. They do not depend on the samples, so that a continued run has
        the same ones."""
        shortest = min(len(prompt.tokens) for prompt in self.prompts)
        longest = max(len(prompt.tokens) for prompt in self.prompts)
        longest += self.generation.max_new_tokens
        width, n_devices = self.policy.config.width, self.policy.mesh.size
        return plan_completions(shortest, longest, size, width, n_devices)

    def log_probs(
        self, params: Params, frozen: Params, part: PackedTexts, n_samples: int
    ) -> tuple[Array, Array]:
        """Log-probabilities of the completions' tokens."""
        return self.policy.log_probs(params, frozen, part, n_samples)
