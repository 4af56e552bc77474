"""Reasons in words."""

from collections import Counter

from crystaljax.reasons import in_words


def test_reasons_in_words() -> None:
    assert in_words(["a", None, "b", "b"]) == "2 × b; 1 × a"
    assert in_words([None]) == in_words([]) == ""
    near = [f"atoms {x} Å apart" for x in (0.38, 0.1, 0.38)]
    assert in_words(["b", *near]) == "3 × atoms 0.38 Å apart (or similar); 1 × b"


def test_counted_reasons() -> None:
    assert in_words(Counter({"a": 1, "0.1 b": 3, "0.2 b": 4})) == "7 × 0.2 b (or similar); 1 × a"


def test_others_are_not_told() -> None:
    assert in_words("aabbbc", shown=2) == "3 × b; 2 × a; ..."
