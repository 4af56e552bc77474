"""Packs sequences of different lengths into rows of fixed shapes, with little padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array

LENGTHS = tuple(2**power * quarter // 4 for power in range(5, 18) for quarter in (4, 5, 6, 7))
"""The row lengths to choose from: 32, 40, 48, 56, 64, 80, ... 131072, ... 229376."""

EVEN_LENGTH_PER_WIDTH = 3
"""Length of a row, divided by the network's width, at which attention takes as long as everything
else. Measured on a CPU, where memory traffic of the scores costs more than their products."""


class TokenSequence(NamedTuple):
    """One text as a model reads it."""

    tokens: np.ndarray
    """int [n]"""
    n_prompt: int
    """Number of prompt tokens at the start, which are not trained on."""


class Rows(NamedTuple):
    """A block of rows of one shape."""

    n_rows: int
    """R, the number of rows."""
    length: int
    """T, tokens of a row."""


RowPlan = tuple[Rows, ...]
"""Shapes of the blocks that every batch of a run is packed into, the longest rows first. The cost
of attention grows with the square of a row's length, so short texts go into short rows."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TextRows:
    """Some of a batch's B sequences, in R rows of T tokens."""

    tokens: Array
    """int32 [R, T]: 0 in padding."""
    position: Array
    """int32 [R, T]: position in its sequence, from 0."""
    segment: Array
    """int32 [R, T]: number of the sequence within the row, from 1; 0 in padding."""
    sequence: Array
    """int32 [R, T]: number of the sequence among the B; B in padding."""
    trained: Array
    """bool [R, T]: tokens whose log-probability is trained; never a sequence's first token."""


PackedTexts = tuple[TextRows, ...]
"""B sequences, in the blocks of a `RowPlan`; stacked micro-batches have an axis A in front."""


def pack_texts(
    sequences: Sequence[TokenSequence | tuple[np.ndarray, int]],
    plan: RowPlan,
    n_sequences: int | None = None,
) -> PackedTexts:
    """Pack sequences into the rows of a plan (numpy, on the host), first-fit decreasing.

    If a batch does not fit into the plan (rarely), rows are added to the first block, as many as it
    has in the plan at a time, until it fits; each such shape is compiled once.

    Args:
      sequences: tokens and number of prompt tokens of each; a sequence is not split over rows.
      n_sequences: B where it is more than the sequences given (the last batch of a data set).

    ValueError naming a sequence that is empty, longer than a row, or has more prompt than tokens.
    """
    lengths = np.array([len(tokens) for tokens, _ in sequences], np.int64)
    n_prompt = np.array([prompt for _, prompt in sequences], np.int64)
    check_sequences(lengths, n_prompt, plan[0].length, "sequence {}")
    n_sequences = len(sequences) if n_sequences is None else n_sequences
    if n_sequences < len(sequences):
        raise ValueError(f"{len(sequences)} sequences, but n_sequences is {n_sequences}")
    place = _place(lengths, plan)
    extra = plan[0].n_rows
    while not place.complete:
        plan = plan[0]._replace(n_rows=plan[0].n_rows + extra), *plan[1:]
        place = _place(lengths, plan)
    tokens = [np.asarray(each) for each, _ in sequences]
    return tuple(
        _fill(tokens, n_prompt, place, block, rows, n_sequences) for block, rows in enumerate(plan)
    )


def _fill(
    tokens: Sequence[np.ndarray],
    n_prompt: np.ndarray,
    place: _Places,
    block: int,
    rows: Rows,
    n_sequences: int,
) -> TextRows:
    """The arrays of one block."""
    held = np.flatnonzero(place.block == block)
    given = [tokens[i] for i in held.tolist()]
    lengths = np.array([len(each) for each in given], np.int64)
    index = np.repeat(held, lengths)
    position = np.arange(len(index)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    where = place.row[index], place.start[index] + position

    def filled(values: np.ndarray, blank: int, dtype: type) -> np.ndarray:
        x: np.ndarray = np.full(rows, blank, dtype)
        x[where] = values
        return x

    return TextRows(
        tokens=filled(np.concatenate([index[:0], *given]), 0, np.int32),
        position=filled(position, 0, np.int32),
        segment=filled(place.segment[index], 0, np.int32),
        sequence=filled(index, n_sequences, np.int32),
        trained=filled(position >= np.maximum(n_prompt, 1)[index], 0, np.bool_),
    )


def check_sequences(lengths: np.ndarray, n_prompt: np.ndarray, length: int, name: str) -> None:
    """ValueError if sequences (int [n] tokens, of which `n_prompt`) do not fit rows of `length`.

    `name` is how the message calls one, with {} for its number.
    """
    for i in np.flatnonzero((lengths > length) | (lengths == 0)):
        if lengths[i]:
            raise ValueError(_too_long(name.format(i), lengths[i], length))
        raise ValueError(f"{name.format(i)} is empty: leave it out")
    for i in np.flatnonzero((n_prompt < 0) | (n_prompt > lengths)):
        n = lengths[i]
        raise ValueError(f"{name.format(i)} has {n} tokens, and {n_prompt[i]} in its prompt")


def per_sequence(values: Sequence[Array], packed: PackedTexts, n_sequences: int) -> jax.Array:
    """[B, T]: values of tokens ([R, T] of each block), by sequence and position; 0 in padding.

    `n_sequences` is the B that the texts were packed with; T is that of the longest rows.
    """
    found = jnp.zeros((n_sequences, packed[0].tokens.shape[-1]), values[0].dtype)
    for x, rows in zip(values, packed, strict=True):
        found = found.at[rows.sequence, rows.position].set(x, mode="drop")
    return found


def n_trained(packed: PackedTexts) -> jax.Array:
    """int []: number of tokens whose log-probabilities are trained."""
    return sum((jnp.sum(rows.trained) for rows in packed), jnp.zeros((), int))


def padding_share(packed: PackedTexts) -> float:
    """Share of all tokens that are padding, 0 to 1."""
    unused = sum(int(np.sum(np.asarray(rows.segment) == 0)) for rows in packed)
    return unused / sum(rows.segment.size for rows in packed)


def pack_micro_batches(
    micro_batches: Sequence[Sequence[TokenSequence]], plan: RowPlan
) -> PackedTexts:
    """[A, R, T] of each block: A lists of B sequences, each packed into blocks of the same shape.

    The number of rows is that of the list that needs most. ValueError as from `pack_texts`, and if
    the lists are not equally long.
    """
    sizes = {len(sequences) for sequences in micro_batches}
    if len(sizes) != 1:
        raise ValueError(f"micro-batches of {sorted(sizes)} sequences: they must be equally many")
    packed = [pack_texts(sequences, plan) for sequences in micro_batches]
    most = plan[0]._replace(n_rows=max(len(blocks[0].tokens) for blocks in packed))
    even = [
        blocks if len(blocks[0].tokens) == most.n_rows else pack_texts(sequences, (most, *plan[1:]))
        for blocks, sequences in zip(packed, micro_batches, strict=True)
    ]
    return jax.tree.map(lambda *xs: np.stack(xs), *even)


def plan_rows(batches: Sequence[np.ndarray], width: int, multiple: int = 1) -> RowPlan:
    """The cheapest plan that holds batches like the ones given.

    Args:
      batches: number of tokens (int [n]) of every sequence, for some batches; none empty.
      width: of the network that reads them; the wider, the smaller is the share of attention.
      multiple: the numbers of rows are multiples of this, to be split evenly among devices.
    """
    lengths = np.concatenate(batches)
    longest = int(lengths.max())
    shortest = next((size for size in LENGTHS if size >= longest), longest)
    wide = [size for size in LENGTHS if shortest <= size <= 4 * shortest] or [longest]
    quantiles = np.quantile(lengths, QUANTILES)
    narrow = [size for size in LENGTHS if size < shortest and size >= quantiles[0]]
    sizes = [(size,) for size in wide] + [
        (shortest, least)
        for least in {next((x for x in narrow if x >= q), 0) for q in quantiles} - {0}
    ]
    plans = [_plan(batches, some, multiple) for some in sizes]
    return min(plans, key=lambda plan: _cost(plan, EVEN_LENGTH_PER_WIDTH * width))


QUANTILES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Shares of texts that short rows are tried for."""


def plan_completions(shortest: int, longest: int, n: int, width: int, multiple: int = 1) -> RowPlan:
    """Plan for n texts of unknown lengths between `shortest` and `longest` tokens."""
    lengths = np.linspace(shortest, longest, max(n, 2)).astype(int)
    return plan_rows([lengths], width, multiple)


def _plan(batches: Sequence[np.ndarray], lengths: tuple[int, ...], multiple: int) -> RowPlan:
    """Plan of long (and short) rows, as many as the batch that needs most."""
    most = max(map(len, batches))
    plan: RowPlan = tuple(Rows(most, length) for length in lengths)

    def needed(block: int, batches: Sequence[np.ndarray]) -> int:
        rows = max(_place(batch, plan[: block + 1]).used(block) for batch in batches)
        return -(-max(1, rows) // multiple) * multiple

    for block, rows in enumerate(plan):
        below = plan[block + 1].length if block + 1 < len(plan) else 0
        n_rows = needed(block, [batch[batch > below] for batch in batches])
        plan = *plan[:block], rows._replace(n_rows=n_rows), *plan[block + 1 :]
    return plan


def _cost(plan: RowPlan, even_length: float) -> float:
    """Proportional to the time of a step."""
    return sum(rows.n_rows * rows.length * (even_length + rows.length) for rows in plan)


def _too_long(name: str, n_tokens: int, length: int) -> str:
    return f"{name} has {n_tokens} tokens, and rows have {length}: shorten it or take longer rows"


class _Places(NamedTuple):
    """Block, row and offset of each of n sequences (int [n]); block -1: it did not fit."""

    block: np.ndarray
    row: np.ndarray
    start: np.ndarray
    segment: np.ndarray

    @property
    def complete(self) -> bool:
        return bool((self.block >= 0).all())

    def used(self, block: int) -> int:
        """Number of rows of a block that are in use."""
        return int(self.row[self.block == block].max(initial=-1)) + 1


def _place(lengths: np.ndarray, plan: RowPlan) -> _Places:
    """First-fit decreasing: the longest sequence first, each into the first row with room."""
    size = np.concatenate([np.full(rows.n_rows, rows.length) for rows in plan])
    room, held = size.copy(), np.zeros_like(size)
    row, start, segment = (np.full(len(lengths), -1) for _ in range(3))
    for i in np.argsort(-lengths, kind="stable"):
        fits = room >= lengths[i]
        chosen = int(fits.argmax())
        if not fits[chosen]:
            continue
        held[chosen] += 1
        row[i], start[i], segment[i] = chosen, size[chosen] - room[chosen], held[chosen]
        room[chosen] -= lengths[i]
    starts = np.cumsum([0, *(rows.n_rows for rows in plan)])
    block = np.where(row < 0, -1, np.searchsorted(starts, row, side="right") - 1)
    return _Places(block, row - starts[np.maximum(block, 0)], start, segment)
