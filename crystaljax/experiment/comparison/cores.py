"""Transformer cores of equal size for the hybrid Wyckoff sequence and for texts, and their cost.

Both cores have the same layers, heads and width, rotary positions, norms before attention and
feed-forward layers, and the same optimiser. What they cannot share: the Wyckoff transformer has
LayerNorms, biases and a plain GELU feed-forward layer, and projections of continuous inputs and
outputs; the text core (Llama's) has RMSNorms, no biases and a gated feed-forward layer, of a
hidden width that makes the two equal in parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from flax import nnx

from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.wyckoff.transformer import ModelConfig, WyckoffTransformer
from crystaljax.ranges import at_least, check

TOLERANCE = 0.03
"""Relative difference of non-embedding parameters that counts as equal."""

ASPECT = 32
"""Width divided by the number of layers, of a core that is chosen by its size."""

TRAINING = 3
"""Floating-point operations of a training step, in multiples of its forward pass."""

N_LIKELY = 20
"""Cores whose parameters are counted, to find one of a given size."""

_STEP = 8
"""Hidden widths of feed-forward layers are multiples of this."""


@dataclass(frozen=True)
class CoreConfig:
    """A transformer core; its width is heads times head size."""

    n_layers: int = 4
    """Blocks."""
    n_heads: int = 4
    """Attention heads."""
    head_size: int = 32
    """Width of a head."""

    def __post_init__(self) -> None:
        one = at_least(1)
        check(self, n_layers=one, n_heads=one, head_size=at_least(2))

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.n_heads * self.head_size


class Cores(NamedTuple):
    """Networks of equally many non-embedding parameters."""

    wyckoff: ModelConfig
    text: LlmConfig
    """The vocabulary is set later; the parameters that are compared do not depend on it."""


def core_of_size(n_parameters: int, head_size: int = 32) -> CoreConfig:
    """The core whose number of non-embedding parameters is nearest to `n_parameters`.

    Its width is about `ASPECT` times its layers. ValueError for a size that no such core has.
    """
    cores = [
        CoreConfig(n_layers, n_heads, head_size)
        for n_layers in range(1, 49)
        for n_heads in range(1, 129)
        if ASPECT / 2 <= n_heads * head_size / n_layers <= 2 * ASPECT
    ]

    def distance(core: CoreConfig, size: int) -> float:
        shape = abs(np.log(core.width / core.n_layers / ASPECT))
        return abs(float(np.log(size / n_parameters))) + 0.05 * float(shape)

    likely = sorted(cores, key=lambda core: distance(core, 12 * core.n_layers * core.width**2))
    size = {core: non_embedding(_wyckoff(core, 1)) for core in likely[:N_LIKELY]}
    best = min(size, key=lambda core: distance(core, size[core]))
    if not 0.5 < size[best] / n_parameters < 2:
        raise ValueError(f"no core of {n_parameters} parameters: the nearest has {size[best]}")
    return best


def _wyckoff(core: CoreConfig, max_sites: int) -> ModelConfig:
    """The Wyckoff transformer with a core."""
    return ModelConfig(
        n_layers=core.n_layers,
        n_heads=core.n_heads,
        head_size=core.head_size,
        width=core.width,
        max_sites=max_sites,
        dropout=0.0,
    )


def equal_cores(core: CoreConfig, max_sites: int, max_length: int) -> Cores:
    """Networks for the hybrid sequence and for texts with the same core.

    Args:
      max_sites: sites of the largest crystal.
      max_length: tokens of the longest text.

    ValueError if their non-embedding parameters differ by more than `TOLERANCE`.
    """
    wyckoff = _wyckoff(core, max_sites)
    target = non_embedding(wyckoff)

    def text(mlp_width: int) -> LlmConfig:
        return LlmConfig(
            width=core.width,
            mlp_width=mlp_width,
            n_layers=core.n_layers,
            n_heads=core.n_heads,
            n_kv_heads=core.n_heads,
            head_size=core.head_size,
            max_length=max_length,
        )

    fixed = non_embedding(text(_STEP))
    slope = 3 * core.width * core.n_layers
    more = max(0, round((target - fixed) / (_STEP * slope)))
    cores = Cores(wyckoff, text(_STEP * (1 + more)))
    require_equal(cores)
    return cores


def require_equal(cores: Cores) -> None:
    """ValueError if the non-embedding parameters differ by more than `TOLERANCE`."""
    sizes = non_embedding(cores.wyckoff), non_embedding(cores.text)
    if abs(sizes[1] - sizes[0]) > TOLERANCE * min(sizes):
        raise ValueError(
            f"{sizes[0]} non-embedding parameters of the Wyckoff transformer and {sizes[1]} of the"
            f" text core differ by more than {TOLERANCE:.0%}: take a wider core"
        )


def parameters(config: ModelConfig | LlmConfig) -> dict[str, int]:
    """Number of parameters of a network by name of the array, counted."""
    return dict(_parameters(config))


@cache
def _parameters(config: ModelConfig | LlmConfig) -> tuple[tuple[str, int], ...]:
    network = WyckoffTransformer if isinstance(config, ModelConfig) else LanguageModel
    made = nnx.eval_shape(lambda: network(config, nnx.Rngs(0)))  # type: ignore[arg-type]
    flat = nnx.to_flat_state(nnx.state(made, nnx.Param))
    return tuple((".".join(map(str, path)), int(np.prod(leaf.shape))) for path, leaf in flat)


def non_embedding(config: ModelConfig | LlmConfig) -> int:
    """Number of parameters outside look-up tables of symbols.

    The tables are those of tokens, or of space groups, letters and elements. The text core's last
    layer is the transpose of its table, and so is not counted; the Wyckoff transformer's is.
    """
    return sum(n for name, n in parameters(config).items() if not name.endswith("embedding"))


def total(config: ModelConfig | LlmConfig) -> int:
    """All parameters."""
    return sum(parameters(config).values())


def training_flops(config: ModelConfig | LlmConfig, lengths: np.ndarray) -> float:
    """Mean floating-point operations of training on a sequence, of `lengths` (int [N]) tokens.

    6 for each parameter and token (Kaplan et al., arXiv 2001.08361); the last layer counts as
    parameters. Attention adds 6 n² times layers times the width of all heads, for n tokens: half
    the cost of full attention, as it is causal. Padding and recomputation for the gradient are not
    counted.
    """
    n = non_embedding(config)
    if isinstance(config, LlmConfig):
        n += config.width * config.vocabulary
    lengths = np.asarray(lengths, np.float64)
    inner = config.n_layers * config.n_heads * config.head_size
    forward = 2 * n * lengths.mean() + 2 * inner * (lengths**2).mean()
    return float(TRAINING * forward)
