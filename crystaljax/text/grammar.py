"""Grammars for constrained sampling: the tokens allowed next, and whether a text may end.

A sampling step takes `allowed = grammar.allowed(state)`, draws one of the allowed tokens (or an end
token, if `grammar.accepting[state]`), and sets `state = grammar.after(state, token)`.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from crystaljax.data.files import cache_dir, replacing
from crystaljax.models.llm.token_grammar import START_STATE, TokenGrammar, from_transitions
from crystaljax.text.automata import compile_pattern
from crystaljax.text.token_walk import Transitions, columns_and_transitions, pruned
from crystaljax.text.tokenizer import Tokenizer

KEPT_SECONDS = 1.0
"""Grammars that take longer than this to build are kept on disk."""

_VERSION = 1
"""Version of the files on disk."""


def from_regex(pattern: str, tokenizer: Tokenizer, n_vocabulary: int) -> TokenGrammar:
    r"""The grammar (numpy) of the texts that match a regular expression as a whole (fullmatch).

    If it takes long to build it is kept in the cache (see `data.files.cache_dir`).

    Args:
      pattern: in Python's syntax, without look-around, anchors and back-references. \d and \w are
        Unicode's; write [0-9] and [A-Za-z] for small tables.
      n_vocabulary: V, the number of logits, at least the tokenizer's; tokens beyond are forbidden.

    ValueError for an invalid pattern, one that no sequence of tokens can match, and one whose
    automaton is too large.
    """
    tokens = tokenizer.token_bytes()
    _check_size(n_vocabulary, len(tokens))
    path = _path(pattern, tokens, n_vocabulary)
    kept = _read(path)
    if kept is not None:
        return kept
    start = time.perf_counter()
    try:
        automaton = compile_pattern(pattern)
        column, transitions = columns_and_transitions(automaton, tokens)
        transitions, accepting = pruned(transitions, automaton.accepting)
    except ValueError as error:
        raise ValueError(f"no grammar from the pattern {_shortened(pattern)}: {error}") from error
    column = np.pad(column, (0, n_vocabulary - len(column)), constant_values=-1)
    grammar = from_transitions(column, *transitions, accepting)
    if time.perf_counter() - start > KEPT_SECONDS:
        _write(path, grammar)
    return grammar


def from_texts(texts: Iterable[str], tokenizer: Tokenizer, n_vocabulary: int) -> TokenGrammar:
    """The grammar (numpy) of exactly the given texts, tokenised as by the tokenizer.

    Args as for `from_regex`. ValueError if there is no text.
    """
    after: list[dict[int, int]] = [{}]
    final = set()
    for tokens in tokenizer.encode(list(texts)):
        state = START_STATE
        for token in tokens.tolist():
            following = after[state].setdefault(token, len(after))
            if following == len(after):
                after.append({})
            state = following
        final.add(state)
    if not final:
        raise ValueError("no texts to make a grammar of")
    found = [
        (state, token, following)
        for state, tokens in enumerate(after)
        for token, following in tokens.items()
    ]
    transitions = Transitions(*np.array(found, np.int32).reshape(-1, 3).T)
    _check_size(n_vocabulary, tokenizer.n_vocabulary())
    return from_transitions(
        np.arange(n_vocabulary), *transitions, np.isin(np.arange(len(after)), list(final))
    )


def accepts(grammar: TokenGrammar, tokens: Sequence[int] | np.ndarray) -> bool:
    """Whether the grammar accepts a whole sequence (numpy, without end token)."""
    state = START_STATE
    for token in tokens:
        state = int(grammar.after(np.int32(state), np.int32(token)))
        if state < 0:
            return False
    return bool(grammar.accepting[state])


def _shortened(pattern: str) -> str:
    return repr(pattern) if len(pattern) <= 60 else f"{pattern[:60]!r}..."


def _check_size(n_vocabulary: int, n_tokens: int) -> None:
    if n_vocabulary < n_tokens:
        raise ValueError(
            f"a grammar for {n_vocabulary} logits, and the tokenizer has {n_tokens} tokens: make "
            "it for the model's vocabulary"
        )


def _path(pattern: str, tokens: Sequence[bytes | None], n_vocabulary: int) -> Path:
    """Cache file of the grammar, named by a hash of everything that it depends on."""
    digest = hashlib.blake2b(digest_size=16)
    lengths = [-1 if token is None else len(token) for token in tokens]
    digest.update(repr((_VERSION, n_vocabulary, pattern, lengths)).encode())
    digest.update(b"".join(token or b"" for token in tokens))
    return cache_dir() / "grammars" / f"{digest.hexdigest()}.npz"


def _read(path: Path) -> TokenGrammar | None:
    """A grammar from the cache; None if it is not there or cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return TokenGrammar(
                **{field.name: arrays[field.name] for field in fields(TokenGrammar)}
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, grammar: TokenGrammar) -> None:
    """Write a grammar to the cache; if that is not writable, the grammar is rebuilt each time."""
    arrays = {field.name: getattr(grammar, field.name) for field in fields(TokenGrammar)}
    try:
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **arrays)
    except OSError:
        return
