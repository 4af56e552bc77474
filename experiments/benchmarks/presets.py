"""Model sizes of the benchmarks."""

from __future__ import annotations

from typing import Literal

from crystaljax.models.wyckoff.transformer import ModelConfig

Preset = Literal["two-layer", "published"]

MODELS: dict[Preset, ModelConfig] = {
    "two-layer": ModelConfig(n_layers=2),
    "published": ModelConfig(),
}
