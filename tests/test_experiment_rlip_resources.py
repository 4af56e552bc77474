"""Memory and operations of RLIP, against closed forms."""

from __future__ import annotations

import pytest

pytest.importorskip("tokenizers", reason="needs the extra llm")

import jax
from small_crystal_text import crystal_text_policy

from crystaljax.experiment.rlip.resources import BANDWIDTH, FLOPS, PAIRS, hours, resources
from crystaljax.policies.base import SamplingConfig
from crystaljax.roofline import Work
from crystaljax.training.rlip import RlipConfig

BATCH, NEW, WANTED = 8, 20, 100


def test_operations_are_those_of_the_products() -> None:
    policy = crystal_text_policy()
    config = policy.texts.config
    sampling = SamplingConfig(batch_size=BATCH, max_new_tokens=NEW)
    rlip = RlipConfig(n_unconditional=WANTED, n_per_group=0, batch_size=4)
    memory, time = resources(policy, sampling, 2, rlip)
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
    sampled, learning = time.rows[1:]
    assert float(sampled[1]) == pytest.approx(expected / 1e15, rel=0.01)
    # Forward, under the policy and the reference; backward, twice that, and forward once again.
    tokens = 2 * PAIRS * 2 * NEW
    assert float(learning[1]) == pytest.approx(5 * tokens * (weights + attention) / 1e15, rel=0.3)


def test_the_slower_of_arithmetic_and_memory_counts() -> None:
    assert hours(Work({"bfloat16": 3600 * FLOPS}, 0.0)) == pytest.approx(1)
    assert hours(Work({"bfloat16": FLOPS}, 7200 * BANDWIDTH)) == pytest.approx(2)


def test_other_policies_have_no_table() -> None:
    assert resources(object(), SamplingConfig(), 1, RlipConfig()) == []
