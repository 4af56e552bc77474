"""Grammars that samples are held to: tables of the next state for each state and token.

While sampling, a step is `allowed = grammar.next_state[state] >= 0`, a draw among the allowed, and
`state = grammar.next_state[state, token]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from crystaljax.crystal import Array
from crystaljax.text.tokenizer import Tokenizer

MAX_BYTES = 2**30
"""The largest table made."""

START_STATE = 0
"""The state before the first token."""

_LAST_BYTE = b"\0"
"""Ends every text while it is compiled. outlines-core (0.2.14) loses ways from a state where a
text may end to one where it may not, e.g. in (ab)+; with this byte none goes on from its end."""

Transitions = dict[int, dict[int, int]]
"""For each state, the next state of each token allowed."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Grammar:
    """Transitions by token: N states, the first before any token, the last after an end token."""

    next_state: Array
    """int32 [N, V]: the state after each token; −1 where the token is forbidden. In the last state
    only the end tokens are allowed, and it stays there."""
    accepting: Array
    """bool [N]: the text may end here, and the end tokens are allowed."""

    @property
    def n_states(self) -> int:
        """N"""
        return len(self.accepting)


def from_regex(
    pattern: str, tokenizer: Tokenizer, n_vocabulary: int, max_bytes: int = MAX_BYTES
) -> Grammar:
    r"""The grammar of the texts that match a regular expression wholly (numpy).

    Args:
      pattern: in the syntax that Python and Rust's crate regex share, so without look-around and
        back-references. \d and \w are Unicode's; write [0-9] and [A-Za-z] for small tables.
      n_vocabulary: V, the number of logits, at least the tokenizer's; tokens beyond are forbidden.
      max_bytes: the largest table to make.

    ValueError for a pattern that is none or that no sequence of tokens can match, and if the table
    would be too large. ImportError without the package outlines-core.
    """
    outlines = _outlines()
    try:
        re.compile(pattern)
    except re.error as error:
        raise _no_grammar(pattern, error) from error
    last = tokenizer.n_vocabulary()  # a token of our own
    tokens = _tokens_of_bytes(tokenizer) | {_LAST_BYTE: [last]}
    # outlines-core refuses patterns with characters that no token has: ways through these end.
    missing = [bytes([i]) for i in range(256) if bytes([i]) not in tokens]
    made_up = {byte: [last + 1 + i] for i, byte in enumerate(missing)}
    try:
        index = outlines.Index(
            f"(?:{pattern}){_LAST_BYTE.decode()}",
            outlines.Vocabulary(last + 1 + len(made_up), tokens | made_up),
        )
    except ValueError as error:
        raise _no_grammar(pattern, error) from error
    transitions: Transitions = {
        state: {token: to for token, to in after.items() if token <= last}
        for state, after in index.get_transitions().items()
    }
    ended = set(index.get_final_states())
    final = {state for state, after in transitions.items() if after.pop(last, None) in ended}
    return _compiled(
        transitions,
        index.get_initial_state(),
        final,
        tokenizer.end_ids,
        n_vocabulary,
        max_bytes,
        repr(pattern),
    )


def from_texts(
    texts: Iterable[str], tokenizer: Tokenizer, n_vocabulary: int, max_bytes: int = MAX_BYTES
) -> Grammar:
    """The grammar of the given texts alone (numpy), each in the tokens the tokenizer gives it.

    Args as for `from_regex`. ValueError if there is no text, or the table would be too large.
    """
    transitions: Transitions = {0: {}}
    final = set()
    for tokens in tokenizer.encode(list(texts)):
        state = 0
        for token in tokens.tolist():
            state = transitions[state].setdefault(token, len(transitions))
            transitions.setdefault(state, {})
        final.add(state)
    return _compiled(
        transitions, 0, final, tokenizer.end_ids, n_vocabulary, max_bytes, "the texts given"
    )


def accepts(grammar: Grammar, tokens: Sequence[int] | np.ndarray) -> bool:
    """Whether a sequence (numpy, without end token) is a whole text of the grammar."""
    state = START_STATE
    for token in tokens:
        state = int(grammar.next_state[state, token])
        if state < 0:
            return False
    return bool(grammar.accepting[state])


def _no_grammar(pattern: str, error: Exception) -> ValueError:
    """An error with its reason; messages repeat the pattern, which may be long, and end with it."""
    return ValueError(f"no grammar from the pattern {pattern[:60]!r}: ... {str(error)[-240:]}")


def _outlines() -> Any:
    """The package outlines-core; ImportError saying how to install it."""
    try:
        import outlines_core
    except ImportError as error:
        raise ImportError(
            'outlines-core is not installed: run pip install "crystaljax[llm]"'
        ) from error
    return outlines_core


def _tokens_of_bytes(tokenizer: Tokenizer) -> dict[bytes, list[int]]:
    """The tokens that stand for each string of bytes; special tokens stand for none.

    Tokens with `_LAST_BYTE` in them are left out.
    """
    found: dict[bytes, list[int]] = {}
    for i, text in enumerate(tokenizer.token_bytes()):
        if text and _LAST_BYTE not in text:
            found.setdefault(text, []).append(i)
    return found


def _compiled(
    transitions: Transitions,
    start: int,
    final: set[int],
    ends: tuple[int, ...],
    n_vocabulary: int,
    max_bytes: int,
    name: str,
) -> Grammar:
    """The tables of the states that are on a way from the start to an end."""
    alive = _alive(transitions, final)
    if start not in alive:
        raise ValueError(f"no sequence of tokens makes a text of {name}")
    states = _reached(transitions, start, alive)
    n_states = len(states) + 1
    size = 4 * n_states * n_vocabulary
    if size > max_bytes:
        raise ValueError(
            f"the grammar of {name} has {n_states} states, and with {n_vocabulary} tokens a table "
            f"of {size / 2**30:.2g} GiB, more than {max_bytes / 2**30:.2g}: bound its repetitions "
            "more tightly, write [0-9] for \\d, or take a tokenizer of fewer tokens"
        )
    number = {state: i for i, state in enumerate(states)}
    table = np.full((n_states, n_vocabulary), -1, np.int32)
    for state, i in number.items():
        kept = [
            (token, number[to]) for token, to in transitions.get(state, {}).items() if to in number
        ]
        if kept:
            tokens, following = np.array(kept).T
            table[i, tokens] = following
    accepting = np.array([state in final for state in states] + [True])
    table[np.ix_(accepting, np.array(ends))] = n_states - 1
    return Grammar(table, accepting)


def _alive(transitions: Transitions, final: set[int]) -> set[int]:
    """The states from which an end can be reached."""
    before: dict[int, set[int]] = {}
    for state, following in transitions.items():
        for to in set(following.values()):
            before.setdefault(to, set()).add(state)
    return _closure(final, before)


def _reached(transitions: Transitions, start: int, alive: set[int]) -> list[int]:
    """The live states that can be reached from the start, itself first."""
    after = {state: set(following.values()) & alive for state, following in transitions.items()}
    others = _closure({start}, after) - {start}
    return [start, *sorted(others)]


def _closure(some: set[int], neighbors: dict[int, set[int]]) -> set[int]:
    """Those states, and all that are reached from them."""
    found, new = set(some), list(some)
    while new:
        for state in neighbors.get(new.pop(), set()) - found:
            found.add(state)
            new.append(state)
    return found
