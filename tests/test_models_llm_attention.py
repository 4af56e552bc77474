"""Visibility between tokens, in packed rows and in a ring cache."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from llm_reference import FAMILIES, logits, ours, random_tokens, reference, torch

from crystaljax.models.llm.attention import BLOCK, attend, cache_mask, over_rows, row_mask
from crystaljax.models.llm.decoder import LanguageModel


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 5))
def test_tokens_of_rows_see_their_text_up_to_themselves(lengths: list[int], window: int) -> None:
    position = np.concatenate([np.arange(n) for n in lengths])
    segment = np.repeat(np.arange(len(lengths)), lengths)  # 0 too: padding sees itself
    mask = row_mask(position[None], segment[None], window)[0]
    for i in range(len(position)):
        for j in range(len(position)):
            sees = segment[i] == segment[j] and i >= j and (not window or i - j < window)
            assert mask[i, j] == sees


@given(st.lists(st.integers(-1, 9), min_size=1, max_size=9), st.integers(-1, 9), st.integers(0, 5))
def test_new_tokens_see_slots_of_no_later_position(
    slots: list[int], position: int, window: int
) -> None:
    mask = cache_mask(np.array([position]), np.array([slots]), window)[0]
    expected = [0 <= p <= position and (not window or position - p < window) for p in slots]
    np.testing.assert_array_equal(mask, expected)


def test_attention_is_that_of_jax() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 7, n, 8)).astype(np.float32) for n in (6, 2, 2))
    mask = np.tril(rng.random((2, 7, 7)) < 0.7) | np.eye(7, dtype=bool)
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], scale=1.0)
    grouped = q.reshape(2, 7, 2, 3, 8).transpose(0, 2, 3, 1, 4)
    found = attend(grouped, k.swapaxes(1, 2), v.swapaxes(1, 2), mask, None)
    found = found.transpose(0, 3, 1, 2, 4).reshape(2, 7, 6, 8)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("window", [0, 150])
def test_long_rows_in_blocks_are_whole_rows(window: int) -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([[200, BLOCK - 3, 1, 90], [BLOCK, BLOCK, 100, 60]])
    length = lengths[0].sum()
    segment = np.stack([np.repeat(np.arange(1, 5), row) for row in lengths])
    position = np.stack([np.concatenate([np.arange(n) for n in row]) for row in lengths])
    mask = row_mask(position, segment, window)
    q, k, v = (rng.normal(size=(2 * length, n, 8)).astype(np.float32) for n in (6, 2, 2))

    def of_jax(q: Any, k: Any, v: Any) -> Any:
        rows = (x.reshape(2, length, *x.shape[1:]) for x in (q, k, v))
        return jax.nn.dot_product_attention(*rows, mask=mask[:, None], scale=1.0).reshape(q.shape)

    def in_blocks(q: Any, k: Any, v: Any) -> Any:
        return over_rows(mask, None, keep=False)(q, k, v)[0]

    for function in (lambda f: f, lambda f: jax.grad(lambda *x: (f(*x) ** 2).sum(), (0, 1, 2))):
        found, expected = function(in_blocks)(q, k, v), function(of_jax)(q, k, v)
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


N_SLOTS, LONGEST = 64, 20


class Ring:
    """A cache of B rows at a clock near its end, so that it goes round."""

    def __init__(self, model: LanguageModel, size: int) -> None:
        self.graph, self.params = nnx.split(model)
        self.cache = model.empty_cache(size, N_SLOTS)
        self.slot_position = np.full((size, N_SLOTS), -1)
        self.clock = 50

    def put(self, row: int, prompt: np.ndarray) -> int:
        """Prefill a row; the token that follows."""
        n = len(prompt)
        logits, kept = _prefill(self.graph, self.params, np.pad(prompt, (0, LONGEST - n)), n)
        slots = (self.clock - n + np.arange(n)) % N_SLOTS
        self.slot_position[row] = -1
        self.slot_position[row, slots] = np.arange(n)
        cache = jax.tree.map(np.array, self.cache)
        for old, new in zip(jax.tree.leaves(cache), jax.tree.leaves(kept), strict=True):
            old[row, :, slots] = np.asarray(new)[0, :, :n].swapaxes(0, 1)
        self.cache = cache
        return int(logits.argmax())

    def step(self, tokens: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Logits of what follows the tokens."""
        self.slot_position[:, self.clock % N_SLOTS] = position
        found, self.cache = _step(
            self.graph, self.params, tokens, position, self.cache, self.slot_position, self.clock
        )
        self.clock += 1
        return np.asarray(found)


@partial(jax.jit, static_argnums=0)
def _prefill(graph: Any, params: Any, tokens: Any, n: Any) -> Any:
    """Logits after the first n tokens, and the cache."""
    position = jnp.arange(len(tokens))[None]
    model = nnx.merge(graph, params)
    hidden, cache = model.prefill(tokens[None], position, (position < n).astype(int))
    return model.logits(hidden[0, n - 1]), cache


@partial(jax.jit, static_argnums=0)
def _step(graph: Any, params: Any, *state: Any) -> Any:
    model = nnx.merge(graph, params)
    hidden, cache = model.step(*state)
    return model.logits(hidden), cache


@pytest.mark.parametrize("case", FAMILIES)
def test_greedy_continuation_from_the_ring_cache(case: str) -> None:
    """Of ragged prompts as transformers', also by a row that a new prompt has taken over."""
    n_new, model = 40, ours(case)
    prompts = [random_tokens(1, n)[0] for n in (12, 3, 12, 20)]
    padded = np.stack([np.pad(x, (LONGEST - len(x), 0)) for x in prompts])
    found = reference(case).generate(
        torch.tensor(padded),
        attention_mask=torch.tensor([[0] * (LONGEST - len(x)) + [1] * len(x) for x in prompts]),
        do_sample=False,
        max_new_tokens=n_new,
        eos_token_id=None,
    )
    expected = found[:, LONGEST:].numpy()

    ring = Ring(model, 3)
    texts = [list(x) for x in prompts]
    rows = [0, 1, 2]  # the prompt of each row; the last one comes into row 0 later
    for row in rows:
        texts[row].append(ring.put(row, prompts[row]))
    given: dict[tuple[int, int], np.ndarray] = {}
    for step in range(2 * n_new):
        if step == n_new - 1:
            assert (ring.clock % N_SLOTS) < N_SLOTS // 2  # it has gone round
            rows[0] = 3
            texts[3].append(ring.put(0, prompts[3]))
        new = np.array([texts[i][-1] for i in rows])
        position = np.array([len(texts[i]) - 1 for i in rows])
        going = np.array([len(texts[i]) < len(prompts[i]) + n_new for i in rows])
        out = ring.step(new, np.where(going, position, -1))
        for row, i in enumerate(rows):
            if going[row]:
                given[i, position[row]] = out[row]
                texts[i].append(int(out[row].argmax()))
    for i, text in enumerate(texts):
        np.testing.assert_array_equal(text[len(prompts[i]) :], expected[i], err_msg=str(i))

    uncached = logits(model, np.stack([np.pad(x, (0, LONGEST + n_new - len(x))) for x in texts]))
    for (i, at), value in given.items():
        np.testing.assert_allclose(value, uncached[i, at], atol=1e-4)
