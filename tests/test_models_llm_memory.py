"""Memory by shapes against what arrays take, and for a model of eight billion parameters."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from small_policy import triples
from small_text import words

from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.likelihood import token_log_probs
from crystaljax.models.llm.linear import AdapterParam
from crystaljax.models.llm.lora import LoraConfig, add_lora, trained_filter
from crystaljax.models.llm.memory import memory_report
from crystaljax.models.llm.quantization import quantize
from crystaljax.policies.text import TextPolicy
from crystaljax.text.batches import TextBatches
from crystaljax.training.optimizer import TrainState
from crystaljax.training.sft import SftConfig, make_update

SMALL = {"vocabulary": 512, "width": 128, "mlp_width": 256, "n_heads": 4, "n_kv_heads": 2}
LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": False,
}
"""config.json of Llama-3.1-8B."""


def build(config: LlmConfig, form: Any = None, lora: bool = True, dtype: Any = jnp.float32) -> Any:
    model = LanguageModel(config, nnx.Rngs(0), dtype)
    if form:
        quantize(model, form)
    if lora:
        add_lora(model, LoraConfig(), nnx.Rngs(1))
    return model


def n_bytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(("form", "lora"), [("int8", True), ("nf4", True), (None, False)])
def test_counts_are_those_of_arrays(form: str | None, lora: bool) -> None:
    config = LlmConfig(**SMALL, n_layers=2, tied=False)
    model = build(config, form, lora, jnp.bfloat16)
    optimizer = optax.adamw(1e-3)
    trained = nnx.state(model, trained_filter(model))
    cache = model.empty_cache(3, 8)
    report = memory_report(model, optimizer, sequences=3, slots=8)
    assert sum(report.weights.values()) + report.adapters == n_bytes(nnx.state(model))
    assert report.adapters == n_bytes(nnx.state(model, AdapterParam))
    masters = jax.tree.map(lambda x: x.astype(jnp.float32), nnx.to_pure_dict(trained))
    assert report.gradients == report.masters == n_bytes(masters)
    assert report.working == (0 if lora else n_bytes(trained))
    assert report.optimizer == n_bytes(optimizer.init(masters))
    twice = memory_report(model, optimizer, averaged=True, sequences=3, slots=8)
    assert twice.total - report.total == report.masters
    assert report.cache == n_bytes(cache) + n_bytes(jnp.zeros((3, 8), jnp.int32))
    assert report.activations == 0
    if form:
        kernels = 2 * (128 * (128 + 64 + 64 + 128) + 3 * 128 * 256)
        assert report.weights[form] == (kernels if form == "int8" else kernels / 2)
    abstract = nnx.eval_shape(lambda: build(config, form, lora, jnp.bfloat16))
    assert memory_report(abstract, optimizer, sequences=3, slots=8) == report


def gradient(model: Any, remat: Any) -> tuple[Any, Any]:
    graph, trained, rest = nnx.split(model, trained_filter(model), ...)

    def loss(trained: Any, rest: Any, tokens: Any) -> Any:
        position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        rows = SimpleNamespace(
            tokens=tokens,
            position=position,
            trained=position > 0,
            segment=jnp.ones_like(position),
        )
        return token_log_probs(nnx.merge(graph, trained, rest), rows, None, remat).sum()

    return loss, (trained, rest)


@pytest.mark.parametrize("remat", ["all", "products"])
@pytest.mark.parametrize(("form", "lora"), [("int8", True), (None, False)])
def test_what_is_kept_of_a_block(remat: Any, form: str | None, lora: bool) -> None:
    """What one more block keeps, as automatic differentiation has it, near the estimate."""

    def kept(n_layers: int) -> tuple[int, int]:
        config = LlmConfig(**SMALL, n_layers=n_layers)
        model = nnx.eval_shape(lambda: build(config, form, lora))
        loss, (trained, rest) = gradient(model, remat)

        def pullback(trained: Any, rest: Any, tokens: Any) -> Any:
            return jax.vjp(lambda x: loss(x, rest, tokens), trained)[1]

        def found(rows: int) -> int:
            tokens = jax.ShapeDtypeStruct((rows, 64), jnp.int32)
            kept = jax.eval_shape(pullback, trained, rest, tokens)
            return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))

        optimizer = optax.sgd(1e-3)
        sizes = [
            memory_report(model, optimizer, rows=rows, length=64, remat=remat).activations
            for rows in (1, 3)
        ]
        return found(3) - found(1), sizes[1] - sizes[0]

    (found_2, estimated_2), (found_4, estimated_4) = kept(2), kept(4)
    found, estimated = found_4 - found_2, estimated_4 - estimated_2
    assert 0.8 * found < estimated < 1.3 * found


def test_activations_without_remat_are_near_those_of_xla() -> None:
    model = nnx.eval_shape(lambda: build(LlmConfig(**SMALL, n_layers=4), "int8"))
    loss, state = gradient(model, "none")
    tokens = jax.ShapeDtypeStruct((2, 256), jnp.int32)
    compiled = jax.jit(jax.grad(loss)).lower(*state, tokens).compile()
    needed = compiled.memory_analysis().temp_size_in_bytes
    estimate = memory_report(model, optax.sgd(1e-3), rows=2, length=256, remat="none").activations
    assert needed < estimate < 2 * needed


@pytest.mark.slow
@pytest.mark.parametrize("n_parts", [1, 4])
def test_all_of_a_training_step_is_near_what_xla_takes(n_parts: int) -> None:
    """Arguments, results and temporaries of the compiled update of all parameters."""
    config = LlmConfig(**SMALL, n_layers=2)
    policy = TextPolicy(build(config, lora=False), words(), remat="all")
    texts = TextBatches([[text] for text in triples(8)], 8, 0, config.width, n_parts)
    optimizer = optax.adamw(1e-3)
    state = TrainState.create(policy.start, optimizer, averaged=False)
    rows = texts.packed(0)
    update = make_update(policy, optimizer, SftConfig(batch_size=8, n_parts=n_parts))
    found = update.lower(state, policy.frozen, rows).compile().memory_analysis()
    needed = n_bytes(policy.start) + found.argument_size_in_bytes + found.temp_size_in_bytes
    needed += found.output_size_in_bytes - found.alias_size_in_bytes
    ((_, n_rows, length),) = (block.tokens.shape for block in rows)
    report = memory_report(
        policy.model(policy.start), optimizer, n_parts=n_parts, rows=n_rows, length=length
    )
    assert 0.95 * needed < report.total < 1.25 * needed


def test_eight_billion_parameters_fit_24_gb() -> None:
    config = LlmConfig.from_hf(LLAMA_8B)
    model = nnx.eval_shape(lambda: build(config, "int8", dtype=jnp.bfloat16))
    report = memory_report(model, optax.adamw(1e-4), rows=4, length=1024, sequences=16, slots=1024)
    assert report.trained == 3_407_872
    assert report.parameters - report.trained == 8_030_261_248  # as published
    assert round(100 * report.trained_fraction, 3) == 0.042
    assert report.weights["int8"] == 6_979_321_856
    assert report.optimizer == 8 * report.trained + 4
    assert report.cache == 2 * 32 * 16 * 8 * 1024 * 128 * 2 + 16 * 1024 * 4
    assert report.total < 24e9
    assert f"{report.total / 1e9:.3f} GB" in str(report)
    assert "3.408 M of 8033.7 M (0.042 %)" in str(report)
