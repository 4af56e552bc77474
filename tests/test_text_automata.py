"""Automata of regular expressions, against Python's own matching."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystaljax.text.automata import compile_pattern

CHARACTERS = "abK\u212aßS_5٣ \nåé日😀"
"""With the Kelvin sign, which is a k to IGNORECASE, and characters of one to four bytes."""


def patterns() -> st.SearchStrategy[str]:
    """Regular expressions with sets, classes and repetitions of all kinds."""
    sets = [
        "a",
        "b",
        "é",
        "[ab]",
        "[^a]",
        "[à-ü]",
        "[^\\W\\d]",
        "\\s",
        "\\d",
        ".",
        "(?i:k)",
        "[å日]",
    ]
    return st.recursive(
        st.sampled_from(sets),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
            st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,3}", "{1,}", "*?"])).map(
                lambda one: f"({one[0]}){one[1]}"
            ),
        ),
        max_leaves=6,
    )


@settings(max_examples=60, deadline=None)
@given(patterns())
def test_every_short_text_of_any_pattern(pattern: str) -> None:
    automaton, expected = compile_pattern(pattern), re.compile(pattern)
    for n in range(4):
        for text in map("".join, itertools.product(CHARACTERS, repeat=n)):
            assert automaton.matches(text.encode()) == bool(expected.fullmatch(text))


@pytest.mark.parametrize("pattern", [r"\w", r"\D", ".", "(?s).", r"[^a-zé]", "(?i)[k-s]", "[߿-ࠀ]"])
def test_every_character(pattern: str) -> None:
    """Of all code points that have UTF-8, one in 13, and those where lengths of UTF-8 change."""
    automaton, expected = compile_pattern(pattern), re.compile(pattern)
    borders = [0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF]
    for code in [*range(0, 0x110000, 13), *borders]:
        if not 0xD800 <= code <= 0xDFFF:
            matches = automaton.matches(chr(code).encode())
            assert matches == bool(expected.fullmatch(chr(code)))


def test_bytes_that_are_no_character() -> None:
    """Surrogates, and encodings longer than need be."""
    automaton = compile_pattern("(?s).")
    for text in (b"\xed\xa0\x80", b"\xc0\x80", b"\xe0\x80\x80", b"\xf4\x90\x80\x80", b"\x80", b""):
        assert not automaton.matches(text)


def test_size() -> None:
    """Equal continuations are one state: alternatives cost what they differ in."""
    words = ["ab", "cb", "db", "xyb", "zyb"]
    automaton = compile_pattern("|".join(f"{word}[0-9]{{9}}" for word in words))
    assert len(automaton.accepting) == 3 + 10  # the start, before y, before b, and the digits
    assert automaton.next_state.shape[1] == 9  # seven letters, digits, all others
    with pytest.raises(ValueError, match="more than 50 states: bound its repetitions"):
        compile_pattern("a{49}|b{20}c", max_states=50)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a", "missing"),
        ("a)|(b", "unbalanced"),
        ("a(?=b)", "look-around"),
        ("a(?<!b)", "look-around"),
        (r"(a)\1", "back-reference"),
        (r"(a)?(?(1)b|c)", "back-reference"),
        ("^a", "anchor"),
        (r"a\b", "anchor"),
        ("a++", "possessive_repeat"),
        ("(?>a)", "atomic_group"),
    ],
)
def test_what_no_automaton_has(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        compile_pattern(pattern)
