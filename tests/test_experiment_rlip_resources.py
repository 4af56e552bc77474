"""Memory and operations of RLIP, against closed forms."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("tokenizers", reason="needs the extra llm")

import jax
import jax.numpy as jnp
from flax import nnx
from qwen_shape import QWEN_7B
from scripts import load_script
from small_crystal_text import crystal_text_policy

from crystaljax.experiment.rlip.resources import BANDWIDTH, FLOPS, PAIRS, hours, resources
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.lora import LoraConfig, add_lora, trained_filter
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.text import TextPolicy
from crystaljax.roofline import Work
from crystaljax.training.rlip import RlipConfig

BATCH, NEW, WANTED, EXAMINED = 8, 20, 100, 60


SAMPLING = SamplingConfig(batch_size=BATCH, max_new_tokens=NEW)
RLIP = RlipConfig(n_iterations=3, n_unconditional=WANTED, n_per_group=0, batch_size=4)


def test_operations_are_those_of_the_products() -> None:
    policy = crystal_text_policy()
    config = policy.texts.config
    memory, time = resources(policy, SAMPLING, 2, RLIP, EXAMINED)
    numbers = dict(memory.rows[1:])
    parameters = sum(x.size for x in jax.tree.leaves(policy.texts.start))
    assert float(numbers["float32 copy of trained"]) == pytest.approx(
        4 * parameters / 1e9, abs=5e-4
    )
    matrices = [x.size for x in jax.tree.leaves(policy.texts.start) if x.ndim > 1]
    looked_up = config.vocabulary * config.width
    if config.tied:
        matrices.append(looked_up)
    weights = 2 * (sum(matrices) - looked_up)
    attention = 4 * 2 * NEW * config.n_heads * config.head_size * config.n_layers
    steps = -(-WANTED // BATCH) * NEW
    expected = steps * BATCH * (weights + attention)
    sampled, scored, learning, examined, all_of_it = time.rows[1:]
    assert float(sampled[1]) == pytest.approx(expected / 1e15, rel=0.01)
    # All samples are scored under the policy and the base, in batches of 8.
    tokens = 2 * 8 * -(-WANTED // 8) * 2 * NEW
    assert float(scored[1]) == pytest.approx(tokens * (weights + attention) / 1e15, rel=0.3)
    # Forward, and backward, which is twice that.
    tokens = 2 * PAIRS * 2 * NEW
    assert float(learning[1]) == pytest.approx(3 * tokens * (weights + attention) / 1e15, rel=0.3)
    batches = -(-EXAMINED // BATCH) / -(-WANTED // BATCH)
    for i in (1, 2, 3):
        assert float(examined[i]) == pytest.approx(batches * float(sampled[i]), rel=0.01)
        an_iteration = sum(float(x[i]) for x in (sampled, scored, learning))
        whole = RLIP.n_iterations * an_iteration + float(examined[i])
        assert float(all_of_it[i]) == pytest.approx(whole, rel=0.01)


def test_memory_is_that_of_what_the_model_computes_again() -> None:
    policy = crystal_text_policy()
    found = {}
    for policy.texts.remat in ("none", "products", "all"):
        memory, _ = resources(policy, replace(SAMPLING, max_new_tokens=500), 1, RLIP, EXAMINED)
        found[policy.texts.remat] = float(dict(memory.rows[1:])["activations (estimate)"])
    assert found["none"] > found["products"] > found["all"] > 0


@pytest.mark.slow
def test_the_paper_s_preset_by_hand() -> None:
    """Qwen2.5-7B in NF4 with an adapter: the numbers of experiments/README.md, from shapes."""
    pytest.importorskip("qwix")
    config = load_script("plaid.py").PAPER
    exam, setup = config.exam.of(config.rlip), config.setup
    assert exam.n_per_group * len(exam.every_group) == 13_000
    examined = setup.n_samples + 6 * exam.n_per_iteration + 13_000
    policy = SimpleNamespace(texts=qwen_7b())
    memory, time = resources(policy, setup.sampling, setup.n_parts, config.rlip, examined)
    size = {name: 1e9 * float(x) for name, x in memory.rows[1:]}
    products = 7_615_616_512 - 2 * 152_064 * 3584  # parameters of its card, without embeddings
    assert size["weights, nf4"] == pytest.approx(products / 2, rel=0.01)
    assert size["KV cache"] == pytest.approx(256 * 1000 * 28 * 2 * 4 * 128 * 2, rel=0.01)
    assert size["total"] == pytest.approx(22.8e9, rel=0.01)
    token = 2 * (products + 152_064 * 3584) + 4 * 1000 * 3584 * 28
    sampled, scored, _, examining, all_of_it = time.rows[1:]
    assert float(sampled[1]) == pytest.approx(67 * 256 * 500 * token / 1e15, rel=0.02)
    assert float(scored[1]) == pytest.approx(2 * 17_024 * 1000 * token / 1e15, rel=0.05)
    assert "83000 texts" in examining[0] and float(examining[3]) == pytest.approx(0.43, abs=0.01)
    assert float(all_of_it[3]) == pytest.approx(2.17, abs=0.01)


def qwen_7b() -> TextPolicy:
    """The policy with shapes in place of arrays."""
    from crystaljax.models.llm.quantization import quantize

    def build() -> LanguageModel:
        model = LanguageModel(QWEN_7B, nnx.Rngs(0), jnp.bfloat16)
        quantize(model, "nf4")
        add_lora(model, LoraConfig(rank=8, alpha=32.0), nnx.Rngs(1))
        return model

    model = nnx.eval_shape(build)
    texts = object.__new__(TextPolicy)
    texts.config, texts.remat, texts.dropout = QWEN_7B, "all", 0.0
    texts.graph, texts.start, texts.frozen = nnx.split(model, trained_filter(model), ...)
    return texts


def test_the_slower_of_arithmetic_and_memory_counts() -> None:
    assert hours(Work({"bfloat16": 3600 * FLOPS}, 0.0)) == pytest.approx(1)
    assert hours(Work({"bfloat16": FLOPS}, 7200 * BANDWIDTH)) == pytest.approx(2)


def test_other_policies_have_no_table() -> None:
    assert resources(object(), SamplingConfig(), 1, RlipConfig(), EXAMINED) == []
