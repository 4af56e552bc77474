"""Log-probabilities of tokens against a log-softmax of all logits at once."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.likelihood import token_divergences, token_log_probs

ROWS, LENGTH = 2, 30
CONFIG = LlmConfig(
    vocabulary=50, width=16, mlp_width=16, n_layers=1, head_size=4, tied=False, max_length=LENGTH
)


def packed_rows() -> Any:
    rng = np.random.default_rng(0)
    position = np.concatenate([np.arange(12), np.arange(10), np.zeros(8, int)])
    segment = np.repeat([1, 2, 0], [12, 10, 8])
    trained = (rng.random((ROWS, LENGTH)) < 0.7) & (position > 0) & (segment > 0)
    return SimpleNamespace(
        tokens=rng.integers(0, 50, (ROWS, LENGTH)),
        position=np.tile(position, (ROWS, 1)),
        segment=np.tile(segment, (ROWS, 1)),
        trained=trained,
    )


def test_log_probs_are_of_the_log_softmax() -> None:
    graph, params = nnx.split(LanguageModel(CONFIG, nnx.Rngs(0)))
    params = jax.tree.map(lambda x: 8 * x, params)
    rows = packed_rows()
    weight = np.random.default_rng(1).normal(size=(ROWS, LENGTH))

    def chunked(params: Any, chunk: int) -> Any:
        logp = token_log_probs(nnx.merge(graph, params), rows, chunk=chunk)
        return (weight * logp).sum(), logp

    def plain(params: Any) -> Any:
        model = nnx.merge(graph, params)
        hidden = model.hidden(rows.tokens, rows.position, rows.segment)
        every = jnp.roll(jax.nn.log_softmax(model.logits(hidden)), 1, axis=1)
        logp = (every * jax.nn.one_hot(rows.tokens, CONFIG.vocabulary)).sum(-1) * rows.trained
        return (weight * logp).sum(), logp

    expected_grad, expected = jax.jit(jax.grad(plain, has_aux=True))(params)
    assert (np.asarray(expected) < 0).sum() == rows.trained.sum() > 10
    for chunk in (7, 128):
        grad, logp = jax.jit(partial(jax.grad(chunked, has_aux=True), chunk=chunk))(params)
        np.testing.assert_allclose(logp, expected, atol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grad, expected_grad)


def test_divergences_are_of_the_whole_distributions() -> None:
    rows = packed_rows()
    models = [LanguageModel(CONFIG, nnx.Rngs(seed)) for seed in (0, 1)]
    logp, other = (
        jax.nn.log_softmax(
            20 * model.logits(model.hidden(rows.tokens, rows.position, rows.segment))
        )
        for model in models
    )
    every = np.roll((np.exp(logp) * (logp - other)).sum(-1), 1, axis=1) * rows.trained
    assert (every > 1e-3).sum() == rows.trained.sum()
    for model in models:
        model.head.kernel[...] = 20 * model.head.kernel[...]
    for chunk in (7, 128):
        found = token_divergences(*models, rows, chunk)
        np.testing.assert_allclose(found, every, atol=1e-4)


def test_all_logits_never_exist_at_once() -> None:
    """Not for the gradient either: a large vocabulary takes little more than its chunks."""

    def temporary(chunk: int) -> int:
        config = LlmConfig(
            vocabulary=16384, width=8, mlp_width=8, n_layers=1, n_heads=1, n_kv_heads=1, head_size=4
        )
        graph, params = nnx.split(nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0))))
        shape = jax.ShapeDtypeStruct((2, 257), jnp.int32)

        def loss(params: Any, tokens: Any) -> Any:
            rows = SimpleNamespace(
                tokens=tokens, position=tokens, segment=tokens, trained=tokens > 0
            )
            return token_log_probs(nnx.merge(graph, params), rows, chunk=chunk).sum()

        compiled = jax.jit(jax.grad(loss)).lower(params, shape).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    logits = 2 * 256 * 16384 * 4
    assert temporary(256) > logits
    assert temporary(16) < logits / 4
