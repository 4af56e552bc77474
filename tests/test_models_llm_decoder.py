"""The decoder against transformers: logits, gradients, packed rows, the ring cache."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from llm_reference import CASES, FAMILIES, checkpoint, reference, torch

from crystaljax.models.llm.attention import LayerCache
from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.folder import load_model
from crystaljax.models.llm.names import tensor_name

LENGTH = 150  # longer than every window and than what llama3 angles are stretched from


@pytest.fixture(scope="module", autouse=True)
def _precise():  # type: ignore[no-untyped-def]
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module")
def ours(tmp_path_factory):  # type: ignore[no-untyped-def]
    """Our model of a case."""
    models: dict[str, LanguageModel] = {}

    def get(case: str) -> LanguageModel:
        if case not in models:
            models[case] = load_model(checkpoint(case, tmp_path_factory.mktemp(case)))
        return models[case]

    return get


@partial(jax.jit, static_argnums=0)
def _logits(graph: Any, params: Any, *rows: Any) -> Any:
    model = nnx.merge(graph, params)
    return model.logits(model.hidden(*rows))


def logits(model: LanguageModel, tokens: Any, position: Any = None, segment: Any = None) -> Any:
    if position is None:
        position = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        segment = np.ones_like(tokens)
    return _logits(*nnx.split(model), tokens, position, segment)


def random_tokens(rows: int, length: int = LENGTH) -> np.ndarray:
    return np.random.default_rng(length).integers(3, 97, (rows, length))


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str, ours: Any) -> None:
    tokens = random_tokens(2)
    with torch.no_grad():
        expected = reference(case)(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(logits(ours(case), tokens), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", FAMILIES)
def test_gradients_are_those_of_transformers(case: str, ours: Any) -> None:
    tokens = random_tokens(2, 40)
    theirs = reference(case)
    theirs.zero_grad()
    theirs(torch.tensor(tokens), labels=torch.tensor(tokens)).loss.backward()
    expected = {name: weight.grad.numpy() for name, weight in theirs.named_parameters()}
    model = ours(case)
    graph, params = nnx.split(model)

    @partial(jax.jit, static_argnums=1)
    @jax.grad
    def gradient(params: Any, remat: Any) -> Any:
        model = nnx.merge(graph, params)
        position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden = model.hidden(tokens, position, jnp.ones_like(position), remat=remat)
        logp = jax.nn.log_softmax(model.logits(hidden)[:, :-1])
        return -jnp.take_along_axis(logp, jnp.asarray(tokens)[:, 1:, None], -1).mean()

    for remat in ("none", "all") if case == "gemma2" else ("none",):
        found = nnx.to_flat_state(gradient(params, remat))
        assert {tensor_name(path, model.config) for path, _ in found} == set(expected)
        for path, leaf in found:
            name = tensor_name(path, model.config)
            grad = leaf.get_value().T if path[-1] == "kernel" else leaf.get_value()
            np.testing.assert_allclose(grad, expected[name], atol=2e-5, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("case", FAMILIES)
def test_packed_rows_equal_rows_of_their_own(case: str, ours: Any) -> None:
    tokens, lengths = random_tokens(3, 60), (20, 60, 37)
    alone = logits(ours(case), tokens)
    row = np.concatenate([*(tokens[i, :n] for i, n in enumerate(lengths)), np.zeros(13, int)])
    position = np.concatenate([*(np.arange(n) for n in lengths), np.arange(13)])
    segment = np.repeat([1, 2, 3, 0], [*lengths, 13])
    packed = logits(ours(case), row[None], position[None], segment[None])[0]
    assert np.isfinite(packed).all()
    expected = np.concatenate([alone[i, :n] for i, n in enumerate(lengths)])
    np.testing.assert_allclose(packed[:-13], expected, atol=1e-5)


N_SLOTS = 64


class Ring:
    """A cache of B rows at a clock near its end, so that it goes round."""

    def __init__(self, model: LanguageModel, size: int) -> None:
        self.graph, self.params = nnx.split(model)
        self.cache = model.empty_cache(size, N_SLOTS)
        self.slot_position = np.full((size, N_SLOTS), -1)
        self.clock = 50

    def put(self, row: int, prompt: np.ndarray) -> int:
        """Prefill a row; the token that follows."""
        hidden, kept = _prefill(self.graph, self.params, prompt[None])
        slots = (self.clock - len(prompt) + np.arange(len(prompt))) % N_SLOTS
        self.cache = tuple(
            LayerCache(*(x.at[row, :, slots].set(y[0].swapaxes(0, 1)) for x, y in pair))
            for pair in (zip(old, new, strict=True) for old, new in zip(self.cache, kept))  # noqa: B905
        )
        self.slot_position[row] = -1
        self.slot_position[row, slots] = np.arange(len(prompt))
        return int(nnx.merge(self.graph, self.params).logits(hidden[0, -1]).argmax())

    def step(self, tokens: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Logits of what follows the tokens."""
        self.slot_position[:, self.clock % N_SLOTS] = position
        found, self.cache = _step(
            self.graph, self.params, tokens, position, self.cache, self.slot_position, self.clock
        )
        self.clock += 1
        return np.asarray(found)


@partial(jax.jit, static_argnums=0)
def _prefill(graph: Any, params: Any, tokens: Any) -> Any:
    position = jnp.arange(tokens.shape[1])[None]
    return nnx.merge(graph, params).prefill(tokens, position, jnp.ones_like(position))


@partial(jax.jit, static_argnums=0)
def _step(graph: Any, params: Any, *state: Any) -> Any:
    model = nnx.merge(graph, params)
    hidden, cache = model.step(*state)
    return model.logits(hidden), cache


@pytest.mark.parametrize("case", FAMILIES)
def test_greedy_continuation_from_the_ring_cache(case: str, ours: Any) -> None:
    """Of ragged prompts as transformers', also by a row that a new prompt has taken over."""
    n_new, model = 40, ours(case)
    prompts = [random_tokens(1, n)[0] for n in (12, 3, 12, 20)]
    longest = max(len(x) for x in prompts)
    padded = np.stack([np.pad(x, (longest - len(x), 0)) for x in prompts])
    found = reference(case).generate(
        torch.tensor(padded),
        attention_mask=torch.tensor([[0] * (longest - len(x)) + [1] * len(x) for x in prompts]),
        do_sample=False,
        max_new_tokens=n_new,
        eos_token_id=None,
    )
    expected = found[:, longest:].numpy()

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

    whole = np.stack([np.pad(x, (0, longest + n_new - len(x))) for x in texts])
    uncached = np.asarray(logits(model, whole))
    for (i, at), value in given.items():
        np.testing.assert_allclose(value, uncached[i, at], atol=1e-4)


def test_bfloat16(ours: Any) -> None:
    """Activations are rounded, logits are not, and stay close to the float32 ones."""
    model = ours("gemma2")
    graph, params = nnx.split(model)
    half = nnx.merge(graph, jax.tree.map(lambda x: x.astype(jnp.bfloat16), params))
    half.embed.dtype = half.dtype = jnp.dtype("bfloat16")
    tokens = random_tokens(2, 40)
    exact, rounded = np.asarray(logits(model, tokens)), np.asarray(logits(half, tokens))
    assert rounded.dtype == np.float32 and not np.array_equal(
        rounded, rounded.astype(jnp.bfloat16).astype(np.float32)
    )
    assert np.abs(exact - rounded).mean() < 0.03 * exact.std()


def test_new_models_predict_nothing_yet() -> None:
    config = LlmConfig(family="olmo2", n_layers=2, tied=False)
    model = LanguageModel(config, nnx.Rngs(0))
    logp = jax.nn.log_softmax(logits(model, random_tokens(1, 16)))
    np.testing.assert_allclose(logp, -np.log(config.vocabulary), atol=1.5)
