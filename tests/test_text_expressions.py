"""Regular expressions for many words."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.text.expressions import one_of


@given(
    st.sets(st.text("ab0.\n -^]\\&~Å°", max_size=4), min_size=1), st.text("ab0.\n -^]", max_size=4)
)
def test_it_matches_the_words_alone(words: set[str], other: str) -> None:
    pattern = re.compile(one_of(words))
    assert all(pattern.fullmatch(word) for word in words)
    assert bool(pattern.fullmatch(other)) == (other in words)


@given(st.sets(st.text("ab", max_size=4), min_size=1), st.text("ab", max_size=6))
def test_it_takes_the_longest(words: set[str], text: str) -> None:
    fitting = [word for word in words if text.startswith(word)]
    match = re.match(one_of(words), text)
    assert (match[0] if match else None) == max(fitting, key=len, default=None)


def test_it_is_short() -> None:
    numbers = [f"0.{i:03d}" for i in range(1000)]
    digits = "[0123456789]"
    assert one_of(numbers) == rf"0\.{digits}{digits}{digits}"


def test_no_word() -> None:
    with pytest.raises(ValueError, match="no word"):
        one_of([])
    assert one_of([""]) == ""


def test_the_syntax_is_that_of_grammars() -> None:
    """All punctuation, blanks and letters beyond ASCII are words of a grammar."""
    pytest.importorskip("transformers")
    from crystaljax.text.grammar import accepts, from_regex
    from crystaljax.text.tokenizer_training import from_vocabulary

    words = [*map(chr, range(32, 127)), "\n", "Å", "90.5°"]
    tokenizer = from_vocabulary(words)
    grammar = from_regex(f"(?:{one_of(words)})+", tokenizer, tokenizer.n_vocabulary())
    assert accepts(grammar, tokenizer.encode(["".join(words)])[0])
