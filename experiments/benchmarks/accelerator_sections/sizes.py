"""Problem sizes: large for an accelerator, tiny for a check on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from presets import MODELS

from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.wyckoff.transformer import ModelConfig


@dataclass(frozen=True)
class LlmSize:
    """A language model to time."""

    config: LlmConfig
    seconds: float
    """Estimate of the least time in seconds: its depth is compiled three times."""


@dataclass(frozen=True)
class Size:
    """Problem sizes of the sections."""

    product: int
    """Numbers of rows and columns of the multiplied matrices."""
    copied: int
    """Number of copied bytes."""
    models: Mapping[str, ModelConfig]
    """Wyckoff transformers."""
    batches: tuple[int, ...]
    """Crystals in a training step of the largest of them; the first for the others."""
    sampled: int
    """Crystals sampled at a time, and in a rollout."""
    epochs: int
    """Of pretraining at most, however much time there is."""
    structures: int
    """Structures for a potential."""
    relaxation_steps: int
    llms: Mapping[str, LlmSize]
    """Language models, the largest first; the first one that fits is timed."""
    sequences: int
    """Number of texts at a time."""
    prompt: int
    """Length in tokens of prefilled texts and of training texts."""
    new: int
    """Number of tokens sampled after a short prompt."""
    dtype: str = field(default="bfloat16")
    """Of the language model."""


def _llama(width: int, mlp: int, layers: int, heads: int, head_size: int, tied: bool) -> LlmConfig:
    """Configuration with Llama 3's design (its vocabulary, 8 heads of keys and values)."""
    return LlmConfig(
        vocabulary=128256,
        width=width,
        mlp_width=mlp,
        n_layers=layers,
        n_heads=heads,
        n_kv_heads=8,
        head_size=head_size,
        tied=tied,
        rope_theta=5e5,
        max_length=8192,
    )


TINY = Size(
    product=512,
    copied=2**27,
    models={"published": ModelConfig(n_layers=2, n_heads=2, head_size=8, width=16, max_sites=21)},
    batches=(32,),
    sampled=32,
    epochs=1,
    structures=8,
    relaxation_steps=20,
    llms={"1 M": LlmSize(LlmConfig(), 0.0)},
    sequences=4,
    prompt=64,
    new=16,
    dtype="float32",
)
"""For any CPU within a minute; its network of the published design is a very small one."""

FULL = Size(
    product=8192,
    copied=2**30,
    models={str(name): config for name, config in MODELS.items()},
    batches=(100, 2000),
    sampled=1000,
    epochs=1000,
    structures=512,
    relaxation_steps=100,
    llms={
        "8 B": LlmSize(_llama(4096, 14336, 32, 32, 128, tied=False), 200.0),
        "3 B": LlmSize(_llama(3072, 8192, 28, 24, 128, tied=True), 140.0),
        "1 B": LlmSize(_llama(2048, 8192, 16, 32, 64, tied=True), 60.0),
        "0.2 B": LlmSize(_llama(1024, 2816, 8, 16, 64, tied=True), 0.0),
    },
    sequences=32,
    prompt=512,
    new=128,
)
"""For an accelerator of 16 GB or more."""

SIZES = {"tiny": TINY, "full": FULL}
