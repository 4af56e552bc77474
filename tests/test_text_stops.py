"""Stop strings among tokens."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.text.stops import Cut, StopStrings

PIECES = ["a", "b", "ab", "ba", "bab", "\n", "é"]


def decode(sequences: Sequence[np.ndarray]) -> list[str]:
    return ["".join(PIECES[i] for i in tokens) for tokens in sequences]


def decode_bytes(sequences: Sequence[np.ndarray]) -> list[str]:
    return [bytes(np.asarray(x, np.uint8)).decode(errors="replace") for x in sequences]


def test_a_text_ends_before_the_stop_string_and_its_tokens_with_it() -> None:
    stops = StopStrings(["\n"], decode)
    assert stops.cuts([np.array([2, 0, 5, 1])], [0]) == [Cut(3, "aba")]
    assert stops.cuts([np.array([2, 0, 1])], [0]) == [None]
    assert stops.cuts([np.array([5, 1])], [0]) == [Cut(1, "")]


def test_a_stop_string_that_spans_tokens_and_begins_inside_one() -> None:
    assert StopStrings(["bb"], decode).cuts([np.array([0, 2, 1, 0])], [0]) == [Cut(3, "aa")]


def test_what_is_complete_first_counts() -> None:
    stops = StopStrings(["\n", "bab"], decode)
    assert stops.cuts([np.array([0, 4, 5])], [0]) == [Cut(2, "a")]
    inside = StopStrings(["abab", "b"], decode)
    assert inside.cuts([np.array([0, 1, 0, 1])], [0]) == [Cut(2, "a")]
    assert inside.cuts([np.array([2, 2])], [0]) == [Cut(1, "a")]


def test_a_character_of_several_tokens() -> None:
    tokens = np.frombuffer("aé→b".encode(), np.uint8)
    assert StopStrings(["→"], decode_bytes).cuts([tokens], [0]) == [Cut(6, "aé")]
    assert StopStrings(["b"], decode_bytes).cuts([tokens], [4]) == [Cut(7, "aé→")]


@given(
    st.lists(st.integers(0, len(PIECES) - 1), max_size=60),
    st.lists(st.sampled_from(["ab", "bb", "\na", "babba", "é"]), min_size=1, max_size=3),
    st.integers(1, 7),
)
def test_found_in_chunks_as_token_by_token(tokens: list[int], stops: list[str], step: int) -> None:
    """Looking after every few tokens finds what a look after every token finds."""
    sequence, finder = np.array(tokens, np.int64), StopStrings(stops, decode)
    found = None
    for start in range(0, len(tokens), step):
        found = finder.cuts([sequence[: start + step]], [start])[0]
        if found:
            break
    expected = None
    for n in range(1, len(tokens) + 1):
        text = decode([sequence[:n]])[0]
        if places := [text.find(stop) for stop in stops if stop in text]:
            expected = Cut(n, text[: min(places)])
            break
    assert found == expected


def test_an_empty_stop_string_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty stop string"):
        StopStrings(["\n", ""], decode)
