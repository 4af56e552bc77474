"""Compact tables of allowed next tokens, for large vocabularies and many states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from crystaljax.crystal import Array

START_STATE = 0
"""The state before the first token."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenGrammar:
    """An automaton of N states over V tokens, in numpy or on the devices.

    Tokens that are equivalent in every state form a class, and states that allow the same classes
    share a row of one table. Only the next states are stored for each state separately.
    """

    token_class: Array
    """int32 [V]: class of each token, among C; class 0 is never allowed."""
    rank: Array
    """int32 [R, C]: rank of a class among those that a row allows; −1 where it is forbidden."""
    row: Array
    """int32 [N]: row of each state."""
    first: Array
    """int32 [N]: start of a state's part of `following`."""
    following: Array
    """int32 [M]: next states by rank, concatenated over states."""
    accepting: Array
    """bool [N]: whether the text may end in a state. End tokens themselves have class 0."""

    @property
    def n_states(self) -> int:
        """N"""
        return len(self.accepting)

    @property
    def n_vocabulary(self) -> int:
        """V"""
        return len(self.token_class)

    def allowed(self, state: Array) -> Array:
        """bool [..., V]: the tokens allowed in some states, int [...]."""
        return (self.rank[self.row[state]] >= 0)[..., self.token_class]

    def after(self, state: Array, token: Array) -> Array:
        """int [...]: the states after tokens, int [...]; −1 where they are not allowed."""
        rank = self.rank[self.row[state], self.token_class[token]]
        following = self.following[(self.first[state] + rank) * (rank >= 0)]
        return (following + 1) * (rank >= 0) - 1

    def padded(self) -> TokenGrammar:
        """The same grammar (numpy) with sizes (except V) padded to powers of two: few are compiled.

        Added states are unreachable, and allow and accept nothing. All arrays are copies.
        """
        return TokenGrammar(
            self.token_class.copy(),
            _enlarged(_enlarged(self.rank, 0, -1), 1, -1),
            _enlarged(self.row, 0, 0),
            _enlarged(self.first, 0, 0),
            _enlarged(self.following, 0, 0),
            _enlarged(self.accepting, 0, False),
        )

    def stuck(self) -> np.ndarray:
        """int [...]: the dead ends (numpy): states that allow no token and no end."""
        can_go_on = np.asarray(self.rank).max(axis=1)[np.asarray(self.row)] >= 0
        return np.flatnonzero(~(can_go_on | np.asarray(self.accepting)))


def from_table(next_state: np.ndarray, accepting: np.ndarray) -> TokenGrammar:
    """The grammar (numpy) of a whole table of next states, int [N, V], −1 for forbidden tokens."""
    state, token = np.nonzero(next_state >= 0)
    columns = np.arange(next_state.shape[1])
    return from_transitions(columns, state, token, next_state[state, token], accepting)


def from_transitions(
    column: np.ndarray,
    state: np.ndarray,
    label: np.ndarray,
    following: np.ndarray,
    accepting: np.ndarray,
) -> TokenGrammar:
    """The grammar (numpy) of T transitions, each of one state and label once.

    Args:
      column: int [V], the label of each token; −1 for tokens that are never allowed.
      state, label, following: int [T], the next state after any token of a label.
      accepting: bool [N].
    """
    order = np.lexsort((state, label))
    state, label, following = (x[order].astype(np.int32) for x in (state, label, following))
    labels = _grouped(label, state, following)
    of_label = np.zeros(max(column.max(initial=-1), label.max(initial=-1)) + 2, np.int32)
    of_label[labels.key] = labels.group + 1  # other labels, and −1, are never allowed
    kept = np.repeat(labels.is_first, labels.size)
    state, label, following = state[kept], of_label[label[kept]], following[kept]

    order = np.lexsort((label, state))
    state, label, following = state[order], label[order], following[order]
    states = _grouped(state, label)
    n_states, n_rows = len(accepting), states.group.max(initial=-1) + 1
    # the last row is for states without a next token, and allows nothing
    rank = np.full((n_rows + 1, labels.group.max(initial=-1) + 2), -1, np.int32)
    place = np.arange(len(state)) - np.repeat(states.start, states.size)
    rank[np.repeat(states.group, states.size), label] = place
    row, first = np.full(n_states, n_rows, np.int32), np.zeros(n_states, np.int32)
    row[states.key], first[states.key] = states.group, states.start
    following = following if len(following) else np.zeros(1, np.int32)
    return TokenGrammar(of_label[column], rank, row, first, following, accepting.astype(bool))


def _enlarged(x: np.ndarray, axis: int, blank: int) -> np.ndarray:
    """An array with the next power of two as its size along an axis."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, (1 << (x.shape[axis] - 1).bit_length()) - x.shape[axis])
    return np.pad(x, widths, constant_values=blank)


class _Runs(NamedTuple):
    """Runs of equal keys, grouped by their values."""

    key: np.ndarray
    """int [K]: the key of each run."""
    start: np.ndarray
    """int [K]: start of the run."""
    size: np.ndarray
    """int [K]: length of the run."""
    group: np.ndarray
    """int [K]: number of its group; runs with the same values are in one group."""
    is_first: np.ndarray
    """bool [K]: whether it is the first of its group."""


def _grouped(key: np.ndarray, *values: np.ndarray) -> _Runs:
    """The runs of sorted keys, int [T], grouped by their values, int [T] each."""
    start = np.flatnonzero(np.diff(key, prepend=key[:1] - 1))
    end = np.append(start[1:], len(key))[: len(start)]
    numbers: dict[tuple[bytes, ...], int] = {}
    group, is_first = np.zeros(len(start), np.int32), np.zeros(len(start), bool)
    for i, (low, high) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        content = tuple(x[low:high].tobytes() for x in values)
        is_first[i] = content not in numbers
        group[i] = numbers.setdefault(content, len(numbers))
    return _Runs(key[start], start, end - start, group, is_first)
