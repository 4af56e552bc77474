"""The decoder against transformers: logits and gradients; packed rows."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from llm_reference import CASES, FAMILIES, logits, ours, random_tokens, reference, torch

from crystaljax.models.llm.decoder import Dropout, Remat
from crystaljax.models.llm.names import tensor_name


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str) -> None:
    tokens = random_tokens(3)
    with torch.no_grad():
        expected = reference(case)(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(logits(ours(case), tokens), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("case", "remat"), zip(FAMILIES, ("none", "all", "products", "none"), strict=True)
)
def test_gradients_are_those_of_transformers(case: str, remat: Remat) -> None:
    tokens = random_tokens(2, 40)
    theirs = reference(case)
    theirs.zero_grad()
    theirs(torch.tensor(tokens), labels=torch.tensor(tokens)).loss.backward()
    expected = {name: weight.grad.numpy() for name, weight in theirs.named_parameters()}
    model = ours(case)
    graph, params = nnx.split(model)

    @jax.jit
    @jax.grad
    def gradient(params: Any) -> Any:
        model = nnx.merge(graph, params)
        position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden = model.hidden(tokens, position, jnp.ones_like(position), remat=remat)
        logp = jax.nn.log_softmax(model.logits(hidden)[:, :-1])
        return -jnp.take_along_axis(logp, jnp.asarray(tokens)[:, 1:, None], -1).mean()

    found = nnx.to_flat_state(gradient(params))
    assert {tensor_name(path, model.config) for path, _ in found} == set(expected)
    for path, leaf in found:
        name = tensor_name(path, model.config)
        grad = leaf.get_value().T if path[-1] == "kernel" else leaf.get_value()
        np.testing.assert_allclose(grad, expected[name], atol=2e-5, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("case", FAMILIES)
def test_packed_rows_equal_rows_of_their_own(case: str) -> None:
    tokens, lengths = random_tokens(3), (20, 60, 57)
    alone = logits(ours(case), tokens)
    row = np.concatenate([*(tokens[i, :n] for i, n in enumerate(lengths)), np.zeros(13, int)])
    position = np.concatenate([*(np.arange(n) for n in lengths), np.arange(13)])
    segment = np.repeat([1, 2, 3, 0], [*lengths, 13])
    packed = logits(ours(case), *(np.stack(3 * [x]) for x in (row, position, segment)))[0]
    assert np.isfinite(packed).all()
    expected = np.concatenate([alone[i, :n] for i, n in enumerate(lengths)])
    np.testing.assert_allclose(packed[:-13], expected, atol=1e-5)


def test_dropout_is_of_the_layers_outputs() -> None:
    """On average it changes nothing of what one block adds; masks differ by key, layer, output."""
    x, dropout = jnp.ones((400, 16)), Dropout(jax.random.key(0), 0.25)
    masks = [some(x, i) for some in (dropout.layer(0), dropout.layer(1)) for i in (0, 1)]
    for mask in masks:
        np.testing.assert_allclose(jnp.unique(mask), [0, 4 / 3], rtol=1e-6)
        assert float((mask == 0).mean()) == pytest.approx(0.25, abs=4 * (0.1875 / mask.size) ** 0.5)
    shared = [float((a == b).mean()) for a, b in itertools.pairwise(masks)]
    np.testing.assert_allclose(shared, 0.625, atol=0.03)

    model, tokens = ours("llama"), random_tokens(2, 30)
    position = jnp.broadcast_to(jnp.arange(30), tokens.shape)

    @jax.jit
    @jax.vmap
    def hidden(key: Any) -> Any:
        some = Dropout(key, 0.2)
        return model.hidden(tokens, position, jnp.ones_like(position), some, "all")

    given = tokens, position, jnp.ones_like(position)
    same = model.hidden(*given, Dropout(jax.random.key(1)))
    np.testing.assert_array_equal(same, model.hidden(*given))
    found = hidden(jax.random.split(jax.random.key(1), 40))
    assert (np.asarray(found).std(axis=0) > 0).all()


def test_bfloat16() -> None:
    """Activations are rounded, logits are not, and stay close to the float32 ones."""
    model = ours("gemma2")
    graph, params = nnx.split(model)
    half = nnx.merge(graph, jax.tree.map(lambda x: x.astype(jnp.bfloat16), params))
    half.embed.dtype = half.dtype = jnp.dtype("bfloat16")
    tokens = random_tokens(3)
    exact, rounded = np.asarray(logits(model, tokens)), np.asarray(logits(half, tokens))
    assert rounded.dtype == np.float32 and not np.array_equal(
        rounded, rounded.astype(jnp.bfloat16).astype(np.float32)
    )
    assert np.abs(exact - rounded).mean() < 0.03 * exact.std()
