"""Adapters on a whole model: where they are, what is trained, merging."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.linear import AdapterParam
from crystaljax.models.llm.lora import (
    LoraConfig,
    adapters,
    add_lora,
    count_parameters,
    merge_lora,
    projections,
    remove_lora,
    trained_filter,
)
from crystaljax.models.llm.quantization import quantize

CONFIG = LlmConfig(
    vocabulary=61, width=32, mlp_width=48, n_layers=2, n_heads=4, n_kv_heads=2, head_size=8
)
TOKENS = np.random.default_rng(0).integers(0, 61, (2, 9))


def small(seed: int = 0) -> LanguageModel:
    model = LanguageModel(CONFIG, nnx.Rngs(seed))
    for layer in projections(model).values():
        layer.kernel[...] = 10 * layer.kernel[...]  # so that every layer matters
    return model


@jax.jit
def logits(model: LanguageModel) -> jax.Array:
    position = jnp.broadcast_to(jnp.arange(9), TOKENS.shape)
    return model.logits(model.hidden(jnp.asarray(TOKENS), position, jnp.ones_like(position)))


def randomize(model: LanguageModel, seed: int = 3) -> None:
    rngs = nnx.Rngs(seed)
    for lora in adapters(model).values():
        lora.b[...] = 0.1 * jax.random.normal(rngs.params(), lora.b.shape)


def test_adapters_are_on_every_target_and_change_nothing_yet() -> None:
    model = small()
    before = logits(model)
    add_lora(model, LoraConfig(rank=3, targets=("k_proj", "down_proj")), nnx.Rngs(0))
    expected = {("blocks", i, "attention", "k_proj") for i in range(2)}
    expected |= {("blocks", i, "mlp", "down_proj") for i in range(2)}
    assert adapters(model).keys() == expected
    np.testing.assert_array_equal(logits(model), before)
    first, second = (adapters(model)["blocks", i, "attention", "k_proj"].a[...] for i in (0, 1))
    assert np.all(first != second)


def test_what_is_trained() -> None:
    model = small()
    assert trained_filter(model) is nnx.Param
    everything = sum(x.size for x in jax.tree.leaves(nnx.state(model)))
    assert count_parameters(model) == (everything, everything)
    quantize(model, "nf4", 16)
    assert count_parameters(model)[1] == everything
    with pytest.raises(ValueError, match="give it adapters"):
        trained_filter(model)
    add_lora(model, LoraConfig(rank=2), nnx.Rngs(0))
    assert trained_filter(model) is AdapterParam
    n = 2 * 2 * ((32 + 32) + (32 + 16))
    assert count_parameters(model) == (n, everything + n)
    assert len(jax.tree.leaves(nnx.state(model, AdapterParam))) == 8


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_quantisation_before_and_after_adapters_is_the_same(form: str) -> None:
    results = []
    for order in (0, 1):
        model = small()
        for step in (order, 1 - order):
            if step == 0:
                add_lora(model, LoraConfig(rank=2), nnx.Rngs(5))
            else:
                quantize(model, form, 16)
        randomize(model)
        assert len(adapters(model)) == 4
        with_adapters = logits(model)
        graph, factors, rest = nnx.split(model, trained_filter(model), ...)
        slope = jax.grad(lambda f: logits(nnx.merge(graph, f, rest))[..., 0].sum())(factors)  # noqa: B023
        assert all(np.any(x != 0) for x in jax.tree.leaves(slope))
        remove_lora(model)
        assert not adapters(model)
        assert np.abs(logits(model) - with_adapters).max() > 0.1
        results.append((with_adapters, logits(model), slope))
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_merged_is_unmerged(caplog: pytest.LogCaptureFixture) -> None:
    model = small()
    shape = jax.tree.map(jnp.shape, nnx.state(model))
    add_lora(model, LoraConfig(rank=2, targets=("q_proj", "up_proj")), nnx.Rngs(0))
    randomize(model)
    before = logits(model)
    merge_lora(model)
    np.testing.assert_allclose(logits(model), before, atol=2e-4)
    assert jax.tree.map(jnp.shape, nnx.state(model)) == shape
    assert not caplog.records


def test_merging_into_a_quantised_base_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = small()
    quantize(model, "int8")
    add_lora(model, LoraConfig(rank=2), nnx.Rngs(0))
    randomize(model)
    before = logits(model)
    with caplog.at_level(logging.WARNING):
        merge_lora(model)
    assert "4 quantised kernels became plain ones of float32" in caplog.text
    np.testing.assert_allclose(logits(model), before, atol=2e-4)


@pytest.mark.parametrize("targets", [("q_proj", "query"), ("head",), ()])
def test_unknown_targets(targets: tuple[str, ...]) -> None:
    model = small()
    with pytest.raises(ValueError, match=r"down_proj.*gate_proj.*v_proj"):
        add_lora(model, LoraConfig(targets=targets), nnx.Rngs(0))
    assert not adapters(model)


def test_rank_below_one_and_second_adapters() -> None:
    model = small()
    with pytest.raises(ValueError, match="rank of LoRA is 0"):
        add_lora(model, LoraConfig(rank=0), nnx.Rngs(0))
    add_lora(model, LoraConfig(), nnx.Rngs(0))
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(model, LoraConfig(), nnx.Rngs(0))
