"""Sampling: transformers' greedy texts, exact distributions, and nothing else that matters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.stats import chisquare

from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decode import prefill
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.token_grammar import from_table
from crystaljax.text.generation import Generation, GenerationConfig, Generator

LETTERS = "·abcdefgh\nij"
END = 0


class Letters:
    """A tokenizer of letters, of which the first is no text."""

    def decode(self, tokens: Sequence[np.ndarray]) -> list[str]:
        return ["".join(LETTERS[i] for i in each if i != END) for each in tokens]


@cache
def small(vocabulary: int = len(LETTERS), max_length: int = 64) -> tuple[Any, Any]:
    """A model that prefers some tokens to others."""
    config = LlmConfig(
        vocabulary=vocabulary,
        width=16,
        mlp_width=24,
        n_layers=2,
        n_heads=2,
        n_kv_heads=1,
        head_size=8,
        max_length=max_length,
        tied=False,
    )
    graph, weights = nnx.split(LanguageModel(config, nnx.Rngs(0)))
    key = jax.random.key(1)
    return graph, jax.tree.map(lambda x: x + 0.15 * jax.random.normal(key, x.shape), weights)


def prompts(n: int, vocabulary: int = len(LETTERS)) -> list[np.ndarray]:
    """Of 1 to 14 tokens."""
    rng = np.random.default_rng(n)
    return [rng.integers(1, vocabulary, size) for size in rng.integers(1, 15, n)]


def sample(config: GenerationConfig, n: int = 1, seed: int = 0, **options: Any) -> Generation:
    """Completions of six prompts."""
    graph, weights = small()
    return Generator(graph, config, [END], **options)([weights], prompts(6), seed, n)


def assert_equal(a: Generation, b: Generation) -> None:
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.length, b.length)
    np.testing.assert_array_equal(a.reason, b.reason)
    np.testing.assert_allclose(a.logp, b.logp, atol=1e-5)
    np.testing.assert_allclose(a.logp_model, b.logp_model, atol=1e-5)
    assert a.text == b.text


@partial(jax.jit, static_argnums=0)
def _logits(graph: Any, weights: Any, texts: jax.Array) -> jax.Array:
    model = nnx.merge(graph, weights)
    place = jnp.broadcast_to(jnp.arange(texts.shape[1]), texts.shape)
    return model.logits(model.hidden(texts, place, jnp.ones_like(place)))


def logits_of(texts: list[np.ndarray], vocabulary: int = len(LETTERS)) -> np.ndarray:
    """[N, T, V]: after each token of N texts of up to T, without a cache."""
    padded = np.zeros((len(texts), max(map(len, texts))), np.int32)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = text
    return np.asarray(_logits(*small(vocabulary), padded), float)


def logits_after_prompts(found: Generation) -> list[np.ndarray]:
    """[length, V] for each completion: what its tokens were drawn from."""
    given = [prompts(6)[i] for i in found.prompt]
    texts = [np.concatenate([x, found.sequence(i)]) for i, x in enumerate(given)]
    return [
        logits[len(x) - 1 : len(text) - 1]
        for x, text, logits in zip(given, texts, logits_of(texts), strict=True)
    ]


@pytest.mark.parametrize(
    "case",
    [
        "gemma2",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("llama", "olmo2", "qwen2-window")),
    ],
)
def test_greedy_texts_are_those_of_transformers(case: str) -> None:
    """Prompts of different length, longer than windows; rows are refilled, the ring goes round."""
    reference = pytest.importorskip("llm_reference")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    texts = [rng.integers(3, 97, size) for size in (1, 19, 5, 30, 12, 2, 26)]
    graph, weights = nnx.split(reference.ours(case))
    config = GenerationConfig(temperature=0, max_new_tokens=25, batch_size=4)
    found = Generator(graph, config, [2])([weights], texts, 0)
    for i, text in enumerate(texts):
        tokens = torch.tensor(text)[None]
        expected = reference.reference(case).generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=25
        )[0, len(text) :]
        assert found.sequence(i).tolist() == expected.tolist()
        assert found.reason[i] == ("end" if expected[-1] == 2 else "length")


def test_log_probs_are_those_of_whole_texts() -> None:
    config = GenerationConfig(temperature=0.7, top_k=6, top_p=0.8, max_new_tokens=6, batch_size=4)
    found = sample(config, n=4)
    for i, logits in enumerate(logits_after_prompts(found)):
        new = found.sequence(i)
        own = np.asarray(jax.nn.log_softmax(logits))[np.arange(len(new)), new]
        np.testing.assert_allclose(found.logp_model[i, : len(new)], own, atol=1e-4)
        for step, token in enumerate(new):
            warped = warp(logits[step], config)
            assert found.logp[i, step] == pytest.approx(np.log(warped[token]), abs=1e-4)
        assert not found.logp[i, len(new) :].any()
        assert not found.tokens[i, len(new) :].any()
    assert set(found.reason.tolist()) == {"end", "length"}


def warp(logits: np.ndarray, config: GenerationConfig) -> np.ndarray:
    """[V]: probabilities after temperature, top-k and top-p, the slow way."""
    p = np.exp((logits - logits.max()) / config.temperature)
    order = np.argsort(-p)
    if config.top_k:
        p[order[config.top_k :]] = 0
    before = np.cumsum(p[order] / p.sum()) - p[order] / p.sum()
    p[order[before >= config.top_p]] = 0
    return p / p.sum()


@pytest.mark.parametrize(
    "config",
    [
        GenerationConfig(temperature=0.6, max_new_tokens=3, batch_size=5000),
        GenerationConfig(temperature=1.4, top_k=5, top_p=0.85, max_new_tokens=3, batch_size=5000),
    ],
)
def test_samples_have_the_exact_distribution(config: GenerationConfig) -> None:
    """Of all texts of up to three tokens, in one batch of thousands from one prompt."""
    graph, weights = small(8)
    found = Generator(graph, config, [END])([weights], [np.array([1, 3])], 0, n=5000)
    texts = np.array(list(product([1], [3], range(8), range(8))))
    logits = logits_of(list(texts), 8)
    expected: dict[tuple[int, ...], float] = {}
    for text, after in zip(texts.tolist(), logits, strict=True):
        first, second, third = (warp(after[i], config) for i in (1, 2, 3))
        a, b = text[2:]
        if a == END:
            expected[(a,)] = first[a]
        elif b == END:
            expected[(a, b)] = first[a] * second[b]
        else:
            expected |= {(a, b, c): first[a] * second[b] * third[c] for c in range(8)}
    assert sum(expected.values()) == pytest.approx(1)
    counts = dict.fromkeys(expected, 0)
    for i in range(len(found)):
        counts[tuple(found.sequence(i).tolist())] += 1
    assert all(p > 0 for text, p in expected.items() if counts[text])
    common = [text for text, p in expected.items() if p * 5000 > 5]
    observed = [counts[text] for text in common]
    ideal = [expected[text] * 5000 for text in common]
    if (rare := 5000 - sum(ideal)) > 1e-6:
        observed.append(5000 - sum(observed))
        ideal.append(rare)
    assert chisquare(observed, ideal).pvalue > 1e-3


@pytest.mark.slow
def test_samples_depend_on_seed_and_number_alone() -> None:
    """Not on the batch, on who shares it and enters when, nor on the length of the cache."""
    options: dict[str, Any] = {"max_new_tokens": 20, "stop": ("ba", "c"), "top_p": 0.95}
    expected = sample(GenerationConfig(batch_size=64, **options), n=4, tokenizer=Letters())
    assert {"end", "stop", "length"} == set(expected.reason.tolist())
    for size in (4, 7):
        found = sample(GenerationConfig(batch_size=size, **options), n=4, tokenizer=Letters())
        assert_equal(found, expected)
    other = sample(GenerationConfig(batch_size=64, **options), n=4, seed=1, tokenizer=Letters())
    assert (other.tokens != expected.tokens).any()
    graph, weights = small()
    more = [*prompts(6), np.ones(40, int)]
    config = GenerationConfig(batch_size=4, **options)
    found = Generator(graph, config, [END], Letters())([weights], more, 0, n=4)
    np.testing.assert_array_equal(found.tokens[:24], expected.tokens)


def test_completions_of_a_prompt_share_its_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prompt goes through the network once, also where its completions enter apart."""
    seen: list[int] = []

    def counting(*arguments: Any) -> Any:
        length = arguments[3]
        seen.append(int((length > 0).sum()))
        return prefill(*arguments)

    monkeypatch.setattr("crystaljax.text.engine.prefill", counting)
    found = sample(GenerationConfig(batch_size=4, max_new_tokens=3), n=5)
    longer = sum(len(x) > 1 for x in prompts(6))  # all but the last token is prefilled
    assert len(found) == 5 * 6 and sum(seen) == longer > 3


def test_each_prompt_has_its_limit() -> None:
    graph, weights = small()
    limits = np.array([1, 9, 3, 20, 2, 20])
    found = Generator(graph, GenerationConfig(max_new_tokens=9, batch_size=4), [])(
        [weights], prompts(6), 0, limits=limits
    )
    assert found.length.tolist() == [1, 9, 3, 9, 2, 9]
    assert set(found.reason) == {"length"}


def test_texts_end_before_stop_strings() -> None:
    config = GenerationConfig(max_new_tokens=30, stop=("ba", "\nc", "hh"), batch_size=4)
    found = sample(config, n=4, tokenizer=Letters())
    free = sample(GenerationConfig(max_new_tokens=30, batch_size=4), n=4, tokenizer=Letters())
    assert (found.reason == "stop").sum() > 3
    for i, text in enumerate(free.text):
        ends = [(text.find(stop) + len(stop), stop) for stop in config.stop if stop in text]
        n, first = min(ends, default=(len(text), ""))
        assert found.text[i] == text[:n].removesuffix(first)
        assert found.reason[i] == ("stop" if ends else free.reason[i])
        if ends:
            assert found.length[i] == n  # letters are tokens, and the last completes the string
            assert Letters().decode([found.sequence(i)])[0] == text[:n]
            np.testing.assert_allclose(found.logp[i, :n], free.logp[i, :n], atol=1e-5)
            assert not found.tokens[i, n:].any()
            assert not found.logp[i, n:].any()


RULES_ACCEPT = np.array([False, False, True])


def rules_table() -> np.ndarray:
    """(ab|c)*d as tokens, with an end after d: the next state of each state and token."""
    table = np.full((4, len(LETTERS)), -1, np.int32)
    table[0, [LETTERS.index(x) for x in "acd"]] = 1, 0, 2
    table[1, LETTERS.index("b")] = 0
    return table[:3]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_follow_the_grammar(temperature: float) -> None:
    config = GenerationConfig(max_new_tokens=12, temperature=temperature, batch_size=16)
    table = rules_table()
    rules = from_table(table, RULES_ACCEPT)
    found = sample(config, n=4, tokenizer=Letters(), grammar=rules)
    for i, logits in enumerate(logits_after_prompts(found)):
        state, total = 0, 0.0
        for step, token in enumerate(found.sequence(i)):
            possible = table[state] >= 0
            possible[END] = RULES_ACCEPT[state]
            assert possible[token]
            masked = np.where(possible, logits[step], -np.inf)
            total += float(jax.nn.log_softmax(masked)[token])
            state = table[state, token] if token != END else state
        assert RULES_ACCEPT[state] == (found.reason[i] == "end")
        if temperature:
            assert found.logp[i].sum() == pytest.approx(total, abs=1e-4)
    assert not temperature or "end" in found.reason


def test_no_prompts_no_completions() -> None:
    graph, weights = small()
    assert len(Generator(graph, GenerationConfig(), [END])([weights], [], 0)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be at least 0 and finite, not -1.0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_k": -3}, "top_k must be at least 0 and finite, not -3"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_senseless_configurations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenerationConfig(**options)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "prompt 1 is empty"),
        ([1] * 64, "prompt 1 has 64 tokens, and the model's context is 64"),
        ([1] * 60, "prompt 1 has 60 tokens, 65 with the 5 .* 4 tokens at most"),
        ([1, 12], "prompt 1 has tokens from 1 to 12, and the model knows 0 to 11"),
    ],
)
def test_prompts_that_cannot_be_completed(prompt: list[int], message: str) -> None:
    graph, weights = small()
    generator = Generator(graph, GenerationConfig(max_new_tokens=5), [END])
    with pytest.raises(ValueError, match=message):
        generator([weights], [np.array([1]), np.array(prompt, int)], 0)


def test_wrong_grammars_and_tokenizers() -> None:
    graph, weights = small()
    config, table = GenerationConfig(max_new_tokens=5), rules_table()
    with pytest.raises(ValueError, match="stop strings need a tokenizer"):
        Generator(graph, GenerationConfig(stop=("a",)), [END])
    with pytest.raises(ValueError, match="a grammar needs end tokens"):
        Generator(graph, config, [], grammar=from_table(table, RULES_ACCEPT))
    with pytest.raises(ValueError, match=r"end tokens \[77\]"):
        Generator(graph, config, [77])([weights], prompts(1), 0)
    narrow = from_table(table[:, :9], RULES_ACCEPT)
    with pytest.raises(ValueError, match="grammar is of 9 tokens, and the model has 12"):
        Generator(graph, config, [END], grammar=narrow)([weights], prompts(1), 0)
    stuck = from_table(table, np.zeros(3, bool))
    with pytest.raises(ValueError, match="cannot go on from state 2"):
        Generator(graph, config, [END], grammar=stuck)


@pytest.mark.slow
def test_devices_that_share_a_batch_give_the_samples_of_one() -> None:
    """Eight virtual devices, the parameters of the model in parts."""
    code = """
        import jax, sys
        sys.path.insert(0, "tests")
        import test_text_generation as tests
        from crystaljax.parallel import MeshConfig, make_mesh, parameter_placement
        from crystaljax.text.generation import Generator, GenerationConfig

        assert jax.device_count() == 8
        mesh = make_mesh(MeshConfig(data=4, fsdp=2))
        graph, weights = tests.small()
        place = parameter_placement(mesh)
        spread = jax.tree.map(lambda x: jax.device_put(x, place(x.shape)), weights)
        rules = tests.from_table(tests.rules_table(), tests.RULES_ACCEPT)
        config = GenerationConfig(max_new_tokens=10, top_p=0.9, batch_size=9, stop=("ba",))
        one, many = (
            Generator(graph, config, [0], tests.Letters(), rules, mesh=each)
            ([w], tests.prompts(6), 0, n=5)
            for each, w in ((None, weights), (mesh, spread))
        )
        tests.assert_equal(many, one)
    """
    lines = [line[8:] for line in code.splitlines()]
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=root,
        env=environment | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
