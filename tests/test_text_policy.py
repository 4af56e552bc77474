"""Policies of texts: loaded, saved, and loaded again."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from llm_reference import from_folder, torch
from small_policy import TINY, tiny_policy, triples
from small_text import TRIPLES, words

from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.lora import LoraConfig
from crystaljax.text.generation import GenerationConfig
from crystaljax.text.loading import TextModelConfig, load_text_policy
from crystaljax.text.packing import pack_rows
from crystaljax.text.policy import TextPolicy

SMALL = TextModelConfig(
    small=LlmConfig(width=16, mlp_width=32, n_layers=1, n_heads=2, n_kv_heads=2, head_size=8),
    n_vocabulary=300,
)


def scores(policy: TextPolicy) -> np.ndarray:
    rows = pack_rows(policy.tokenizer.sequences([""], [TRIPLES[0]]), 128, 1)
    return np.asarray(policy.log_probs(policy.start, policy.frozen, rows, 1)[0])


@pytest.mark.parametrize("pattern", ["", r"[A-Z][a-z]?|[\s\S]"])
def test_a_model_from_scratch_comes_back(tmp_path: Path, pattern: str) -> None:
    config = dataclasses.replace(SMALL, pattern=pattern)
    policy = load_text_policy(config, TRIPLES)
    policy.save(tmp_path / "model", policy.start)
    again = load_text_policy(TextModelConfig(base=str(tmp_path / "model")))
    assert again.identity == policy.identity
    np.testing.assert_array_equal(scores(again), scores(policy))
    theirs = from_folder(tmp_path / "model")
    tokens = policy.tokenizer.sequences([""], [TRIPLES[0]])[0].tokens
    with torch.no_grad():
        logp = theirs(torch.tensor(tokens)[None]).logits[0, :-1].log_softmax(-1).numpy()
    expected = np.take_along_axis(logp, tokens[1:, None], axis=1)[:, 0]
    np.testing.assert_allclose(scores(policy)[0, 1 : len(tokens)], expected, atol=1e-4)


def test_adapters_are_saved_alone(tmp_path: Path) -> None:
    load_text_policy(SMALL, TRIPLES).save(tmp_path / "base", load_text_policy(SMALL, TRIPLES).start)
    config = TextModelConfig(base=str(tmp_path / "base"), lora=LoraConfig(rank=2), quantized="int8")
    policy = load_text_policy(config)
    assert policy.has_adapters
    changed = jax.tree.map(lambda x: x + 0.1, policy.start)
    policy.save(tmp_path / "adapter", changed)
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= files
    assert "model.safetensors" not in files
    again = load_text_policy(
        dataclasses.replace(config, lora=None, adapter=str(tmp_path / "adapter"))
    )
    jax.tree.map(np.testing.assert_array_equal, again.start, changed)
    assert np.abs(scores(again) - scores(policy)).max() > 1e-3


def test_added_tokens_get_embeddings(tmp_path: Path) -> None:
    policy = load_text_policy(SMALL, TRIPLES)
    policy.save(tmp_path / "base", policy.start)
    config = TextModelConfig(base=str(tmp_path / "base"), added_tokens=("<BCC>", "</BCC>"))
    wider = load_text_policy(config)
    assert wider.config.vocabulary >= wider.tokenizer.n_vocabulary() > policy.config.vocabulary
    assert len(wider.tokenizer.encode(["<BCC>"])[0]) == 1


def test_samples_are_scored_as_they_were_drawn() -> None:
    policy = tiny_policy()
    asked = [tokens[:n] for tokens, n in triples(6)]
    drawn = policy.sample(policy.start, asked, 0, GenerationConfig(max_new_tokens=12), n=2)
    texts = [
        (np.concatenate([asked[i // 2], drawn.sequence(i)]), len(asked[i // 2])) for i in range(12)
    ]
    logp, _ = policy.log_probs(policy.start, policy.frozen, pack_rows(texts, 64), 12)
    np.testing.assert_allclose(logp.sum(axis=1), drawn.logp_model.sum(axis=1), atol=1e-4)


def test_what_does_not_fit() -> None:
    small = LanguageModel(dataclasses.replace(TINY, vocabulary=4), nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ tokens, and the model 4"):
        TextPolicy(small, words())
    with pytest.raises(ValueError, match="an adapter to go on from, and a new one"):
        TextModelConfig(base="x", adapter="y", lora=LoraConfig())
    with pytest.raises(ValueError, match="a quantised base is asked for, and no base"):
        load_text_policy(dataclasses.replace(SMALL, quantized="int8"), TRIPLES)


def test_a_base_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="no model some where"):
        load_text_policy(TextModelConfig(base="some where"))
