"""Methods to split texts into tokens, for models trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from crystaljax.text.expressions import SYMBOLS_AND_CHARACTERS
from crystaljax.text.tokenizer import Tokenizer
from crystaljax.text.tokenizer_training import train_bpe, train_words, words_and_more
from crystaljax.tokenizations.base import TextFormat

Cutting = Literal["symbols", "own", "bpe"]
"""Symbols of elements, digits, letters and marks; the words of the text format's own vocabulary;
or byte-level BPE learnt from the texts."""

N_BPE = 512
"""Default vocabulary of a BPE tokenizer."""


def make_tokenizer(
    cutting: Cutting,
    texts: Sequence[str],
    format: TextFormat | None = None,
    n_vocabulary: int | None = None,
    pattern: str = "",
    added: Sequence[str] = (),
) -> Tokenizer:
    """A tokenizer that splits texts by one of the methods.

    Args:
      texts: its training texts: prompts and completions.
      format: the text format of the completions. Its `vocabulary` is used with "own", its
        `symbols`, a regular expression for tokens, with "symbols", if it has them.
      n_vocabulary: largest number of tokens; by default `N_BPE` with "bpe", else no limit.
      pattern: with "symbols": a regular expression for tokens, instead of the format's `symbols`.
      added: texts that are one token each, e.g. tags.

    ValueError if there are no texts, for a format without a vocabulary, and for a vocabulary that
    is too small for the format's words.
    """
    if cutting == "bpe":
        return train_bpe(texts, N_BPE if n_vocabulary is None else n_vocabulary, added)
    if cutting == "own":
        tokenizer = words_and_more(own_vocabulary(format), texts, added)
    else:
        pattern = pattern or getattr(format, "symbols", SYMBOLS_AND_CHARACTERS)
        tokenizer = train_words(texts, pattern, added)
    needed = tokenizer.n_vocabulary()
    if n_vocabulary is not None and needed > n_vocabulary:
        raise ValueError(
            f"a vocabulary of {n_vocabulary} is too small for {needed} tokens: allow more, widen"
            " the bins of the format if it has some, or choose bpe"
        )
    return tokenizer


def own_vocabulary(format: TextFormat | None) -> list[str]:
    """The words of a text format; ValueError if it has no vocabulary of its own."""
    vocabulary = getattr(format, "vocabulary", None)
    if vocabulary is None:
        name = "texts that are no crystals" if format is None else type(format).__name__
        raise ValueError(
            f"{name}: there is no vocabulary of its own (formats such as wyckoff-bins and"
            " site-symmetry have one): choose symbols or bpe"
        )
    words: list[str] = vocabulary()
    return words
