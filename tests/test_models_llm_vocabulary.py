"""Added tokens against transformers."""

import copy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from llm_reference import checkpoint, from_folder, reference, torch

from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.folder import export_model, load_model
from crystaljax.models.llm.vocabulary import resize_vocabulary

TOKENS = np.random.default_rng(0).integers(3, 97, (1, 12))


@jax.jit
def logits(model: LanguageModel) -> jax.Array:
    position = jnp.arange(12)[None]
    return model.logits(model.hidden(jnp.asarray(TOKENS), position, jnp.ones_like(position)))


@pytest.mark.parametrize("case", ["llama", "llama-tied"])
@pytest.mark.parametrize(("n_tokens", "multiple", "size"), [(100, 1, 100), (98, 64, 128)])
def test_old_tokens_stay_and_new_ones_are_their_mean(
    case: str, n_tokens: int, multiple: int, size: int, tmp_path: Path
) -> None:
    model = load_model(checkpoint(case, tmp_path / "old"))
    before, table = logits(model), np.asarray(model.embed.embedding[...])
    resize_vocabulary(model, n_tokens, multiple)
    assert model.config.vocabulary == size
    expected = copy.deepcopy(reference(case))
    expected.resize_token_embeddings(n_tokens, pad_to_multiple_of=multiple, mean_resizing=False)
    shape = tuple(expected.get_input_embeddings().weight.shape)
    assert model.embed.embedding.shape == shape == (size, 32)
    assert tuple(expected.get_output_embeddings().weight.shape) == shape
    np.testing.assert_array_equal(model.embed.embedding[:97], table)
    mean = np.broadcast_to(table.mean(0), (size - 97, 32))
    np.testing.assert_allclose(model.embed.embedding[97:], mean, atol=1e-6)

    after = logits(model)
    assert after.shape == (1, 12, size)
    np.testing.assert_allclose(after[..., :97], before, atol=1e-5)
    # Logits are linear in the rows of the last layer: those of the mean are the mean.
    mean_logits = np.broadcast_to(np.mean(before, -1, keepdims=True), (1, 12, size - 97))
    np.testing.assert_allclose(after[..., 97:], mean_logits, atol=1e-5)

    # It is the model that a configuration of this size makes, and transformers loads it.
    assert nnx.graphdef(model) == nnx.graphdef(LanguageModel(model.config, nnx.Rngs(0)))
    export_model(model, tmp_path / "new")
    with torch.no_grad():
        theirs = from_folder(tmp_path / "new")(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(after, theirs, atol=1e-4)


def test_a_padded_vocabulary_has_room(tmp_path: Path) -> None:
    model = load_model(checkpoint("llama", tmp_path))
    state: Any = jax.tree.map(jnp.copy, nnx.state(model))
    resize_vocabulary(model, 90, 64)
    assert model.config.vocabulary == 97
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), state)
    with pytest.raises(ValueError, match="must be positive"):
        resize_vocabulary(model, 0)
