"""Tiered pairs against an enumeration of all that could be paired."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.evaluation.stability import Thresholds
from crystaljax.training.tiers import (
    KINDS,
    METASTABLE,
    STABLE,
    UNKNOWN,
    UNSTABLE,
    PairConfig,
    distinct_tiers,
    tiered_pairs,
    tiers_of,
)

SAMPLES = st.lists(
    st.tuples(
        st.sampled_from([UNKNOWN, STABLE, METASTABLE, UNSTABLE]),
        st.booleans(),  # novel
        st.booleans(),  # asked
        st.booleans(),  # matches
        st.integers(0, 1),  # prompt
    ),
    max_size=25,
)
CONFIGS = st.builds(PairConfig, **{kind: st.integers(0, 3) for kind in KINDS})
GOOD = (STABLE, METASTABLE)


def may_be_paired(kind: str, chosen: tuple, rejected: tuple) -> bool:
    """The definitions of section 4.2 and appendix 7.2, for one pair."""
    (tier, novel, asked, matches, prompt), (other, known, *_, same) = chosen, rejected
    if prompt != same or rejected[2] != asked:
        return False
    by_energy = {
        "stable_metastable": (STABLE, METASTABLE),
        "stable_unstable": (STABLE, UNSTABLE),
        "metastable_unstable": (METASTABLE, UNSTABLE),
    }
    if kind in by_energy:
        return not asked and (tier, other) == by_energy[kind]
    if kind == "novel_known":
        return not asked and (tier, other) == (STABLE, STABLE) and novel and not known
    if kind == "matching_other":
        return asked and tier in GOOD and other in GOOD and matches and not rejected[3]
    return asked and tier in GOOD and other == UNSTABLE


@given(SAMPLES, CONFIGS, st.integers(0, 3))
def test_pairs_are_those_of_an_enumeration(
    samples: list[tuple], config: PairConfig, seed: int
) -> None:
    # samples of one prompt are all asked for a space group, or none is
    samples = [(*x[:2], x[4] == 1, x[3], x[4] + 2 * (x[2] and x[4])) for x in samples]
    tier, prompt = (np.array([x[i] for x in samples], int) for i in (0, 4))
    novel, asked, matches = (np.array([x[i] for x in samples], bool) for i in (1, 2, 3))
    rng = np.random.default_rng(seed)
    pairs, kinds = tiered_pairs(tier, novel, asked, matches, prompt, config, rng)
    assert pairs.shape == (len(kinds), 2)
    found = {(KINDS[k], int(a), int(b)) for k, (a, b) in zip(kinds, pairs, strict=True)}
    assert len(found) == len(pairs)
    for place, kind in enumerate(KINDS):
        for a in range(len(samples)):
            could = {b for b in range(len(samples)) if may_be_paired(kind, samples[a], samples[b])}
            drawn = {b for name, chosen, b in found if (name, chosen) == (kind, a)}
            assert drawn <= could
            assert len(drawn) == min(config(place), len(could))


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 3), st.sampled_from([0, 225]))))
def test_a_structure_has_its_tier_once(samples: list[tuple[int, int, int]]) -> None:
    rows = np.array(samples, int).reshape(-1, 3)
    seen: set[tuple[int, int, int]] = set()
    expected = []
    for sample in samples:
        tier, cluster, _ = sample
        is_new = tier != UNKNOWN and cluster >= 0 and sample not in seen
        expected.append(tier if is_new else UNKNOWN)
        seen.add(sample)
    np.testing.assert_array_equal(distinct_tiers(*rows.T), expected)


def test_the_rejected_are_drawn_evenly() -> None:
    tier = np.array([STABLE] + 4 * [UNSTABLE])
    no, one = np.zeros(5, bool), np.zeros(5, int)
    rng = np.random.default_rng(0)
    drawn = [tiered_pairs(tier, no, no, no, one, PairConfig(), rng)[0] for _ in range(2000)]
    rows = np.concatenate(drawn)
    assert (rows[:, 0] == 0).all() and len(rows) == 4000
    counts = np.bincount(rows[:, 1], minlength=5)[1:]
    np.testing.assert_allclose(counts, 1000, atol=5 * np.sqrt(500))
    orders = {tuple(x[:, 1].tolist()) for x in drawn}
    assert orders == set(itertools.permutations(range(1, 5), 2))


def test_thresholds_belong_to_the_better_tier() -> None:
    above = np.array([-1.0, 0.0, 1e-6, 0.08, 0.0801, np.nan, np.inf, -np.inf])
    found = tiers_of(above, Thresholds(0.0, 0.08))
    expected = [STABLE, STABLE, METASTABLE, METASTABLE, UNSTABLE, UNKNOWN, UNSTABLE, STABLE]
    np.testing.assert_array_equal(found, expected)
