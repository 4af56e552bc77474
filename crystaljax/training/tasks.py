"""Tasks: the interface of training by reward, the same for a Wyckoff transformer and an LLM.

A task is a policy with its prompts and its reward. It draws and judges samples, and gives their
log-probabilities. B samples are split into A micro-batches of the same shapes, whose gradients are
accumulated; their arrays have A on the leading axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array
from crystaljax.rewards.base import RewardBatch
from crystaljax.training.rollouts import Clock

Params = Any
"""The arrays that are trained."""

LogProbs = Callable[[Params, Any, Any], tuple[Array, Array]]
"""Parameters, frozen arrays and a micro-batch of b samples -> log-probabilities of their actions
float [b, T], and which are actions, bool [b, T]."""


class RewardedSamples(NamedTuple):
    """B samples and their rewards."""

    samples: Any
    """Sequences, of which `Task.parts` takes rows."""
    reward: np.ndarray
    """float64 [B]: rewards to train on."""
    prompt: np.ndarray
    """int [B]: samples of the same prompt have the same number."""
    metrics: dict[str, float]
    judged: RewardBatch
    """[B]: the unbounded rewards, and which samples could not be judged or were not believed."""
    columns: Mapping[str, np.ndarray] = {}
    """[B] each: further properties of the samples, such as which are novel."""


class Task(Protocol):
    """A policy, its prompts and its reward."""

    n_parts: int
    """A: micro-batches that a batch is split into."""

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that a continued run must share with the first one."""

    @property
    def frozen(self) -> Any:
        """Frozen arrays of the network, on the devices."""

    @property
    def memory(self) -> dict[str, np.ndarray]:
        """State of the task after the rollouts so far, as arrays for checkpoints; {} if there is
        none.

        They are copies; shapes may grow, and none is empty.
        """

    def remember(self, memory: Mapping[str, np.ndarray]) -> None:
        """Restore the memory of a checkpoint; {} for a new task."""

    def rollout(
        self,
        params: Params,
        n: int,
        seed: int,
        clock: Clock,
        repeat: int = 1,
        temperature_offset: float = 0.0,
    ) -> RewardedSamples:
        """Draw and judge n samples, each prompt `repeat` times in a row; the offset is added to the
        temperature.

        State that a rollout changes is in `memory`.
        """

    def place(self, tree: Any) -> Any:
        """Parameters, or a state that holds them, on the devices as training wants them."""

    def parts(self, samples: Any, rows: np.ndarray) -> Any:
        """Micro-batches on the devices of samples `rows` (int [n], n a multiple of A), in order."""

    def log_probs(
        self, params: Params, frozen: Any, part: Any, n_samples: int
    ) -> tuple[Array, Array]:
        """`LogProbs` of a micro-batch of `n_samples` samples."""


def part_size(n: int, task: Task) -> int:
    """Samples in a micro-batch; ValueError if n cannot be split."""
    if n % task.n_parts:
        raise ValueError(f"batches of {n} samples cannot be split into {task.n_parts} of one size")
    return n // task.n_parts


def over_parts(function: Callable[[Any], Any], parts: Any) -> Any:
    """`function` of every micro-batch; results with A on the leading axis."""
    if _count(parts) == 1:
        found = function(jax.tree.map(lambda x: x[0], parts))
        return jax.tree.map(lambda x: x[None], found)
    return jax.lax.map(function, parts)


def mean_over_parts(function: Callable[[Any], Any], parts: Any) -> Any:
    """Mean of `function` (a tree of float arrays) over the micro-batches, one at a time."""
    n_parts = _count(parts)
    first = jax.tree.map(lambda x: x[0], parts)
    if n_parts == 1:
        return function(first)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(part)), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, first))
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / n_parts, total)


def sequence_log_probs(found: tuple[Array, Array]) -> Array:
    """float [...]: of whole sequences, from those of their actions [..., T]."""
    logp, is_action = found
    return jnp.where(is_action, logp, 0).sum(axis=-1)


def _count(parts: Any) -> int:
    return jax.tree.leaves(parts)[0].shape[0]
