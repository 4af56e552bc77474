"""Language models without texts: tokens are drawn at random."""

from __future__ import annotations

from typing import Any, cast

from crystaljax.text.tokenizer import Tokenizer


class _NoTexts:
    """Tokenizer of a `TextPolicy` where nothing is ever tokenised."""

    end_ids = ()

    def n_vocabulary(self) -> int:
        """No token is needed."""
        return 0


def NoTexts() -> Tokenizer:
    """A tokenizer of no tokens."""
    return cast(Tokenizer, cast(Any, _NoTexts()))
