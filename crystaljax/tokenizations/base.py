"""Protocols of tokenizations, and the result of decoding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from crystaljax.crystal import Crystals

TokensT = TypeVar("TokensT")


@dataclass(frozen=True)
class Decoded:
    """Results of decoding B sequences."""

    crystals: Crystals
    """[B]; rows without a crystal are all zero."""
    ok: np.ndarray
    """bool [B]: the sequence describes a crystal."""
    reasons: list[str | None]
    """[B]: reason that it does not; None where it does."""


class Tokenization(Protocol, Generic[TokensT]):
    """A representation of crystals as sequences; `TokensT` is a batched pytree of arrays.

    Each tokenization defines its own tokens; the policies that use it know their layout.
    """

    def encode(self, crystals: Crystals) -> TokensT:
        """Tokens of B crystals; ValueError naming the first that cannot be written."""
        ...

    def decode(self, tokens: TokensT) -> Decoded:
        """The crystals that B sequences describe; a bad sequence makes only its own row not ok."""
        ...


@runtime_checkable
class TextFormat(Protocol):
    """A tokenization whose tokens are texts, for language models.

    `tokenizations.registry.create_format` makes one by name or from a user's file. Options should
    be fields of a dataclass, so that a model's folder can store them. Optional methods:

    - `vocabulary() -> list[str]`: words that its texts are made of, for tokenizers of words;
    - `symbols: str`: a regular expression for the tokens of its texts (`text.cutting`);
    - `augment(crystals, rng) -> list[str]`: texts of random descriptions of the same crystals,
      instead of those of `tokenizations.augmentation`.
    """

    def encode(self, crystals: Crystals) -> list[str]:
        """The text of each of B crystals; ValueError naming the first that cannot be written."""
        ...

    def decode(self, tokens: Sequence[str]) -> Decoded:
        """The crystals that B texts describe; a bad text makes only its own row not ok."""
        ...

    def pattern(
        self, space_groups: Iterable[int] | None = None, elements: Iterable[str] | None = None
    ) -> str:
        """A regular expression for the texts of crystals of the given space groups and elements.

        All groups and elements by default. The syntax is that of `text.grammar.from_regex`.
        """
        ...
