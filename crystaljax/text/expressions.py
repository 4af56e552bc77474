"""Regular expressions for many words at once."""

from __future__ import annotations

import re
from collections.abc import Iterable

SYMBOLS_AND_CHARACTERS = r"[A-Z][a-z]?|[\s\S]"
"""Symbols of elements, and all else character by character."""


def one_of(words: Iterable[str]) -> str:
    """A regular expression for any of the words; where several fit, it takes the longest.

    It branches by one character after another, and characters with the same continuations share
    a branch. So 0.000, 0.001, ... 0.999 become 0, a point and three classes of ten digits.
    ValueError if there is no word.
    """
    remaining = set(words)
    if not remaining:
        raise ValueError("a regular expression for no word at all")
    after: dict[str, set[str]] = {}
    for word in remaining - {""}:
        after.setdefault(word[0], set()).add(word[1:])
    starts: dict[str, list[str]] = {}
    for character in sorted(after):
        starts.setdefault(one_of(after[character]), []).append(character)
    branches = [_any(characters) + rest for rest, characters in starts.items()]
    both = "|".join(branches)
    if "" in remaining:
        one_character = list(starts) == [""]
        return (both if one_character else f"(?:{both})") + "?" if branches else ""
    return f"(?:{both})" if len(branches) > 1 else both


def _any(characters: list[str]) -> str:
    """One of the characters, in the syntax that Python and Rust's crate regex share."""
    escaped = [c if c.isalnum() or c.isspace() else re.escape(c) for c in characters]
    return escaped[0] if len(escaped) == 1 else f"[{''.join(escaped)}]"
