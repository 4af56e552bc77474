"""Batches of texts: every example once an epoch, the same at every asking, in one shape."""

from collections import Counter

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from crystaljax.text.batches import TextBatches, fixed_batches
from crystaljax.text.packing import PackedTexts, TokenSequence, per_sequence


def groups(n: int, size: int = 1, seed: int = 0) -> list[list[TokenSequence]]:
    """The i-th has i + 1 as its every token."""
    rng = np.random.default_rng(seed)
    return [
        [TokenSequence(np.full(rng.integers(2, 60), i + 1), 1) for _ in range(size)]
        for i in range(n)
    ]


WIDTH = 8
"""Of a network for which short rows are worth while."""


def first_tokens(packed: PackedTexts, n_sequences: int) -> np.ndarray:
    return np.array(per_sequence([rows.tokens for rows in packed], packed, n_sequences))[:, 0]


def shapes(packed: PackedTexts) -> tuple[tuple[int, ...], ...]:
    return tuple(rows.tokens.shape for rows in packed)


def test_groups_of_several_epochs() -> None:
    """Each epoch has its own, each once, and they come in turns, whenever they are asked for."""
    three = [group for seed in range(3) for group in groups(24, seed=seed)]
    batches = TextBatches(three, 6, 0, WIDTH, micro_batches=2, n_epochs=3)
    assert batches.steps_per_epoch == 4
    for epoch in range(5):
        steps = range(4 * epoch, 4 * epoch + 4)
        dealt = np.sort(np.concatenate([batches.chosen(step).ravel() for step in steps]))
        np.testing.assert_array_equal(dealt, np.arange(24) + 24 * (epoch % 3))
    late = TextBatches(three, 6, 0, WIDTH, micro_batches=2, n_epochs=3)
    jax.tree.map(np.testing.assert_array_equal, late.packed(9), batches.packed(9))
    once = TextBatches(groups(24), 6, 0, WIDTH, micro_batches=2)
    np.testing.assert_array_equal(once.chosen(2), batches.chosen(2))
    with pytest.raises(ValueError, match="72 examples are not those of 5 epochs"):
        TextBatches(three, 6, 0, WIDTH, n_epochs=5)


@pytest.mark.parametrize("size", [1, 2])
def test_an_epoch_has_every_example_once(size: int) -> None:
    batches = TextBatches(groups(30, size), 6, 0, WIDTH, micro_batches=3)
    assert batches.steps_per_epoch == 5
    assert batches.n_sequences == 2 * size
    seen: Counter[int] = Counter()
    for step in range(5, 10):
        rows = batches.packed(step)
        assert shapes(rows) == tuple((3, *block) for block in batches.plan)
        for part in range(3):
            one = jax.tree.map(lambda x, part=part: x[part], rows)
            first = first_tokens(one, batches.n_sequences).reshape(2, size)
            assert (first == first[:, :1]).all()  # groups stay together
            np.testing.assert_array_equal(first[:, 0] - 1, batches.chosen(step)[part])
            seen.update(first[:, 0].tolist())
    assert seen == Counter(range(1, 31))


def test_a_step_is_the_same_whenever_asked_for() -> None:
    one, other = (TextBatches(groups(40), 8, 3, WIDTH, micro_batches=2) for _ in range(2))
    expected = [one.packed(step) for step in range(12)]
    for step in (11, 0, 6):
        jax.tree.map(np.testing.assert_array_equal, other.packed(step), expected[step])
    for step, rows in other.stream(4, 7):
        jax.tree.map(np.testing.assert_array_equal, rows, expected[step])
    assert not np.array_equal(one.chosen(0), one.chosen(5))


def test_one_shape_and_little_padding() -> None:
    batches = TextBatches(groups(400), 64, 0, WIDTH, micro_batches=2)
    expected = tuple((2, *block) for block in batches.plan)
    assert {shapes(batches.packed(step)) for step in range(30)} == {expected}
    assert len(batches.plan) == 2
    assert batches.padding() < 0.2


def test_rows_for_the_longest_of_all() -> None:
    """It is rarely in the batches that the rows are planned for."""
    many = groups(5000)
    many[1234][0] = TokenSequence(np.zeros(90, int), 0)
    for seed in range(3):
        assert TextBatches(many, 2, seed, WIDTH).plan[0].length >= 90


def test_rows_for_several_devices() -> None:
    mesh = AbstractMesh((2, 4), ("data", "fsdp"))
    plan = TextBatches(groups(40), 8, 0, WIDTH, mesh=mesh).plan
    assert all(rows.n_rows % 8 == 0 for rows in plan)


def test_bad_examples() -> None:
    with pytest.raises(ValueError, match="a batch of 8 from 5 examples"):
        TextBatches(groups(5), 8, 0, WIDTH)
    with pytest.raises(ValueError, match="3 micro-batches do not divide a batch of 4"):
        TextBatches(groups(5), 4, 0, WIDTH, micro_batches=3)
    with pytest.raises(ValueError, match="example 2 has 1 sequences, and the first 2"):
        TextBatches([*groups(2, 2), *groups(1)], 1, 0, WIDTH)
    with pytest.raises(ValueError, match="example 1 is empty: leave it out"):
        TextBatches([[(np.arange(9), 2)], [(np.arange(0), 0)]], 1, 0, WIDTH)


def test_all_in_order() -> None:
    sequences = [group[0] for group in groups(11)]
    batches = list(fixed_batches(sequences, 4, WIDTH))
    assert [chosen.tolist() for _, chosen in batches] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10],
    ]
    assert len({shapes(packed) for packed, _ in batches}) == 1
    for rows, chosen in batches:
        np.testing.assert_array_equal(first_tokens(rows, 4)[: len(chosen)], chosen + 1)
        assert not first_tokens(rows, 4)[len(chosen) :].any()
