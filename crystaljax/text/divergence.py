"""KL divergence between two states of a language model, token by token."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from crystaljax.crystal import Array
from crystaljax.evaluation.rates import Measure
from crystaljax.models.llm.likelihood import token_divergences
from crystaljax.policies.text import Params, TextPolicy
from crystaljax.text.batches import fixed_batches
from crystaljax.text.packing import PackedTexts, TokenSequence, per_sequence
from crystaljax.text.tokenizer import Tokenizer

END, OTHER = "end", "other"
"""Kinds of tokens: special ones (no text), and those that no pattern describes."""


@dataclass(frozen=True)
class TokenDivergence:
    """Forward KL(p ‖ q) at the position of each of the K completion tokens of N texts."""

    n: int
    """N."""
    divergence: np.ndarray
    """float64 [K]: nats, between the distributions of the token given the tokens before it."""
    sample: np.ndarray
    """int [K]: number of the token's text; ascending."""
    token: np.ndarray
    """str [K]: text of the token."""
    kind: np.ndarray
    """str [K]: kind of most of its bytes: a named group of the pattern, "other" or "end"."""
    span: np.ndarray
    """str [K]: the match that the token is part of, e.g. "Ni" for a token "i"; "" for others."""

    def by_kind(self) -> list[Measure]:
        """Nats per text that each kind adds to the divergence, and "all": means of N texts."""
        words = "KL divergence summed over a completion's tokens of this kind"
        chosen = {name: self.kind == name for name in dict.fromkeys(self.kind.tolist())}
        chosen["all"] = np.ones(len(self.kind), bool)
        return [
            Measure.mean(
                name,
                np.bincount(self.sample[rows], self.divergence[rows], minlength=self.n),
                "nat",
                words,
                denominator="texts",
            )
            for name, rows in chosen.items()
        ]


def token_divergence(
    policy: TextPolicy,
    p: Params,
    q: Params,
    sequences: Sequence[TokenSequence],
    kinds: re.Pattern[bytes],
    batch_size: int = 32,
) -> TokenDivergence:
    """KL(p ‖ q) at every completion token of N texts, for two states of a policy's parameters.

    Summed over a text drawn from p, it estimates the divergence of the two distributions of texts
    with less noise than log p − log q. `kinds` is searched in each completion, and its named groups
    are the kinds of tokens. ValueError if the tokenizer's tokens do not stand for bytes, naming a
    sequence that cannot be packed, or if there is none.
    """
    if not sequences:
        raise ValueError("no texts to compare the models on")

    @jax.jit
    def divergences(p: Params, q: Params, frozen: Params, packed: PackedTexts) -> Array:
        one, other = (policy.network(params, frozen) for params in (p, q))
        values = [token_divergences(one, other, rows) for rows in packed]
        return per_sequence(values, packed, batch_size)

    found: list[np.ndarray] = []
    sizes = batch_size, policy.config.width, policy.mesh.size
    for packed, where in fixed_batches(sequences, *sizes):
        values = np.asarray(divergences(p, q, policy.frozen, packed), np.float64)
        for row, i in enumerate(where.tolist()):
            tokens, n_prompt = sequences[i]
            found.append(values[row, max(n_prompt, 1) : len(tokens)])
    completions = [tokens[max(n_prompt, 1) :] for tokens, n_prompt in sequences]
    labels = [
        label for text in _pieces(policy.tokenizer, completions) for label in _labels(text, kinds)
    ]
    token, kind, span = (np.array(column, object) for column in zip(*labels, strict=True))
    return TokenDivergence(
        len(sequences),
        np.concatenate(found),
        np.repeat(np.arange(len(sequences)), [len(each) for each in found]),
        token,
        kind,
        span,
    )


def _pieces(tokenizer: Tokenizer, completions: Sequence[np.ndarray]) -> list[list[bytes]]:
    """Bytes of each token's text; empty for special tokens."""
    table = tokenizer.token_bytes()
    return [[table[i] or b"" for i in tokens.tolist()] for tokens in completions]


def _labels(pieces: Sequence[bytes], kinds: re.Pattern[bytes]) -> list[tuple[str, str, str]]:
    """Text, kind and span of each token."""
    text = b"".join(pieces)
    of_byte = [(OTHER, "")] * len(text)
    for match in kinds.finditer(text):
        start, end = match.span()
        label = match.lastgroup or OTHER, match.group().decode(errors="replace")
        of_byte[start:end] = [label] * (end - start)
    found, start = [], 0
    for piece in pieces:
        end = start + len(piece)
        # With equally many bytes the first kind counts.
        kind, span = Counter(of_byte[start:end]).most_common(1)[0][0] if piece else (END, "")
        found.append((piece.decode(errors="replace"), kind, span))
        start = end
    return found
