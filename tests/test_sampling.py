"""Samples: log-probabilities, determinism, constraints, and their distribution."""

from __future__ import annotations

import dataclasses
from functools import cache

import jax
import numpy as np
import pytest
from slow_reference import reference
from small import SMALL
from wishes import drawn

from crystaljax.composition import element_counts
from crystaljax.conditions import Condition
from crystaljax.data.dataset import load
from crystaljax.models.wyckoff.demands import TrainingCounts, make_demands
from crystaljax.models.wyckoff.rollout import TokenRollout
from crystaljax.policies.wyckoff import Params, WyckoffPolicy
from crystaljax.symmetry.tables import tables
from crystaljax.tokenizations.packing import Rows, pack

BATCH = 32


@cache
def policy() -> tuple[WyckoffPolicy, Params]:
    """A model with weights large enough for distributions that are far from uniform."""
    policy = WyckoffPolicy(SMALL, load("prototypes").space_group_counts)
    return policy, jax.tree.map(lambda x: 8 * x if x.ndim > 1 else x, policy.init(0))


def sample(n: int = BATCH, seed: int = 0, **settings: object) -> TokenRollout:
    return drawn(*policy(), n, seed, **({"batch_size": BATCH} | settings))


def teacher_forced(rollout: TokenRollout) -> np.ndarray:
    tokens = rollout.tokens
    plan = (Rows(len(tokens), SMALL.max_sites, 1),)
    score = jax.jit(policy()[0].packed_log_prob, static_argnums=2)
    return np.asarray(score(policy()[1], pack(tokens, plan), len(tokens)).total)


def test_log_probs_are_the_teacher_forced_ones() -> None:
    rollout = sample()
    np.testing.assert_allclose(rollout.logp_model, teacher_forced(rollout), atol=1e-4)
    np.testing.assert_allclose(rollout.logp, rollout.logp_model, atol=1e-4)
    assert len(set(np.asarray(rollout.tokens.n_sites))) > 3  # of various lengths


def test_log_probs_of_other_distributions() -> None:
    """Tempered and constrained: the model's log-prob is still the teacher-forced one."""
    rollout = sample(temperature=0.7, top_p=0.9, elements=("Fe", "O", "Ti"))
    np.testing.assert_allclose(rollout.logp_model, teacher_forced(rollout), atol=1e-4)
    assert (np.abs(rollout.logp - rollout.logp_model) > 0.1).all()


def test_log_probs_are_of_the_distribution_that_was_sampled() -> None:
    """Tempered, and with other elements excluded."""
    counts = np.isin(np.arange(119), (8, 22, 26)).astype(int)
    other = WyckoffPolicy(SMALL, policy()[0].space_group_counts, counts)
    rollout = drawn(other, policy()[1], BATCH, 0, temperature=0.7, batch_size=BATCH)
    model = policy()[0].model(policy()[1])
    expected = [sum(reference(model, rollout.tokens[i], 0.7, (8, 22, 26))) for i in range(8)]
    np.testing.assert_allclose(rollout.logp[:8], expected, rtol=1e-4, atol=1e-4)


def test_the_batch_does_not_matter() -> None:
    whole, parts = sample(40), sample(40, batch_size=16)
    for name in ("space_group", "wyckoff", "species"):
        a, b = getattr(whole.tokens, name), getattr(parts.tokens, name)
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(whole.tokens.frac, parts.tokens.frac, atol=1e-4)
    np.testing.assert_allclose(whole.tokens.lattice, parts.tokens.lattice, atol=1e-4)
    assert not np.array_equal(whole.tokens.species, sample(40, seed=1).tokens.species)


def test_samples_obey_symmetry() -> None:
    tokens = sample(64).tokens
    group, letter = tokens.space_group - 1, tokens.wyckoff
    assert (letter <= tables().n_letters[group][:, None]).all()
    fixed = (tables().n_free[group[:, None], letter] == 0) & (letter > 0)
    same = (letter[:, 1:] == letter[:, :-1]) & (letter[:, 1:] > 0)
    assert not (same & fixed[:, 1:]).any()
    assert ((letter[:, 1:] >= letter[:, :-1]) | (letter[:, 1:] == 0)).all()
    assert ((tokens.species > 0) == (letter > 0)).all()


def test_elements() -> None:
    rollout = sample(elements=("Fe", "O"), required=("Fe",))
    species = rollout.tokens.species
    assert set(np.unique(species)) <= {0, 8, 26}
    assert (species == 26).any(axis=1).all()
    assert rollout.satisfied.all()


def test_template() -> None:
    rollout = sample(template=("a", "b"), space_group=(225, 221))
    np.testing.assert_array_equal(rollout.tokens.wyckoff[:, :3], np.tile([1, 2, 0], (BATCH, 1)))
    assert set(rollout.tokens.space_group) <= {221, 225}


def test_composition() -> None:
    rollout = sample(formula="SrTiO3", formula_units=1, space_group=(221,))
    tokens = rollout.tokens
    good = rollout.satisfied
    assert good.all()
    lattice = np.tile([4.0, 4, 4, 90, 90, 90], (len(tokens), 1))
    counts = element_counts(
        dataclasses.replace(
            load("prototypes").crystals[:1],
            space_group=tokens.space_group,
            wyckoff=tokens.wyckoff,
            species=tokens.species,
            frac=tokens.frac,
            lattice=lattice,
        )
    )
    cells = tables().n_centering[tokens.space_group - 1]
    right = (counts[:, [38, 22, 8]] == cells[:, None] * [1, 1, 3]).all(axis=1)
    right &= counts.sum(axis=1) == 5 * cells
    np.testing.assert_array_equal(good, right)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"elements": ("Fe", "Xx")}, "Xx"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 1.5}, "top-p"),
        ({"elements": ("Fe",), "required": ("O",)}, "not among those allowed"),
        ({"space_group": (0,)}, "1-230"),
        ({"template": ("b", "a")}, "sort"),
        ({"template": ("A",), "space_group": (1,)}, "no space group"),
        ({"formula": "Fe0.5O"}, "whole numbers"),
        ({"formula": "SrTiO3", "space_group": (230,)}, "no space group"),
        ({"elements": ()}, "no element is allowed"),
        ({"required": ("O",), "formula": "NaCl"}, "required is O.*not among those of the formula"),
        ({"elements": ("Na",), "formula": "NaCl"}, "has Cl.*not among those allowed"),
        ({"required": ("O", "Fe"), "template": ("a",)}, "2 elements are required on 1 sites"),
        (
            {"formula": "Na5Cl5", "formula_units": 1, "template": ("a", "b")},
            "template a b.*formula Na5Cl5",
        ),
        ({"formula": "ABC"}, "cannot read the formula"),
        ({"formula": "H120He120Li120", "formula_units": 1}, "ask for a smaller cell"),
        ({"max_candidates": 0}, "at least"),
    ],
)
def test_impossible_wishes(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(**settings)


def test_space_groups_follow_the_data() -> None:
    counts = np.zeros(230, int)
    counts[[1, 224]] = 1, 3
    (demand,) = make_demands([Condition()], SMALL.max_sites, TrainingCounts(counts))
    prior = demand.prior
    assert np.flatnonzero(prior).tolist() == [1, 224]
    assert prior[[1, 224]].tolist() == [0.25, 0.75]


@pytest.mark.slow
def test_letters_and_elements_follow_the_model() -> None:
    """Frequencies of the first site against the probabilities of the first tokens."""
    rollout = sample(4000, space_group=(225,), batch_size=1000)
    first = rollout.tokens.wyckoff[:, 0]
    model = policy()[0].model(policy()[1])
    from crystaljax.models.rules import allowed_letters, exclude

    group = np.array([225])
    logits = exclude(
        model.first_letter_logits(group), allowed_letters(group, np.array([0]), np.array([True]))
    )
    expected = np.asarray(jax.nn.softmax(logits))[0]
    found = np.bincount(first, minlength=28) / len(first)
    assert 0.5 * np.abs(found - expected).sum() < 0.04
