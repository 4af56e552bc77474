"""Divergences at tokens against log-softmax of all logits, and what tokens are part of."""

import re

import jax
import numpy as np
import pytest
from small_policy import tiny_policy, triples
from small_text import TRIPLES, bpe, words

from crystaljax.models.llm.lora import LoraConfig
from crystaljax.policies.text import Params, TextPolicy
from crystaljax.text.divergence import TokenDivergence, _labels, token_divergence

KINDS = re.compile(rb"(?P<tag></?\w+>)|(?P<element>[A-Z][a-z]?)|(?P<number>\d[\d.]*)")


def moved(params: Params, by: float = 0.3) -> Params:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + by * rng.normal(size=x.shape).astype(x.dtype), params)


def log_softmax(policy: TextPolicy, params: Params, tokens: np.ndarray) -> np.ndarray:
    """float64 [n, V]."""
    row = np.pad(tokens, (0, 64 - len(tokens)))[None]
    segment = (np.arange(64) < len(tokens))[None].astype(int)

    @jax.jit
    def every(params: Params) -> jax.Array:
        model = policy.model(params)
        hidden = model.hidden(row, np.arange(64)[None], segment)
        return jax.nn.log_softmax(model.logits(hidden))[0]

    return np.asarray(every(params), np.float64)[: len(tokens)]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_divergence_is_of_the_whole_distributions(lora: LoraConfig | None) -> None:
    policy = tiny_policy(lora)
    p, q, texts = moved(policy.start), policy.start, triples(4)
    found = token_divergence(policy, p, q, texts, KINDS, batch_size=3)
    assert found.n == 4
    for i, (tokens, n_prompt) in enumerate(texts):
        log_p, log_q = (log_softmax(policy, each, tokens) for each in (p, q))
        every = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
        expected = every[n_prompt - 1 : -1]  # token t is drawn from what stands at t - 1
        mine = found.divergence[found.sample == i]
        np.testing.assert_allclose(mine, expected, atol=1e-5)
        assert expected.max() > 1e-3
        text = "".join(found.token[found.sample == i].tolist())
        assert text == policy.tokenizer.decode([tokens[n_prompt:]])[0]


def test_a_model_does_not_differ_from_itself() -> None:
    policy = tiny_policy()
    found = token_divergence(policy, policy.start, policy.start, triples(3), KINDS)
    np.testing.assert_allclose(found.divergence, 0, atol=1e-6)


def test_kinds_add_up() -> None:
    policy = tiny_policy()
    texts = policy.tokenizer.sequences([""] * 4, TRIPLES)
    found = token_divergence(policy, moved(policy.start), policy.start, texts, KINDS)
    measures = {measure.name: measure for measure in found.by_kind()}
    assert list(measures) == ["tag", "element", "number", "other", "end", "all"]
    parts = sum(m.value for name, m in measures.items() if name != "all")
    assert parts == pytest.approx(measures["all"].value)
    assert measures["all"].value == pytest.approx(found.divergence.sum() / 4)
    assert measures["all"].total == 4


def test_kinds_of_whole_words() -> None:
    (tokens,) = words().encode(["<B2>TiRu2</B2>"])
    pieces = [words().token_bytes()[i] or b"" for i in tokens.tolist()]
    assert _labels(pieces, KINDS) == [
        ("<B2>", "tag", "<B2>"),
        ("Ti", "element", "Ti"),
        ("Ru", "element", "Ru"),
        ("2", "number", "2"),
        ("</B2>", "tag", "</B2>"),
    ]


def test_kinds_of_pieces() -> None:
    pieces = [b"<B", b"CC>N", b"b", b"67", b"M", b"", b" ", b"\xc3"]
    assert _labels(pieces, KINDS) == [
        ("<B", "tag", "<BCC>"),
        ("CC>N", "tag", "<BCC>"),  # most of it
        ("b", "element", "Nb"),
        ("67", "number", "67"),
        ("M", "element", "M"),
        ("", "end", ""),
        (" ", "other", ""),
        ("\ufffd", "other", ""),
    ]


@pytest.mark.parametrize("text", TRIPLES)
def test_kinds_follow_characters_whatever_the_tokens(text: str) -> None:
    """With one token a character the kind of each is what the pattern says of the text."""
    expected = ["other"] * len(text)
    for match in re.finditer(KINDS.pattern.decode(), text):
        expected[match.start() : match.end()] = [match.lastgroup] * len(match.group())  # type: ignore[list-item]
    found = _labels([character.encode() for character in text], KINDS)
    assert [kind for _, kind, _ in found] == expected
    table = bpe().token_bytes()
    (tokens,) = bpe().encode([text])
    merged = _labels([table[i] or b"" for i in tokens.tolist()], KINDS)
    assert "".join(token for token, _, _ in merged) == text


def test_no_texts() -> None:
    with pytest.raises(ValueError, match="no texts"):
        token_divergence(tiny_policy(), {}, {}, [], KINDS)


def test_measures_of_hand_made_tokens() -> None:
    found = TokenDivergence(
        3,
        np.array([1.0, 2.0, 4.0]),
        np.array([0, 0, 2]),
        np.array(["a", "b", "a"], object),
        np.array(["x", "y", "x"], object),
        np.array(["", "", ""], object),
    )
    values = {measure.name: measure.value for measure in found.by_kind()}
    assert values == pytest.approx({"x": 5 / 3, "y": 2 / 3, "all": 7 / 3})
