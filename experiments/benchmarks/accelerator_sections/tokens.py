"""Placeholder tokenizer for language models on random tokens."""

from __future__ import annotations

from typing import Any, cast

from crystaljax.text.tokenizer import Tokenizer


class _NoTexts:
    """Tokenizer of a `TextPolicy` that never tokenises."""

    end_ids = ()

    def n_vocabulary(self) -> int:
        """No token is needed."""
        return 0


def NoTexts() -> Tokenizer:
    """A tokenizer of no tokens."""
    return cast(Tokenizer, cast(Any, _NoTexts()))
