"""The Wyckoff transformer as a policy: conditions, log-probabilities, micro-batches, errors."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from small import SMALL
from test_sampling import policy
from test_training_pretrain import small_crystals

from crystaljax.conditions import Condition
from crystaljax.policies.base import Params, Rollout, SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.training.likelihood import LikelihoodConfig
from crystaljax.training.likelihood import make_update as likelihood_update
from crystaljax.training.optimizer import TrainState
from crystaljax.training.pretrain import PretrainConfig
from crystaljax.training.pretrain import make_update as pretrain_update

BATCH = 32
SAMPLING = SamplingConfig(batch_size=BATCH)


def sample(conditions: list[Condition], seed: int = 0, repeat: int = 1) -> Rollout:
    return policy()[0].sample(policy()[1], conditions, seed, SAMPLING, repeat)


def test_samples_of_a_seed_are_what_they_were() -> None:
    """Without conditions: numbers from before there were any."""
    found = sample([Condition()] * 8, seed=3, repeat=2).sequences.tokens
    assert found.space_group[::2].tolist() == [20, 63, 204, 166, 28, 139, 141, 59]
    assert found.wyckoff[:, 0].tolist() == [3, 1, 3, 3, 4, 6, 2, 4, 2, 1, 12, 10, 7, 1, 2, 5]
    assert found.species[:8, 0].tolist() == [60, 65, 38, 109, 89, 98, 27, 20]
    assert found.species[8:, 0].tolist() == [103, 47, 12, 85, 71, 56, 85, 18]


def test_conditions_that_differ() -> None:
    asked = [
        Condition(space_group=225),
        Condition(formula="NaCl", formula_units=1),
        Condition(),
        Condition(formula="SrTiO3", formula_units=1, space_group=221),
        Condition(template=("a", "b"), space_group=(221, 225)),
    ] * 3
    found = sample(asked, repeat=2)
    assert found.conditions == tuple(x for x in asked for _ in range(2))
    complete = found.met | ~found.ok
    assert complete.all()  # all that are crystals are those asked for
    group = found.crystals.space_group.reshape(-1, 2)
    assert (group[:, 0] == group[:, 1])[found.ok.reshape(-1, 2).all(axis=1)].all()
    assert [len(set(x)) for x in found.prompt.reshape(-1, 2).tolist()] == [1] * 15
    first, again = found.prompt[:2], found.prompt[10:12]
    assert first.tolist() == again.tolist()  # the same condition and group: the same prompt
    same = sample(asked, repeat=2)
    np.testing.assert_array_equal(found.logp_model, same.logp_model)


def test_log_prob_is_that_of_the_samples() -> None:
    found = sample([Condition()] * 40)
    scored = policy()[0].log_prob(policy()[1], found)
    assert scored.dtype == np.float64
    np.testing.assert_allclose(scored, found.logp_model, atol=1e-4)
    rows = np.flatnonzero(found.ok)
    again = policy()[0].encode(found.crystals[rows])
    np.testing.assert_allclose(
        policy()[0].log_prob(policy()[1], again), found.logp_model[rows], rtol=1e-4, atol=1e-2
    )
    assert again.met.all() and np.isnan(again.logp).all()
    assert [x.space_group for x in again.conditions] == found.crystals.space_group[rows].tolist()


def test_micro_batches(n_parts: int = 4) -> None:
    found = sample([Condition()] * BATCH)
    rows = np.random.default_rng(0).permutation(BATCH)
    network, params = policy()
    parts = network.parts(found, rows, n_parts, lambda n: found)

    @jax.jit
    def log_probs(params: Params, parts: Any) -> Any:
        return jax.lax.map(lambda x: network.log_probs(params, (), x, BATCH // n_parts)[0], parts)

    logp = np.asarray(log_probs(params, parts)).ravel()
    np.testing.assert_allclose(logp, found.logp_model[rows], atol=1e-4)
    others = network.parts(found, rows[::-1], n_parts, lambda n: found)
    assert jax.tree.map(np.shape, others) == jax.tree.map(np.shape, parts)


def test_a_crystal_that_cannot_be_written() -> None:
    crystals = small_crystals()
    lattice = crystals.lattice.copy()
    lattice[5, 0] = -1
    with pytest.raises(ValueError, match=r"crystal 5 cannot be written: .*out of range"):
        policy()[0].encode(dataclasses.replace(crystals, lattice=lattice))
    large = crystals.with_slots(SMALL.max_sites + 1)
    large.wyckoff[2], large.species[2] = 27, 8
    with pytest.raises(ValueError, match="crystal 2 has 7 sites, and the model takes 6"):
        policy()[0].encode(large)


@pytest.mark.parametrize(
    ("condition", "sampling", "message"),
    [
        (
            Condition(properties={"band_gap": 1.0}),
            {},
            r"cannot be asked for properties \(band_gap\)",
        ),
        (Condition(formula="SrTiO3", space_group=230), {}, "no space group"),
        (Condition(), {"grammar": True}, "for language models"),
        (Condition(), {"max_new_tokens": 9}, "for language models"),
    ],
)
def test_what_it_cannot_be_asked(condition: Condition, sampling: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy()[0].check([Condition(), condition], SamplingConfig(**sampling))


@pytest.mark.slow
def test_a_step_of_likelihood_is_one_of_pretraining() -> None:
    crystals = small_crystals()[:16]
    network = WyckoffPolicy(SMALL, np.ones(230))
    config = LikelihoodConfig(batch_size=16, n_parts=2)
    optimizer = config.optimizer.build(1)
    written = network.encode(crystals)
    states = [TrainState.create(network.init(0), optimizer, averaged=False) for _ in range(2)]
    update = likelihood_update(network, optimizer, config)
    state, metrics = update(states[0], (), network.parts(written, np.arange(16), 2))
    pretraining = PretrainConfig(batch_size=16, dropout=False, optimizer=config.optimizer)
    packed = jax.tree.map(lambda x: x[0], network.parts(written, np.arange(16)))
    other, expected = pretrain_update(network, optimizer, pretraining)(states[1], packed)
    assert float(metrics["nll"]) == pytest.approx(float(expected["nll"]), rel=1e-5)
    norms = float(metrics["gradient_norm"]), float(expected["gradient_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
