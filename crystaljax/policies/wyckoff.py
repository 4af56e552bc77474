"""Policies: a network with its tokenization, as something that samples and scores crystals."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from crystaljax.checkpoints import Metadata, load_metadata, load_weights, save_weights
from crystaljax.crystal import Array
from crystaljax.models.wyckoff.decoder import TokenRollout
from crystaljax.models.wyckoff.likelihood import LogProb, log_prob
from crystaljax.models.wyckoff.sampler import Sampler
from crystaljax.models.wyckoff.transformer import ModelConfig, WyckoffTransformer
from crystaljax.policies import base
from crystaljax.sampling import SamplingConfig
from crystaljax.tokenizations.packing import PackedTokens
from crystaljax.tokenizations.wyckoff import WyckoffTokenization

log = logging.getLogger(__name__)

Params = Any
Packed = tuple[PackedTokens, ...]


class WyckoffPolicy:
    """p(crystal | space group) by a Wyckoff transformer; parameters are passed in.

    Args:
      config: size of the network.
      space_group_counts: int [230], how often each group is to be prompted for (relative).
      element_counts: int [119], crystals of the training data with each element: those that it
        lacks are sampled only where they are asked for. All are if this is not known.
    """

    def __init__(
        self,
        config: ModelConfig,
        space_group_counts: Sequence[int] | np.ndarray,
        element_counts: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        self.config = config
        self.space_group_counts = np.asarray(space_group_counts)
        self.element_counts = None if element_counts is None else np.asarray(element_counts)
        self.tokenization = WyckoffTokenization(config.max_sites)
        model = nnx.eval_shape(lambda: WyckoffTransformer(config, nnx.Rngs(0)))
        self.graph, self.param_shapes = nnx.split(model)

    def init(self, seed: int) -> Params:
        """Random parameters."""
        return nnx.state(WyckoffTransformer(self.config, nnx.Rngs(seed)), nnx.Param)

    def model(self, params: Params) -> WyckoffTransformer:
        """The network with these parameters."""
        return nnx.merge(self.graph, params)

    def log_prob(
        self, params: Params, packed: Packed, n_crystals: int, key: Array | None = None
    ) -> LogProb:
        """log p of B = `n_crystals` packed crystals by part; a key switches dropout on."""
        return log_prob(self.model(params), packed, n_crystals, key)

    def sample(
        self,
        params: Params,
        n: int,
        seed: int,
        config: SamplingConfig | None = None,
        repeat: int = 1,
    ) -> TokenRollout:
        """n crystals with their log-probabilities; sample i depends on the seed and i alone.

        Space groups are drawn from the training data's distribution, each for `repeat` samples in
        a row. ValueError if the configuration asks for what cannot be.
        """
        config = config or SamplingConfig()
        sampling = base.SamplingConfig(
            config.temperature,
            config.top_p,
            config.max_candidates,
            batch_size=config.batch_size,
        )
        counts = self.space_group_counts, self.element_counts
        sampler = Sampler(self.graph, params, seed, sampling, *counts)
        return sampler.sample([config.condition] * -(-n // repeat), repeat)[:n]

    @property
    def metadata(self) -> Metadata:
        """What a checkpoint has to say about this policy."""
        elements = self.element_counts
        return Metadata(
            self.config,
            "wyckoff",
            [int(n) for n in self.space_group_counts],
            None if elements is None else [int(n) for n in elements],
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What runs that go on from each other must have in common."""
        described = dataclasses.asdict(self.metadata)
        return described.pop("model") | described

    def save(self, folder: str | Path, params: Params) -> None:
        """Write a released model, which `load_policy` reads."""
        save_weights(folder, params, self.metadata)


def load_policy(folder: str | Path) -> tuple[WyckoffPolicy, Params]:
    """A policy and its parameters from the folder of a released model.

    Errors: see `checkpoints.load_metadata` and `load_weights`.
    """
    metadata = load_metadata(folder)
    if metadata.element_counts is None:
        log.warning(
            "%s does not say which elements it was trained on: samples may have any", folder
        )
    policy = WyckoffPolicy(metadata.model, metadata.space_group_counts, metadata.element_counts)
    return policy, load_weights(folder, policy.param_shapes)
