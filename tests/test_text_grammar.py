"""Grammars: what they let through matches, and what matches they let through."""

import builtins
import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")
pytest.importorskip("outlines_core")
from small_text import TRIPLES, bpe, words

from crystaljax.text.grammar import START_STATE, Grammar, accepts, from_regex, from_texts
from crystaljax.text.tokenizer import Tokenizer
from crystaljax.text.tokenizer_training import train_bpe

ELEMENT = "(?:Nb|Mo|Zr|Ti|Ru|Cr|Fe|Mn|Al|W|Ta|V|Ni)"
PATTERN = (
    rf"<BCC>(?:{ELEMENT}[1-9][0-9]?){{2}}</BCC> <B2>(?:{ELEMENT}2?){{2,3}}</B2> "
    r"<B2_Volume>[1-9][0-9]\.[0-9]</B2_Volume>"
)
TAGGED = train_bpe(TRIPLES, 300, ["<BCC>", "</BCC>", "<B2>", "</B2>"])
TOKENIZERS = [bpe(), words(), TAGGED]
V = 384


def drawn(grammar: Grammar, tokenizer: Tokenizer, rng: np.random.Generator) -> list[int]:
    """A random sequence that the masks allow, without its end token."""
    tokens: list[int] = []
    state = START_STATE
    while True:
        token = int(rng.choice(np.flatnonzero(grammar.next_state[state] >= 0)))
        state = int(grammar.next_state[state, token])
        if token == tokenizer.end_id:
            return tokens
        tokens.append(token)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_what_is_drawn_matches(tokenizer: Tokenizer) -> None:
    grammar = from_regex(PATTERN, tokenizer, V)
    assert grammar.next_state.shape == (grammar.n_states, V)
    rng = np.random.default_rng(0)
    tokens = [drawn(grammar, tokenizer, rng) for _ in range(300)]
    texts = tokenizer.decode(tokens)
    assert all(re.fullmatch(PATTERN, text) for text in texts)
    assert all(accepts(grammar, each) for each in tokens)
    assert len(set(texts)) > 250


@pytest.mark.parametrize("tokenizer", [bpe(), TAGGED])
@settings(max_examples=100)
@given(text=st.from_regex(PATTERN, fullmatch=True))
def test_what_matches_is_accepted(tokenizer: Tokenizer, text: str) -> None:
    grammar = _cached(tokenizer)
    assert accepts(grammar, tokenizer.encode([text])[0])
    assert not accepts(grammar, tokenizer.encode([text[:-1]])[0])


_GRAMMARS: dict[int, Grammar] = {}


def _cached(tokenizer: Tokenizer) -> Grammar:
    if id(tokenizer) not in _GRAMMARS:
        _GRAMMARS[id(tokenizer)] = from_regex(PATTERN, tokenizer, V)
    return _GRAMMARS[id(tokenizer)]


def patterns() -> st.SearchStrategy[str]:
    """Regular expressions over a, b, é and å; the last two share their first byte."""
    return st.recursive(
        st.sampled_from(["a", "b", "é", "å", "[ab]", "[à-ü]"]),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
            st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,3}"])).map(
                lambda one: f"(?:{one[0]}){one[1]}"
            ),
        ),
        max_leaves=5,
    )


@settings(max_examples=100)
@given(patterns())
def test_every_short_text_of_any_pattern(pattern: str) -> None:
    """Just those are accepted that Python's regular expressions match."""
    grammar = from_regex(pattern, bpe(), V)
    texts = ["".join(text) for n in range(5) for text in itertools.product("abéå", repeat=n)]
    for text, tokens in zip(texts, bpe().encode(texts), strict=True):
        assert accepts(grammar, tokens) == bool(re.fullmatch(pattern, text))


@given(text=st.from_regex("(?:å|éa|日本)+x?", fullmatch=True))
def test_characters_of_several_bytes(text: str) -> None:
    """Each is several tokens of a byte-level tokenizer."""
    grammar = from_regex("(?:å|éa|日本)+x?", bpe(), V)
    tokens = bpe().encode([text])[0]
    assert accepts(grammar, tokens)
    assert accepts(grammar, tokens[:-1]) == text.endswith("x")
    rng = np.random.default_rng(len(text))
    (other,) = bpe().decode([drawn(grammar, bpe(), rng)])
    assert re.fullmatch("(?:å|éa|日本)+x?", other)


def test_the_end_token() -> None:
    """It is allowed where the text may end, and is all there is after itself."""
    grammar = from_regex("a{1,3}", bpe(), V)
    end = bpe().end_id
    allowed = grammar.next_state >= 0
    np.testing.assert_array_equal(allowed[:, end], grammar.accepting)
    last = grammar.n_states - 1
    assert (grammar.next_state[grammar.accepting, end] == last).all()
    assert np.flatnonzero(allowed[last]).tolist() == [end]
    assert allowed.any(axis=1).all()
    assert not grammar.accepting[START_STATE]
    special = [*bpe().start_tokens, bpe().pad_id]
    assert not allowed[:, special].any()


def test_the_end_of_a_turn() -> None:
    """It ends a text too."""
    fast = train_bpe(TRIPLES, 300).fast
    fast.add_special_tokens({"additional_special_tokens": ["<|over|>"]})
    fast.chat_template = "{% for m in messages %}{{ m.content }}<|over|>{% endfor %}"
    tokenizer = Tokenizer(fast)
    grammar = from_regex("ab", tokenizer, V)
    allowed = np.flatnonzero(grammar.next_state[-1] >= 0)
    assert allowed.tolist() == sorted(tokenizer.end_ids)
    assert len(allowed) == 2


def test_no_dead_ends() -> None:
    """A way that the tokenizer cannot finish is forbidden from its start."""
    grammar = from_regex("V10|VXe", words(), V)
    rng = np.random.default_rng(0)
    assert {words().decode([drawn(grammar, words(), rng)])[0] for _ in range(20)} == {"V10"}


@settings(max_examples=20)
@given(st.lists(st.sampled_from([*TRIPLES, "V", "V1", "V10", "", "é"]), min_size=1))
def test_exactly_the_given_texts(texts: list[str]) -> None:
    grammar = from_texts(texts, bpe(), V)
    rng = np.random.default_rng(0)
    found = bpe().decode([drawn(grammar, bpe(), rng) for _ in range(100)])
    assert set(found) <= set(texts)
    assert all(accepts(grammar, tokens) for tokens in bpe().encode(texts))
    most = sum(len(tokens) for tokens in bpe().encode(sorted(set(texts)))) + 2
    assert grammar.n_states <= most


def test_bad_patterns() -> None:
    for pattern in ("(a", "a)|(b", "a(?=b)", r"(a)\1"):
        with pytest.raises(ValueError, match="no grammar from the pattern"):
            from_regex(pattern, bpe(), V)
    with pytest.raises(ValueError, match="'Xe'"):
        from_regex("Xe", words(), V)
    with pytest.raises(ValueError, match="no sequence of tokens makes a text of the texts given"):
        from_texts([], bpe(), V)


def test_too_large() -> None:
    with pytest.raises(ValueError, match=r"states, and with 384 tokens a table of .* GiB, more"):
        from_regex("[ab]{1,100}", bpe(), V, max_bytes=100_000)
    with pytest.raises(ValueError, match="bound its repetitions more tightly"):
        from_texts(TRIPLES, bpe(), V, max_bytes=1000)


def test_outlines_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "outlines_core":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"crystaljax\[llm\]"):
        from_regex("a", bpe(), V)
