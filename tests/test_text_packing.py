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
    PackedTexts,
    RowPlan,
    Rows,
    TextRows,
    TokenSequence,
    n_trained,
    pack_micro_batches,
    pack_texts,
    padding_share,
    per_sequence,
    plan_rows,
)

LENGTH, SHORT = 12, 5
sizes = st.lists(st.integers(1, LENGTH), min_size=1, max_size=20)
plans = st.sampled_from([(Rows(1, LENGTH),), (Rows(2, LENGTH), Rows(3, SHORT))])
WIDTHS = st.sampled_from([8, 100, 4000])


def made(lengths: list[int], seed: int = 0) -> list[TokenSequence]:
    rng = np.random.default_rng(seed)
    return [TokenSequence(rng.integers(1, 1000, n), int(rng.integers(0, n + 1))) for n in lengths]


@given(sizes, plans)
def test_every_token_once_in_its_place(lengths: list[int], plan: RowPlan) -> None:
    sequences = made(lengths)
    packed = pack_texts(sequences, plan)
    assert sum(int((rows.segment > 0).sum()) for rows in packed) == sum(lengths)
    trained = 0
    for i, (tokens, n_prompt) in enumerate(sequences):
        (rows,) = [rows for rows in packed if (rows.sequence == i).any()]
        row, column = np.nonzero(rows.sequence == i)
        assert set(row) == {row[0]}
        np.testing.assert_array_equal(np.diff(column), 1)
        np.testing.assert_array_equal(rows.tokens[row, column], tokens)
        np.testing.assert_array_equal(rows.position[row, column], np.arange(len(tokens)))
        assert len(set(rows.segment[row, column])) == 1
        expected = np.arange(len(tokens)) >= max(n_prompt, 1)
        np.testing.assert_array_equal(rows.trained[row, column], expected)
        trained += int(expected.sum())
    assert n_trained(packed) == trained


@given(sizes, plans)
def test_segments_and_padding(lengths: list[int], plan: RowPlan) -> None:
    packed = pack_texts(made(lengths), plan)
    unused = 0
    for rows in packed:
        for segment, sequence in zip(rows.segment, rows.sequence, strict=True):
            used = segment > 0
            held = len(set(sequence[used]))
            assert set(segment[used]) == set(range(1, held + 1))
        padding = rows.segment == 0
        assert (rows.sequence[padding] == len(lengths)).all()
        assert not rows.trained[padding].any()
        assert not rows.tokens[padding].any()
        unused += padding.sum()
    size = sum(rows.tokens.size for rows in packed)
    assert padding_share(packed) == pytest.approx(unused / size)


def by_sequence(packed: PackedTexts, name: str, n: int) -> np.ndarray:
    values = [jnp.asarray(getattr(rows, name)) for rows in packed]
    return np.asarray(per_sequence(values, packed, n))


@settings(max_examples=20)
@given(sizes, plans)
def test_values_by_sequence(lengths: list[int], plan: RowPlan) -> None:
    sequences = made(lengths)
    found = by_sequence(pack_texts(sequences, plan), "tokens", len(sequences))
    expected = np.zeros((len(sequences), LENGTH), int)
    for i, (tokens, _) in enumerate(sequences):
        expected[i, : len(tokens)] = tokens
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
    (rows,) = pack_texts(made(lengths), (Rows(1, LENGTH),))
    used = (rows.segment > 0).any(axis=1).sum()
    assert used <= (11 * fewest_rows(lengths) + 6) / 9


@given(sizes, st.integers(1, 5), st.integers(1, 3))
def test_a_batch_too_large_lengthens_the_first_block(lengths: list[int], n: int, few: int) -> None:
    wide, short = pack_texts(made(lengths), (Rows(n, LENGTH), Rows(few, SHORT)))
    assert len(wide.tokens) % n == 0
    assert wide.tokens.shape[1] == LENGTH
    assert short.tokens.shape == (few, SHORT)
    if len(wide.tokens) > n:
        with_less = (Rows(len(wide.tokens) - n, LENGTH), Rows(few, SHORT))
        assert len(pack_texts(made(lengths), with_less)[0].tokens) > with_less[0].n_rows


def test_fewer_sequences_than_announced() -> None:
    packed = pack_texts(made([3]), (Rows(1, LENGTH),), n_sequences=2)
    found = np.asarray(per_sequence([jnp.ones(packed[0].tokens.shape)], packed, 2))
    np.testing.assert_array_equal(found.sum(axis=1), [3, 0])


def test_rows_of_no_sequences() -> None:
    packed = pack_texts([], (Rows(2, LENGTH),))
    assert not packed[0].segment.any()
    assert padding_share(packed) == 1
    assert n_trained(packed) == 0


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([(np.arange(3), 0), (np.arange(13), 2)], "sequence 1 has 13 tokens, and rows have 12"),
        ([(np.arange(0), 0)], "sequence 0 is empty"),
        ([(np.arange(3), 4)], "sequence 0 has 3 tokens, and 4 in its prompt"),
        ([(np.arange(3), -1)], "sequence 0 has 3 tokens, and -1 in its prompt"),
    ],
)
def test_bad_sequences(sequences: list[tuple[np.ndarray, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack_texts(sequences, (Rows(1, LENGTH),))


@settings(max_examples=10)
@given(st.lists(st.integers(1, LENGTH), min_size=6, max_size=18), st.integers(1, 3), plans)
def test_micro_batches_are_packed_by_themselves(lengths: list[int], n: int, plan: RowPlan) -> None:
    size = len(lengths) // n
    sequences = made(lengths)
    parts = [sequences[i * size : (i + 1) * size] for i in range(n)]
    packed = pack_micro_batches(parts, plan)
    for i, part in enumerate(parts):
        one: tuple[TextRows, ...] = jax.tree.map(lambda x, i=i: x[i], packed)
        alone = pack_texts(part, plan)
        for field in ("tokens", "position", "trained"):
            expected = by_sequence(alone, field, size)
            np.testing.assert_array_equal(by_sequence(one, field, size), expected)


def test_uneven_micro_batches() -> None:
    with pytest.raises(ValueError, match=r"micro-batches of \[1, 2\] sequences"):
        pack_micro_batches([made([1, 2]), made([1])], (Rows(1, LENGTH),))


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=12), min_size=1, max_size=4),
    WIDTHS,
    st.integers(1, 4),
)
def test_a_plan_holds_the_batches_it_was_made_for(
    batches: list[list[int]], width: int, multiple: int
) -> None:
    plan = plan_rows([np.array(batch) for batch in batches], width, multiple)
    assert all(rows.length in LENGTHS and rows.n_rows % multiple == 0 for rows in plan)
    for batch in batches:
        packed = pack_texts(made(batch), plan)
        assert tuple(rows.tokens.shape for rows in packed) == plan


def test_short_rows_for_narrow_networks() -> None:
    """Most texts are short, one is long: attention in rows of its length would be wasted."""
    batches = [np.array([400, *[50] * 40])] * 3
    narrow, wide = (plan_rows(batches, width) for width in (32, 8192))
    assert narrow[0].length >= 400
    assert narrow[1].length <= 112
    tokens = [sum(n * length for n, length in plan) for plan in (narrow, wide)]
    assert tokens[1] <= tokens[0]


def test_a_plan_wastes_little() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.integers(60, 140, 64) for _ in range(10)]
    used = np.mean([batch.sum() for batch in batches])
    for width in (128, 8192):
        size = sum(n_rows * length for n_rows, length in plan_rows(batches, width))
        assert used / size > 0.8
