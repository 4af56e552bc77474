"""Rows of the sampling batch: who enters where, and when a chunk ends."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decode import (
    DecodeSettings,
    DecodeState,
    Fresh,
    Network,
    decode,
    insert,
    prefill,
    start,
    take,
)
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.token_sampling import LogitsWarper

SLOTS = 16
PROMPTS = np.array([[3, 1, 4, 1, 5, 9, 0], [2, 7, 1, 0, 0, 0, 0]])
LENGTHS = np.array([7, 4])
SETTINGS = DecodeSettings(
    jax.random.key(0), LogitsWarper(jnp.float32(1), None, None), jnp.zeros(0, jnp.int32), None
)


@cache
def small() -> tuple[Network, list[nnx.State]]:
    config = LlmConfig(
        vocabulary=10, width=8, mlp_width=8, n_layers=1, n_heads=2, n_kv_heads=1, head_size=4
    )
    graph, weights = nnx.split(LanguageModel(config, nnx.Rngs(0)))
    return Network(graph), [weights]


def begin(clock: int = 0) -> DecodeState:
    """Rows 0, 2 and 3 of four in use, with prompts 0, 1 and 0, and limits 2, 3 and 9."""
    state = replace(start(*small(), 4, SLOTS, None), clock=jnp.int32(clock))
    filled = prefill(*small(), PROMPTS, LENGTHS, None)
    source = np.array([0, 1, 0, 0])
    fresh = Fresh(
        row=np.array([0, 2, 3, 4]),  # the last one enters nowhere
        source=source,
        cached=LENGTHS[source] - 1,
        token=PROMPTS[source, LENGTHS[source] - 1],
        sample=np.arange(4),
        limit=np.array([2, 3, 9, 9]),
        grammar_state=np.zeros(4, int),
    )
    return insert(state, filled, Fresh(*(x.astype(np.int32) for x in fresh)), None)


def test_prompts_lie_just_before_the_clock() -> None:
    for clock in (0, 2, 13, 16 * 5 + 3):
        state = begin(clock)
        expected = np.full((4, SLOTS), -1)
        for row, n in ((0, 6), (2, 3), (3, 6)):
            expected[row, np.arange(clock - n, clock) % SLOTS] = np.arange(n)
        np.testing.assert_array_equal(state.slot_position, expected)
        assert state.position.tolist() == [6, -1, 3, 6]
        filled = prefill(*small(), PROMPTS, LENGTHS, None)[0]
        slots = np.arange(clock - 3, clock) % SLOTS
        for mine, whole in zip(state.cache[0], filled, strict=True):
            np.testing.assert_array_equal(np.asarray(mine)[2][:, slots], whole[1, :, :3])


def test_a_chunk_ends_when_few_rows_are_in_use() -> None:
    used = np.array([True, False, True, True])
    state, chunk = decode(*small(), begin(), SETTINGS, used, np.int32(8), np.int32(1), None)
    assert chunk.n.tolist() == [2, 0, 3, 3]
    assert chunk.active.tolist() == [False, False, False, True]
    assert int(state.clock) == 3
    assert not np.asarray(chunk.token)[3:].any()
    assert not np.asarray(chunk.logp)[:, 1].any()


def test_a_chunk_ends_after_its_steps() -> None:
    used = np.array([True, False, False, True])  # row 2 is not wanted any more
    state, chunk = decode(*small(), begin(), SETTINGS, used, np.int32(1), np.int32(0), None)
    assert chunk.n.tolist() == [1, 0, 0, 1]
    assert chunk.active.tolist() == used.tolist()
    assert state.position.tolist() == [7, -1, -1, 7]


def test_rows_that_are_taken_go_on_as_they_would_have() -> None:
    used = np.ones(4, bool)
    _, expected = decode(*small(), begin(14), SETTINGS, used, np.int32(8), np.int32(0), None)
    smaller = take(begin(14), np.array([3, 1]), None)
    _, found = decode(*small(), smaller, SETTINGS, used[:2], np.int32(8), np.int32(0), None)
    np.testing.assert_array_equal(found.token[:, 0], np.asarray(expected.token)[:, 3])
    np.testing.assert_allclose(found.logp[:, 0], np.asarray(expected.logp)[:, 3], atol=1e-6)
    assert found.n.tolist() == [8, 0]
