"""What every tokenization offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from crystaljax.crystal import Crystals

TokensT = TypeVar("TokensT")


@dataclass(frozen=True)
class Decoded:
    """What became of B sequences."""

    crystals: Crystals
    """[B]; rows that are no crystal are all zero."""
    ok: np.ndarray
    """bool [B]: the sequence describes a crystal."""
    reasons: list[str | None]
    """[B]: why it does not, None where it does."""


class Tokenization(Protocol, Generic[TokensT]):
    """A way to write crystals as sequences; `TokensT` is a batched pytree of arrays.

    Each tokenization defines its own tokens, and the policies that speak it know their layout.
    """

    def encode(self, crystals: Crystals) -> TokensT:
        """Tokens of B crystals; ValueError naming the first that cannot be written."""
        ...

    def decode(self, tokens: TokensT) -> Decoded:
        """The crystals that B sequences describe; a bad sequence costs itself alone."""
        ...
