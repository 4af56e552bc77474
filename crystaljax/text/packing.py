"""Sequences of many lengths in few rows of one fixed shape: little is computed on padding."""

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

EVEN_LENGTH = 2048
"""Tokens of a row at which its attention is reckoned to take as long as everything else: six times
the width of the network in floating-point operations, so this is a small one's."""


class TokenSequence(NamedTuple):
    """One text as a model reads it."""

    tokens: np.ndarray
    """int [n]"""
    n_prompt: int
    """Number of tokens, from the first, that are given and not trained on."""


class RowPlan(NamedTuple):
    """The shape that every batch of a run is packed into."""

    rows: int
    """R, the number of rows."""
    length: int
    """T, tokens of a row."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TextRows:
    """B sequences packed in R rows of T tokens; stacked micro-batches have an axis A in front."""

    tokens: Array
    """int32 [R, T]: 0 in padding."""
    position: Array
    """int32 [R, T]: place within its sequence, from 0."""
    segment: Array
    """int32 [R, T]: 0 padding, 1.. which sequence of the row."""
    sequence: Array
    """int32 [R, T]: which of the B sequences; B in padding."""
    trained: Array
    """bool [R, T]: tokens whose own log-probability counts; never a sequence's first token."""


def pack_rows(
    sequences: Sequence[TokenSequence | tuple[np.ndarray, int]],
    length: int,
    rows: int | None = None,
    n_sequences: int | None = None,
) -> TextRows:
    """Pack sequences into rows (numpy, on the host), first-fit decreasing.

    Args:
      sequences: tokens and number of prompt tokens of each; a sequence stays in one row.
      length: T.
      rows: R. A batch that needs more gets a multiple of it. By default as many as it needs,
        rounded up to one of few numbers.
      n_sequences: B where it is more than the sequences given (the last batch of a data set).

    ValueError naming a sequence that is empty, longer than a row, or has more prompt than tokens.
    """
    lengths = np.array([len(tokens) for tokens, _ in sequences], np.int64)
    n_prompt = np.array([prompt for _, prompt in sequences], np.int64)
    check_sequences(lengths, n_prompt, length, "sequence {}")
    n_sequences = len(sequences) if n_sequences is None else n_sequences
    if n_sequences < len(sequences):
        raise ValueError(f"{len(sequences)} sequences where {n_sequences} are announced")
    place = _place(lengths, length)
    needed = max(1, int(place.row.max(initial=-1)) + 1)
    n_rows = _rounded_up(needed) if rows is None else -(-needed // rows) * rows

    index = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.cumsum(lengths)
    position = np.arange(len(index)) - (ends - lengths)[index]
    where = place.row[index], place.start[index] + position

    def filled(values: np.ndarray, blank: int, dtype: type) -> np.ndarray:
        x: np.ndarray = np.full((n_rows, length), blank, dtype)
        x[where] = values
        return x

    tokens = np.concatenate([np.asarray(t) for t, _ in sequences]) if len(index) else index
    return TextRows(
        tokens=filled(tokens, 0, np.int32),
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


def per_sequence(values: Array, rows: TextRows, n_sequences: int) -> jax.Array:
    """[B, T]: values of tokens ([R, T]) by sequence and position in it; 0 after a sequence's end.

    `n_sequences` is the B that the rows were packed with.
    """
    blank = jnp.zeros((n_sequences, values.shape[-1]), values.dtype)
    return blank.at[rows.sequence, rows.position].set(values, mode="drop")


def padding_share(rows: TextRows) -> float:
    """The share of all tokens (of any number of rows) that are padding, 0 to 1."""
    return float(np.mean(np.asarray(rows.segment) == 0))


def pack_micro_batches(
    micro_batches: Sequence[Sequence[TokenSequence]], length: int, rows: int
) -> TextRows:
    """[A, R, T]: A lists of B sequences each packed by itself, in equally many rows.

    R is `rows`, or the multiple of it that the most demanding one needs. ValueError as from
    `pack_rows`, and if the lists are not equally long.
    """
    sizes = {len(sequences) for sequences in micro_batches}
    if len(sizes) != 1:
        raise ValueError(f"micro-batches of {sorted(sizes)} sequences: they must be equally many")
    packed = [pack_rows(sequences, length, rows) for sequences in micro_batches]
    most = max(len(each.tokens) for each in packed)
    even = [
        each if len(each.tokens) == most else pack_rows(sequences, length, most)
        for each, sequences in zip(packed, micro_batches, strict=True)
    ]
    return jax.tree.map(lambda *xs: np.stack(xs), *even)


def plan_rows(
    batches: Sequence[np.ndarray], length: int | None = None, multiple: int = 1
) -> RowPlan:
    """The cheapest shape that holds batches like the ones given.

    Args:
      batches: number of tokens (int [n]) of every sequence, for some batches; none empty.
      length: T if it must be a certain one; else one of `LENGTHS`.
      multiple: the number of rows is a multiple of this, to be split evenly among devices.

    ValueError if a sequence is longer than `length`.
    """
    longest = max(int(lengths.max()) for lengths in batches)
    if length is not None and longest > length:
        raise ValueError(_too_long("a sequence", longest, length))
    shortest = next((size for size in LENGTHS if size >= longest), longest)
    sizes = [size for size in LENGTHS if shortest <= size <= 4 * shortest] or [longest]

    def plan(size: int) -> RowPlan:
        needed = max(int(_place(lengths, size).row.max()) + 1 for lengths in batches)
        return RowPlan(-(-needed // multiple) * multiple, size)

    return min(map(plan, sizes if length is None else [length]), key=_cost)


def plan_completions(shortest: int, longest: int, n: int, multiple: int = 1) -> RowPlan:
    """Rows for n texts of between `shortest` and `longest` tokens, before they are there."""
    lengths = np.linspace(shortest, longest, max(n, 2)).astype(int)
    return plan_rows([lengths], multiple=multiple)


def _cost(plan: RowPlan) -> float:
    """Proportional to the time of a step."""
    return plan.rows * plan.length * (EVEN_LENGTH + plan.length)


def _too_long(name: str, n_tokens: int, length: int) -> str:
    return f"{name} has {n_tokens} tokens, and rows {length}: shorten it or take longer rows"


class _Places(NamedTuple):
    """Row of each of n sequences (int [n])."""

    row: np.ndarray
    start: np.ndarray
    segment: np.ndarray


def _place(lengths: np.ndarray, length: int) -> _Places:
    """First-fit decreasing: the longest sequence first, each into the first row with room."""
    room = np.full(max(1, len(lengths)), length)
    held = np.zeros_like(room)
    row, start, segment = (np.empty(len(lengths), np.int64) for _ in range(3))
    for i in np.argsort(-lengths, kind="stable"):
        chosen = int((room >= lengths[i]).argmax())
        held[chosen] += 1
        row[i], start[i], segment[i] = chosen, length - room[chosen], held[chosen]
        room[chosen] -= lengths[i]
    return _Places(row, start, segment)


def _rounded_up(n: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is no less than n."""
    power = 1 << (n - 1).bit_length()
    return 3 * power // 4 if power >= 4 and 3 * power // 4 >= n else power
