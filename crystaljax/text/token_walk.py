"""Transitions of an automaton over bytes by whole tokens.

All states walk down the trie of the tokens at once, level by level. So prefixes that tokens share
are walked once, and prefixes that no state allows are not walked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from crystaljax.text.automata import Automaton

MAX_TRANSITIONS = 50_000_000
"""Largest number of transitions; each takes about 40 bytes while a grammar is built."""

_AT_ONCE = 4_000_000
"""Number of steps to children in the trie that are computed at a time."""


class Transitions(NamedTuple):
    """Transitions from a state by a label to the next state, int32 [T] each."""

    state: np.ndarray
    label: np.ndarray
    following: np.ndarray

    def where(self, mask: np.ndarray) -> Transitions:
        """The transitions of a mask, bool [T]."""
        return Transitions(*(x[mask] for x in self))


class _Level(NamedTuple):
    """The nodes of one depth in a trie, sorted by parent."""

    first: np.ndarray
    """int [parents]: the first child of each node of the level above."""
    n_children: np.ndarray
    """int [parents]: its number of children."""
    symbol: np.ndarray
    """int [nodes]: the symbol that leads to a node."""
    label: np.ndarray
    """int [nodes]: the sequence that ends there, −1 if none does."""


def columns_and_transitions(
    automaton: Automaton, tokens: Sequence[bytes | None]
) -> tuple[np.ndarray, Transitions]:
    """The transitions by tokens, and the label of each token, int [V].

    Tokens of the same classes of bytes share a label. It is −1 for tokens that are in no text,
    among them None and b"". ValueError for more than `MAX_TRANSITIONS`.
    """
    lives = automaton.next_state.max(axis=0) >= 0
    classes = bytes(automaton.symbol.astype(np.uint8))
    unknown = bytes(np.flatnonzero(~lives[automaton.symbol]).astype(np.uint8))
    labels: dict[bytes, int] = {}
    column = np.full(len(tokens), -1, np.int32)
    for i, token in enumerate(tokens):
        if token and len(token.translate(None, unknown)) == len(token):
            column[i] = labels.setdefault(token.translate(classes), len(labels))
    return column, _walked(automaton, _trie(list(labels), len(lives)))


def _trie(sequences: Sequence[bytes], n_symbols: int) -> Iterator[_Level]:
    """The levels of the trie of sequences of symbols, starting below the root."""
    length = np.array([len(x) for x in sequences], np.int64)
    start = np.cumsum(length) - length
    flat = np.frombuffer(b"".join(sequences), np.uint8).astype(np.int64)
    node, n_parents = np.zeros(len(sequences), np.int64), 1
    for depth in range(length.max(initial=0)):
        longer = np.flatnonzero(length > depth)
        nodes, inverse = np.unique(
            node[longer] * n_symbols + flat[start[longer] + depth], return_inverse=True
        )
        node[longer] = inverse
        parent, symbol = np.divmod(nodes, n_symbols)
        count = np.bincount(parent, minlength=n_parents)
        label = np.full(len(nodes), -1, np.int32)
        ended = np.flatnonzero(length == depth + 1)
        label[node[ended]] = ended
        yield _Level(np.cumsum(count) - count, count, symbol, label)
        n_parents = len(nodes)


def _walked(automaton: Automaton, levels: Iterator[_Level]) -> Transitions:
    """The transitions from each state by each label that it allows."""
    states = np.arange(len(automaton.accepting), dtype=np.int32)
    walks = Transitions(states, np.zeros_like(states), states)  # labels: nodes of the trie
    found: list[Transitions] = []
    for level in levels:
        further: list[Transitions] = []
        for part in _parts(level, walks):
            further.append(_stepped(automaton, level, part))
            if sum(len(x.state) for x in [*found, *further]) > MAX_TRANSITIONS:
                raise ValueError(
                    f"more than {MAX_TRANSITIONS} transitions by tokens: bound its repetitions "
                    "more tightly, write [0-9] for \\d, or take a tokenizer of fewer tokens"
                )
        walks = _joined(further)
        label = level.label[walks.label]
        found.append(walks._replace(label=label).where(label >= 0))
    return _joined(found)


def _parts(level: _Level, walks: Transitions) -> Iterator[Transitions]:
    """The walks that continue, in chunks."""
    walks = walks.where(level.n_children[walks.label] > 0)
    steps = np.cumsum(level.n_children[walks.label])
    cuts = np.searchsorted(steps, np.arange(_AT_ONCE, steps[-1:].sum(), _AT_ONCE))
    ends = np.unique([0, *cuts.tolist(), len(steps)]).tolist()
    for low, high in pairwise(ends):
        yield Transitions(*(x[low:high] for x in walks))


def _stepped(automaton: Automaton, level: _Level, walks: Transitions) -> Transitions:
    """The walks after one more symbol, to each child that the automaton allows."""
    count = level.n_children[walks.label]
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    child = np.repeat(level.first[walks.label], count) + step
    following = automaton.next_state[np.repeat(walks.following, count), level.symbol[child]]
    alive = following >= 0
    start = np.repeat(walks.state, count)[alive]
    return Transitions(start, child[alive].astype(np.int32), following[alive])


def _joined(parts: Sequence[Transitions]) -> Transitions:
    empty = np.zeros(0, np.int32)
    return Transitions(*map(np.concatenate, zip(*parts, (empty,) * 3, strict=True)))


def pruned(
    transitions: Transitions, accepting: np.ndarray, start: int = 0
) -> tuple[Transitions, np.ndarray]:
    """The states on paths from the start to an accepting state, renumbered with the start as 0.

    accepting: bool [N], also of the result. ValueError if there is no such path.
    """
    n = len(accepting)
    state, _, following = transitions
    ends = np.flatnonzero(accepting)
    to_end = np.concatenate([following, np.full(len(ends), n)]), np.concatenate([state, ends])
    alive = _reached(*to_end, n + 1, n)[:n]
    if not alive[start]:
        raise ValueError("no sequence of tokens makes a text that matches it")
    transitions = transitions.where(alive[state] & alive[following])
    kept = _reached(transitions.state, transitions.following, n, start)
    transitions = transitions.where(kept[transitions.state])
    order = np.flatnonzero(kept)
    order = np.concatenate([[start], order[order != start]])
    number = np.zeros(n, np.int32)
    number[order] = np.arange(len(order))
    state, label, following = transitions
    return Transitions(number[state], label, number[following]), accepting[order]


def _reached(source: np.ndarray, target: np.ndarray, n: int, start: int) -> np.ndarray:
    """bool [n]: the nodes of a graph that can be reached from the start."""
    graph = csr_array((np.ones(len(source), bool), (source, target)), shape=(n, n))
    found = np.zeros(n, bool)
    found[breadth_first_order(graph, start, return_predecessors=False)] = True
    return found
