"""Packing: nothing lost, everything where it says, few rows, and shapes that stay."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystaljax.text.packing import (
    LENGTHS,
    TextRows,
    TokenSequence,
    pack_micro_batches,
    pack_rows,
    padding_share,
    per_sequence,
    plan_rows,
)

LENGTH = 12
sizes = st.lists(st.integers(1, LENGTH), min_size=1, max_size=20)


def made(lengths: list[int], seed: int = 0) -> list[TokenSequence]:
    rng = np.random.default_rng(seed)
    return [TokenSequence(rng.integers(1, 1000, n), int(rng.integers(0, n + 1))) for n in lengths]


@given(sizes)
def test_every_token_once_in_its_place(lengths: list[int]) -> None:
    sequences = made(lengths)
    rows = pack_rows(sequences, LENGTH)
    assert (rows.segment > 0).sum() == sum(lengths)
    for i, (tokens, n_prompt) in enumerate(sequences):
        row, column = np.nonzero(rows.sequence == i)
        assert set(row) == {row[0]}
        np.testing.assert_array_equal(np.diff(column), 1)
        np.testing.assert_array_equal(rows.tokens[row, column], tokens)
        np.testing.assert_array_equal(rows.position[row, column], np.arange(len(tokens)))
        assert len(set(rows.segment[row, column])) == 1
        np.testing.assert_array_equal(
            rows.trained[row, column], np.arange(len(tokens)) >= max(n_prompt, 1)
        )


@given(sizes)
def test_segments_and_padding(lengths: list[int]) -> None:
    rows = pack_rows(made(lengths), LENGTH)
    for segment, sequence in zip(rows.segment, rows.sequence, strict=True):
        used = segment > 0
        held = len(set(sequence[used]))
        assert set(segment[used]) == set(range(1, held + 1))
    padding = rows.segment == 0
    assert (rows.sequence[padding] == len(lengths)).all()
    assert not rows.trained[padding].any()
    assert not rows.tokens[padding].any()
    assert padding_share(rows) == pytest.approx(padding.mean())


@settings(max_examples=20)
@given(sizes)
def test_values_by_sequence(lengths: list[int]) -> None:
    sequences = made(lengths)
    rows = pack_rows(sequences, LENGTH)
    found = per_sequence(jnp.asarray(rows.tokens + 7), rows, len(sequences))
    expected = np.zeros((len(sequences), LENGTH), int)
    for i, (tokens, _) in enumerate(sequences):
        expected[i, : len(tokens)] = tokens + 7
    np.testing.assert_array_equal(found, expected)


def fewest_rows(lengths: list[int]) -> int:
    """By trying every assignment."""
    for n in range(1, len(lengths) + 1):
        for rows in itertools.product(range(n), repeat=len(lengths)):
            if (np.bincount(rows, lengths) <= LENGTH).all():
                return n
    raise AssertionError


@settings(max_examples=30)
@given(st.lists(st.integers(1, LENGTH), min_size=1, max_size=6))
def test_rows_are_few(lengths: list[int]) -> None:
    """The bound of first-fit decreasing: 11/9 of the fewest possible, plus 6/9."""
    used = (pack_rows(made(lengths), LENGTH).segment > 0).any(axis=1).sum()
    assert used <= (11 * fewest_rows(lengths) + 6) / 9


@given(sizes, st.integers(1, 5))
def test_rows_are_a_multiple_of_those_asked_for(lengths: list[int], n_rows: int) -> None:
    rows = pack_rows(made(lengths), LENGTH, n_rows)
    assert len(rows.tokens) % n_rows == 0
    assert rows.tokens.shape == rows.trained.shape == (len(rows.tokens), LENGTH)


def test_few_numbers_of_rows() -> None:
    seen = {len(pack_rows(made([LENGTH] * n), LENGTH).tokens) for n in range(1, 65)}
    assert seen == {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}


def test_fewer_sequences_than_announced() -> None:
    rows = pack_rows(made([3]), LENGTH, n_sequences=2)
    found = np.asarray(per_sequence(jnp.ones(rows.tokens.shape), rows, 2))
    np.testing.assert_array_equal(found.sum(axis=1), [3, 0])


def test_rows_of_no_sequences() -> None:
    rows = pack_rows([], LENGTH, 2)
    assert not rows.segment.any()
    assert padding_share(rows) == 1


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([(np.arange(3), 0), (np.arange(13), 2)], "sequence 1 has 13 tokens, and rows 12"),
        ([(np.arange(0), 0)], "sequence 0 is empty"),
        ([(np.arange(3), 4)], "sequence 0 has 3 tokens, and 4 in its prompt"),
        ([(np.arange(3), -1)], "sequence 0 has 3 tokens, and -1 in its prompt"),
    ],
)
def test_bad_sequences(sequences: list[tuple[np.ndarray, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack_rows(sequences, LENGTH)


@settings(max_examples=10)
@given(st.lists(st.integers(1, LENGTH), min_size=6, max_size=18), st.integers(1, 3))
def test_micro_batches_are_packed_by_themselves(lengths: list[int], n: int) -> None:
    size = len(lengths) // n
    sequences = made(lengths)
    parts = [sequences[i * size : (i + 1) * size] for i in range(n)]
    rows = pack_micro_batches(parts, LENGTH, 1)
    assert rows.tokens.ndim == 3
    for i, part in enumerate(parts):
        one: TextRows = jax.tree.map(lambda x, i=i: x[i], rows)
        for field in ("tokens", "position", "trained"):
            found = per_sequence(getattr(one, field), one, size)
            alone = pack_rows(part, LENGTH, 1)
            np.testing.assert_array_equal(found, per_sequence(getattr(alone, field), alone, size))


def test_uneven_micro_batches() -> None:
    with pytest.raises(ValueError, match=r"micro-batches of \[1, 2\] sequences"):
        pack_micro_batches([made([1, 2]), made([1])], LENGTH, 1)


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=12), min_size=1, max_size=4),
    st.integers(1, 4),
)
def test_a_plan_holds_the_batches_it_was_made_for(batches: list[list[int]], multiple: int) -> None:
    plan = plan_rows([np.array(batch) for batch in batches], multiple=multiple)
    assert plan.length in LENGTHS
    assert plan.rows % multiple == 0
    shapes = {pack_rows(made(batch), plan.length, plan.rows).tokens.shape for batch in batches}
    assert shapes == {plan}


def test_a_plan_of_a_given_length() -> None:
    assert plan_rows([np.full(10, 30)], 64) == (5, 64)
    with pytest.raises(ValueError, match="a sequence has 65 tokens, and rows 64"):
        plan_rows([np.array([3, 65])], 64)


def test_a_plan_wastes_little() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.integers(60, 140, 64) for _ in range(10)]
    plan = plan_rows(batches)
    assert np.mean([batch.sum() for batch in batches]) / (plan.rows * plan.length) > 0.85
