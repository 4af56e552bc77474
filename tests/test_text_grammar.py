"""Grammars: what they let through matches, and what matches they let through."""

import itertools
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")
from small_text import TRIPLES, bpe, words

from crystaljax.data.dataset import load
from crystaljax.models.llm.token_grammar import START_STATE, TokenGrammar
from crystaljax.text import grammar as grammars
from crystaljax.text import token_walk
from crystaljax.text.grammar import accepts, from_regex, from_texts
from crystaljax.text.tokenizer import Tokenizer
from crystaljax.text.tokenizer_training import train_bpe
from crystaljax.tokenizations.text.wyckoff import WyckoffText

ELEMENT = "(?:Nb|Mo|Zr|Ti|Ru|Cr|Fe|Mn|Al|W|Ta|V|Ni)"
PATTERN = (
    rf"<BCC>(?:{ELEMENT}[1-9][0-9]?){{2}}</BCC> <B2>(?:{ELEMENT}2?){{2,3}}</B2> "
    r"<B2_Volume>[1-9][0-9]\.[0-9]</B2_Volume>"
)
TAGGED = train_bpe(TRIPLES, 300, ["<BCC>", "</BCC>", "<B2>", "</B2>"])
TOKENIZERS = [bpe(), words(), TAGGED]
V = 384


def drawn(grammar: TokenGrammar, tokenizer: Tokenizer, rng: np.random.Generator) -> list[int]:
    """A random sequence that the grammar allows, without its end token."""
    tokens: list[int] = []
    state = np.int32(START_STATE)
    while True:
        allowed = grammar.allowed(state)
        allowed[tokenizer.end_id] = grammar.accepting[state]
        token = int(rng.choice(np.flatnonzero(allowed)))
        if token == tokenizer.end_id:
            return tokens
        state = grammar.after(state, np.int32(token))
        tokens.append(token)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_what_is_drawn_matches(tokenizer: Tokenizer) -> None:
    grammar = from_regex(PATTERN, tokenizer, V)
    assert grammar.n_vocabulary == V
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


_GRAMMARS: dict[int, TokenGrammar] = {}


def _cached(tokenizer: Tokenizer) -> TokenGrammar:
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


def test_special_tokens_are_no_text() -> None:
    """Nothing but `accepting` says where a text may end."""
    grammar = from_regex("a{1,3}", bpe(), V)
    states = np.arange(grammar.n_states)
    special = [*bpe().start_tokens, bpe().pad_id, bpe().end_id]
    assert not grammar.allowed(states)[:, special].any()
    assert (grammar.allowed(states).any(axis=1) | grammar.accepting).all()
    assert not grammar.accepting[START_STATE]


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
    for pattern, reason in {
        "(a": "missing \\)",
        "a)|(b": "unbalanced parenthesis",
        "a(?=b)": "look-around",
        r"(a)\1": "back-reference",
        "^a": "anchor",
    }.items():
        with pytest.raises(ValueError, match=f"no grammar from the pattern .*{reason}"):
            from_regex(pattern, bpe(), V)
    with pytest.raises(ValueError, match=r"'Xe'.*makes a text that matches it"):
        from_regex("Xe", words(), V)
    with pytest.raises(ValueError, match="no texts to make a grammar of"):
        from_texts([], bpe(), V)
    with pytest.raises(ValueError, match="a grammar for 9 logits, and the tokenizer has 2"):
        from_regex("a", bpe(), 9)


def test_too_many_transitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYSTALJAX_CACHE", str(tmp_path))  # none is kept of an earlier run
    monkeypatch.setattr(token_walk, "MAX_TRANSITIONS", 100)
    with pytest.raises(ValueError, match="more than 100 transitions by tokens"):
        from_regex("[0-9]{1,200}", bpe(), V)


FORMAT = WyckoffText()


@pytest.fixture(scope="module")
def all_groups() -> TokenGrammar:
    return from_regex(FORMAT.pattern(), bpe(), V)


def test_all_space_groups_and_elements(all_groups: TokenGrammar) -> None:
    """Texts of crystals of any group are let through, and what is drawn is a text of its group."""
    texts = FORMAT.encode(load("prototypes").crystals[::12])
    tokens = bpe().encode(texts)
    assert len({text.split()[0] for text in texts}) > 40
    assert all(accepts(all_groups, each) for each in tokens)
    assert not any(accepts(all_groups, each[:-1]) for each in tokens[:20])
    rng = np.random.default_rng(0)
    for text in bpe().decode([drawn(all_groups, bpe(), rng) for _ in range(40)]):
        group = int(text.split("\n")[0])
        assert re.fullmatch(FORMAT.pattern([group]), text)


def test_some_groups_and_elements() -> None:
    texts = FORMAT.encode(load("prototypes").crystals[::12])
    pattern = re.compile(FORMAT.pattern([225, 166], ["O", "Ti"]))
    grammar = from_regex(pattern.pattern, bpe(), V)
    for text, tokens in zip(texts, bpe().encode(texts), strict=True):
        assert accepts(grammar, tokens) == bool(pattern.fullmatch(text))


def test_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grammars are read again, or built anew if they cannot be; each by all that it depends on."""
    monkeypatch.setenv("CRYSTALJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(grammars, "KEPT_SECONDS", 0.0)
    first = from_regex(PATTERN, bpe(), V)
    (file,) = (tmp_path / "cache" / "grammars").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(grammars, "compile_pattern", None)
        again = from_regex(PATTERN, bpe(), V)
    jax.tree.map(np.testing.assert_array_equal, again, first)
    file.write_bytes(file.read_bytes()[:1000])
    jax.tree.map(np.testing.assert_array_equal, from_regex(PATTERN, bpe(), V), first)
    from_regex(PATTERN, bpe(), V + 1)
    from_regex(PATTERN, words(), V)
    from_regex(PATTERN[1:], bpe(), V)
    assert len(list(file.parent.iterdir())) == 4


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CRYSTALJAX_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(grammars, "KEPT_SECONDS", 0.0)
    assert accepts(from_regex("a+", bpe(), V), bpe().encode(["aaa"])[0])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_the_tokens_allowed_are_those_of_outlines(tokenizer: Tokenizer) -> None:
    """In all states that any sequence leads to, and so is where texts may end."""
    outlines = pytest.importorskip("outlines_core")
    tokens: dict[bytes, list[int]] = {}
    for i, text in enumerate(tokenizer.token_bytes()):
        if text:
            tokens.setdefault(text, []).append(i)
    # Without a byte that ends all texts, outlines-core (0.2.14) loses ways from where one may end.
    last = tokenizer.n_vocabulary()
    index = outlines.Index(
        f"(?:{PATTERN})\0", outlines.Vocabulary(last + 1, tokens | {b"\0": [last]})
    )
    expected = index.get_transitions()
    grammar = from_regex(PATTERN, tokenizer, V)
    pairs, new = set(), [(START_STATE, index.get_initial_state())]
    while new:
        ours, theirs = pair = new.pop()
        if pair in pairs:
            continue
        pairs.add(pair)
        after = expected.get(theirs, {})
        assert grammar.accepting[ours] == (last in after)
        allowed = np.flatnonzero(grammar.allowed(np.int32(ours))).tolist()
        assert set(allowed) <= set(after)
        new += [(int(grammar.after(np.int32(ours), np.int32(t))), after[t]) for t in allowed]
    assert len({ours for ours, _ in pairs}) == grammar.n_states
    if tokenizer is bpe():  # it can end whatever it begins
        for ours, theirs in pairs:
            allowed = np.flatnonzero(grammar.allowed(np.int32(ours))).tolist()
            assert set(allowed) == set(expected.get(theirs, {})) - {last}
