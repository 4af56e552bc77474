"""Memory of guards: counted as by brute force, and gone on with exactly from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from table_policy import table_crystals

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.seen import SeenCompositions, SeenStructures, kept_share
from crystaljax.structures import to_structures

Make = Callable[[], Any]


def judged(n: int) -> RewardBatch:
    return RewardBatch.from_values(np.zeros(n))


def variants(n: int, seed: int) -> Crystals:
    """Rock salts of 16 pairs of elements, in cells of two shapes that do not match, and shaken."""
    rng = np.random.default_rng(seed)
    crystals = table_crystals()[rng.integers(16, size=n)]
    tetragonal = rng.random(n) < 0.5
    lattice = crystals.lattice * rng.uniform(0.95, 1.05, (n, 1)).astype(np.float32)
    lattice[:, 3:] = 90
    lattice[tetragonal, 2] *= 1.6
    group = np.where(tetragonal, 123, 225).astype(np.int32)
    # P4/mmm: 1a at the origin, 1d at the middle of the cell, which is another structure, too.
    wyckoff = np.where(tetragonal[:, None], [1, 4], [1, 2]).astype(np.int32)
    return replace(crystals, space_group=group, wyckoff=wyckoff, lattice=lattice)


@given(st.integers(0, 30), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 4))
def test_what_copies_keep_in_all_does_not_depend_on_the_size_of_rollouts(
    before: int, parts: list[int], free: int
) -> None:
    whole = sum(parts) * kept_share(before, sum(parts), free)
    total, n = 0.0, before
    for part in parts:
        total, n = total + part * kept_share(n, part, free), n + part
    assert total == pytest.approx(whole)
    assert kept_share(before, 1, free) == 1 / (1 + max(0, before - free))
    assert 0 < kept_share(before, parts[0], free) <= 1


def test_structures_count_as_by_matching_all_pairs() -> None:
    """StructureMatcher on all pairs, in whatever order the samples of a rollout come."""
    rollouts = [variants(24, seed) for seed in range(3)]
    guard, seen = SeenStructures(), []
    matcher = StructureMatcher()
    for crystals in rollouts:
        share = guard(crystals, judged(len(crystals))).share
        structures = to_structures(crystals, primitive=True)
        for row, structure in enumerate(structures):
            same = [matcher.fit(other, structure) for other in [*seen, *structures]]
            n_before, n_copies = sum(same[: len(seen)]), sum(same[len(seen) :])
            assert share[row] == kept_share(n_before, n_copies)
        seen += structures
    assert len(guard.memory["counts"]) < len(seen) == guard.memory["counts"].sum()
    order = np.random.default_rng(1).permutation(24)
    one, other = SeenStructures(), SeenStructures()
    for crystals in rollouts:
        first = one(crystals, judged(24)).share
        np.testing.assert_array_equal(other(crystals[order], judged(24)).share, first[order])


@pytest.mark.parametrize("make", [SeenCompositions, SeenStructures, lambda: SeenStructures(1, 1)])
def test_a_guard_goes_on_from_its_memory_as_if_nothing_had_been(make: Make) -> None:
    whole, part = make(), make()
    assert whole.memory == {}
    for seed in range(4):
        crystals = variants(12, seed)
        if seed % 2:
            crystals = crystals.with_slots(5)
        resumed = make()
        resumed.remember(part.memory)
        expected = whole(crystals, judged(12)).share
        np.testing.assert_array_equal(resumed(crystals, judged(12)).share, expected)
        part = resumed
        assert part.memory.keys() == whole.memory.keys()
        for name, array in whole.memory.items():
            np.testing.assert_array_equal(part.memory[name], array)
            assert array.size and array.dtype in (np.uint8, np.int32, np.float32)
    whole.remember({})
    first = variants(12, 0)
    np.testing.assert_array_equal(whole(first, judged(12)).share, make()(first, judged(12)).share)


def test_of_a_formula_the_structures_that_occurred_last_are_remembered() -> None:
    salt = table_crystals()[2]  # NaCl
    kinds = [replace(salt, lattice=salt.lattice.copy()) for _ in range(4)]
    for i, kind in enumerate(kinds):
        kind.lattice[0, 2] *= 1 + 0.6 * i
        object.__setattr__(kind, "space_group", np.full(1, 123 if i else 225, np.int32))
        object.__setattr__(kind, "wyckoff", np.array([[1, 4 if i else 2]], np.int32))
    guard = SeenStructures(most=2)

    def share(i: int) -> float:
        return float(guard(kinds[i], judged(1)).share[0])

    assert [share(i) for i in (0, 0, 1, 0, 2)] == [1, 1 / 2, 1, 1 / 3, 1]
    assert len(guard.memory["counts"]) == 2  # 1 is forgotten, which 0 occurred after
    assert [share(i) for i in (0, 2, 1)] == [1 / 4, 1 / 2, 1]


def test_what_cannot_be_compared_is_not_believed() -> None:
    crystals = variants(3, 0)
    crystals = crystals[np.array([0, 0, 1])]
    crystals.lattice[:2, 2] *= 1000
    object.__setattr__(crystals, "space_group", np.full(3, 123, np.int32))
    object.__setattr__(crystals, "wyckoff", np.tile(np.array([1, 4], np.int32), (3, 1)))
    verdict = SeenStructures()(crystals, judged(3))
    assert verdict.share.tolist() == [0, 0, 1]
    assert "cannot be compared with what was seen: " in str(verdict.reasons[0])
    assert verdict.reasons[2] is None


def test_real_crystals_are_seen_once() -> None:
    crystals = load("prototypes").crystals
    crystals = crystals[np.flatnonzero(np.asarray(crystals.n_sites) <= 3)[:40]]
    guard = SeenStructures()
    first = guard(crystals, judged(len(crystals))).share
    again = guard(crystals, judged(len(crystals))).share
    assert (first > 0.3).all() and (again <= first / 2 + 0.01).all()
