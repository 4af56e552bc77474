"""Rotary angles against transformers, and what they are for."""

import jax
import numpy as np
import pytest
from llm_reference import LLAMA3, transformers

from crystaljax.models.llm.config import LlmConfig, RopeScaling
from crystaljax.models.llm.rotary import frequencies, rotate, rotation

STRETCHED = RopeScaling(4.0, 1.0, 4.0, 64)


@pytest.mark.parametrize("stretched", [False, True])
def test_frequencies_are_those_of_transformers(stretched: bool) -> None:
    rope = LLAMA3 if stretched else {"rope_type": "default", "rope_theta": 500.0}
    theirs = transformers.LlamaConfig(head_dim=64, rope_parameters=rope)
    embedding = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(theirs)
    config = LlmConfig(
        head_size=64, rope_theta=500.0, rope_scaling=STRETCHED if stretched else None
    )
    found = frequencies(config)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, embedding.inv_freq.numpy(), rtol=1e-6)


def test_products_depend_on_the_distance_alone() -> None:
    config = LlmConfig(head_size=16, rope_theta=100.0)
    x, y = np.random.default_rng(0).normal(size=(2, 1, 3, 16)).astype(np.float32)

    def product(i: int, j: int) -> jax.Array:
        turned = (rotate(z, rotation(np.array([at]), config)) for z, at in ((x, i), (y, j)))
        return (next(turned) * next(turned)).sum(-1)

    np.testing.assert_allclose(product(9, 4), product(25, 20), atol=1e-4)
    np.testing.assert_allclose(product(7, 7), (x * y).sum(-1), atol=1e-4)
    assert np.abs(product(9, 4) - product(9, 5)).max() > 1e-2
