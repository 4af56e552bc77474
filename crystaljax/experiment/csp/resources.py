"""Memory of full fine-tuning by reward, and the devices that it takes."""

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
    """Bytes that training all parameters of a language model by reward takes.

    Parameters, their float32 copy, gradients and the optimiser's state are shared by the devices;
    so is the model as it started, the reference, which is a second full copy. The keys and values
    of sampling and the activations are of each device's own sequences: where these do not suffice
    for all devices, a device has one.
    """

    config: LlmConfig
    rl: ReinforceConfig
    n_parts: int
    """Micro-batches of a rollout."""
    tokens: int
    """Of a prompt with its response at most."""
    sampled: int
    """Sequences that are sampled at a time."""
    dtype: str = "bfloat16"

    def per_device(self, devices: int) -> dict[str, float]:
        """Bytes on each of so many devices by purpose, and their "total"."""
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
        """The least power of 2 of devices of so many bytes that suffice; None if none does."""
        n = 1
        while n <= MAX_DEVICES:
            if self.per_device(n)["total"] <= USABLE * memory:
                return n
            n *= 2
        return None

    def table(self, devices: int) -> Table:
        """Gigabytes on each device, for the report."""
        rows = [[name, f"{size / 1e9:.1f}"] for name, size in self.per_device(devices).items()]
        least = self.devices()
        said = "more than there may be" if least is None else str(least)
        return Table(
            f"Memory of RL of all parameters, GB (10⁹ bytes) on each of {devices} devices that"
            f" share them; devices of 80 GB needed: {said}",
            [["", "GB"], *rows],
        )


@cache
def _shapes(config: LlmConfig, dtype: str) -> Any:
    """The model with the shapes of its arrays, which are not made."""
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
