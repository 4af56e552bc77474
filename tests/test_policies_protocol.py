"""The promises of `policies.base.Policy`, kept by either kind of policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from small import SMALL

from crystaljax.conditions import Condition, unmet
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.policies.base import Params, Policy, SamplingConfig
from crystaljax.policies.loading import load_policy
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.training.tasks import sequence_log_probs

GROUPS = (Condition(space_group=139), Condition(space_group=225))
"""Conditions that either kind of policy is told, or held to."""


class Made(NamedTuple):
    policy: Policy
    params: Params
    crystals: Crystals
    sampling: SamplingConfig


def wyckoff() -> Made:
    crystals = load("prototypes").crystals[::10]
    crystals = crystals[np.flatnonzero(np.asarray(crystals.n_sites) <= 2)[:60]]
    counts = np.bincount(crystals.space_group, minlength=231)[1:]
    policy = WyckoffPolicy(SMALL, counts)
    return Made(policy, policy.init(0), crystals, SamplingConfig(batch_size=16))


def text(lora: bool = False) -> Made:
    pytest.importorskip("transformers")
    pytest.importorskip("safetensors")
    pytest.importorskip("qwix")
    from small_crystal_text import crystal_text_policy, small_crystals

    from crystaljax.models.llm.lora import LoraConfig

    policy = crystal_text_policy(lora=LoraConfig(rank=2) if lora else None)
    return Made(policy, policy.texts.start, small_crystals(), SamplingConfig(batch_size=16))


# The transformer, which takes a minute to compile, has its own tests, too.
@pytest.fixture(
    scope="module",
    params=[pytest.param(wyckoff, marks=pytest.mark.slow), text],
    ids=["wyckoff", "text"],
)
def made(request: Any) -> Made:
    make: Callable[[], Made] = request.param
    return make()


def held(made: Made, **changes: Any) -> SamplingConfig:
    """Sampling that gives crystals, of random weights too."""
    is_text = made.policy.tokenization != "wyckoff"
    return dataclasses.replace(made.sampling, grammar=is_text, **changes)


def test_log_probs_are_the_model_s(made: Made) -> None:
    """Also at another temperature, with top-p and a grammar; by `log_prob` and in training."""
    policy, params = made.policy, made.params
    sampling = held(made, temperature=0.8, top_p=0.95)
    rollout = policy.sample(params, GROUPS[1:] * 2, 0, sampling, repeat=4)
    assert rollout.ok.any()
    scored = policy.log_prob(params, rollout)
    np.testing.assert_allclose(rollout.logp_model, scored, atol=2e-3, rtol=2e-5)
    assert np.abs(rollout.logp - rollout.logp_model).max() > 0.1
    parts = policy.parts(rollout, np.arange(8)[::-1], n_parts=2)
    logp = [
        sequence_log_probs(
            policy.log_probs(params, policy.frozen, jax.tree.map(lambda x, i=i: x[i], parts), 4)
        )
        for i in range(2)
    ]
    np.testing.assert_allclose(np.concatenate(logp)[::-1], scored, atol=2e-3, rtol=2e-5)


@pytest.mark.slow
def test_samples_depend_on_the_seed_and_their_number_alone(made: Made) -> None:
    asked = [*GROUPS, Condition()] * 2
    one, other = (
        made.policy.sample(made.params, asked, 3, held(made, batch_size=n), repeat=2)
        for n in (16, 5)
    )
    jax.tree.map(np.testing.assert_array_equal, one.crystals, other.crystals)
    np.testing.assert_allclose(one.logp, other.logp, atol=2e-3, rtol=2e-5)
    another = made.policy.sample(made.params, asked, 4, held(made), repeat=2)
    assert not np.array_equal(one.crystals.lattice, another.crystals.lattice)


def test_prompts_and_conditions(made: Made) -> None:
    """Samples of a condition stand in a row, have one prompt, and say whether they meet it."""
    rollout = made.policy.sample(made.params, [*GROUPS, Condition()], 1, held(made), repeat=3)
    assert rollout.conditions == tuple(c for c in (*GROUPS, Condition()) for _ in range(3))
    assert len(set(rollout.prompt[:6].tolist())) == 2
    assert all(len(set(rollout.prompt[i : i + 3].tolist())) == 1 for i in (0, 3, 6))
    lacking = unmet(rollout.crystals, rollout.conditions)
    expected = [ok and reason is None for ok, reason in zip(rollout.ok, lacking, strict=True)]
    np.testing.assert_array_equal(rollout.met, expected)
    assert [reason is None for reason in rollout.reasons] == expected
    assert not np.asarray(rollout.crystals.n_sites)[~rollout.ok].any()


def test_crystals_are_encoded_as_if_they_had_been_sampled(made: Made) -> None:
    rollout = made.policy.encode(made.crystals)
    assert rollout.ok.all() and rollout.met.all()
    assert np.isnan(rollout.logp).all() and np.isnan(rollout.logp_model).all()
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=6e-3),
        rollout.crystals.with_slots(made.crystals.n_slots),
        made.crystals.to_numpy(),
    )
    assert np.isfinite(made.policy.log_prob(made.params, rollout)).all()
    told = [Condition(space_group=int(group)) for group in made.crystals.space_group]
    assert made.policy.encode(made.crystals, told).conditions == tuple(told)


def test_what_cannot_be_asked(made: Made) -> None:
    with pytest.raises(ValueError, match=r"cannot be asked for .*bulk_modulus"):
        made.policy.check([Condition(properties={"bulk_modulus": 100.0})], made.sampling)
    with pytest.raises(ValueError, match=r"cannot be asked for .*bulk_modulus"):
        made.policy.sample(made.params, [Condition(properties={"bulk_modulus": 1.0})], 0)


@pytest.mark.parametrize("make", [wyckoff, text, lambda: text(lora=True)])
def test_a_folder_gives_the_same_policy(make: Callable[[], Made], tmp_path: Path) -> None:
    made = make()
    if made.policy.tokenization != "wyckoff" and made.policy.texts.has_adapters:  # type: ignore[attr-defined]
        from small_crystal_text import crystal_text_policy

        base = crystal_text_policy()
        base.save(tmp_path / "base", base.texts.start)
        made.policy.texts.name = str(tmp_path / "base")  # type: ignore[attr-defined]
        made = made._replace(params=jax.tree.map(lambda x: x + 0.1, made.params))
    made.policy.save(tmp_path / "model", made.params)
    again, params = load_policy(tmp_path / "model", made.policy.tokenization)
    assert again.identity == made.policy.identity
    rollout = made.policy.encode(made.crystals[:4])
    expected = made.policy.log_prob(made.params, rollout)
    np.testing.assert_allclose(again.log_prob(params, rollout), expected, atol=1e-4)
    with pytest.raises(ValueError, match=f"tokenization {made.policy.tokenization}, not plaid"):
        load_policy(tmp_path / "model", "plaid")
