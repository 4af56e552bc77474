"""Memory of full fine-tuning by RL, and the number of devices that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import jax.numpy as jnp
from flax import nnx

from crystaljax.evaluation.report import Table
from crystaljax.models.llm.config import LlmConfig
from crystaljax.training.reinforce import ReinforceConfig

USABLE = 0.9
"""Share of a device's memory that arrays may take."""

MAX_DEVICES = 512


@dataclass(frozen=True)
class TuningMemory:
    """Memory of training all parameters of a language model by RL.

    Parameters, their float32 copy, gradients, the optimiser's state and the reference (the initial
    model) are sharded over the devices. Keys and values of sampling and activations are those of
    each device's own sequences, of which it has at least one.
    """

    config: LlmConfig
    rl: ReinforceConfig
    n_parts: int
    """Number of micro-batches of a rollout."""
    tokens: int
    """Largest number of tokens of a prompt with its response."""
    sampled: int
    """Number of sequences sampled at a time."""
    dtype: str = "bfloat16"

    def per_device(self, devices: int) -> dict[str, float]:
        """Bytes per device by purpose, and their "total"."""
        # Only here: the rows without a language model do without its packages.
        from crystaljax.models.llm.memory import memory_report

        rl = self.rl
        report = memory_report(
            _shapes(self.config, self.dtype),
            rl.optimizer.build(rl.n_steps),
            n_parts=self.n_parts,
            rows=-(-rl.batch_size // (self.n_parts * devices)),
            length=self.tokens,
            remat="all",
            sequences=-(-self.sampled // devices),
            slots=self.tokens,
        )
        found = {
            "reference": sum(report.weights.values()) / devices,
            "float32 copy of trained": report.masters / devices,
            "working copy of trained": report.working / devices,
            "gradients": report.gradients / devices,
            "optimiser": report.optimizer / devices,
            "keys and values": float(report.cache),
            "activations (estimate)": float(report.activations),
        }
        return found | {"total": sum(found.values())}

    def devices(self, memory: float = 80e9) -> int | None:
        """Smallest number of devices (a power of 2) of `memory` bytes; None above `MAX_DEVICES`."""
        n = 1
        while n <= MAX_DEVICES:
            if self.per_device(n)["total"] <= USABLE * memory:
                return n
            n *= 2
        return None

    def table(self, devices: int) -> Table:
        """Gigabytes on each device, for the report."""
        rows = [[name, f"{size / 1e9:.3g}"] for name, size in self.per_device(devices).items()]
        least = self.devices()
        needed = f"more than {MAX_DEVICES}" if least is None else str(least)
        return Table(
            f"Memory of RL of all parameters, in GB (10⁹ bytes) per device, on {devices} device(s);"
            f" number of devices of 80 GB needed: {needed}",
            [["", "GB"], *rows],
        )


@cache
def _shapes(config: LlmConfig, dtype: str) -> Any:
    """The model with shapes in place of arrays."""
    from crystaljax.models.llm.decoder import LanguageModel

    return nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0), jnp.dtype(dtype)))


def tuning_memory(policy: Any, setup: Any, rl: ReinforceConfig) -> TuningMemory | None:
    """Memory of training a policy by reward; None if it is no language model, or an adapter."""
    texts = getattr(policy, "texts", None)
    if texts is None or texts.has_adapters:
        return None
    new = setup.sampling.max_new_tokens or policy.metadata.max_new_tokens
    return TuningMemory(
        texts.config, rl, setup.n_parts, 2 * new, setup.sampling.batch_size, setup.dtype
    )
