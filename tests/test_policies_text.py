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
from crystaljax.models.llm.token_grammar import TokenGrammar, from_table
from crystaljax.policies.text import TextPolicy
from crystaljax.text.cutting import Cutting
from crystaljax.text.generation import GenerationConfig
from crystaljax.text.loading import TextModelConfig, load_text_policy
from crystaljax.text.packing import Rows, pack_texts
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.sft import SftConfig, sft

SMALL = TextModelConfig(
    small=LlmConfig(width=16, mlp_width=32, n_layers=1, n_heads=2, n_kv_heads=2, head_size=8),
    n_vocabulary=300,
)


def scores(policy: TextPolicy) -> np.ndarray:
    rows = pack_texts(policy.tokenizer.sequences([""], [TRIPLES[0]]), (Rows(1, 128),))
    return np.asarray(policy.log_probs(policy.start, policy.frozen, rows, 1)[0])


@pytest.mark.parametrize("cutting", ["bpe", "symbols"])
def test_a_model_from_scratch_comes_back(tmp_path: Path, cutting: Cutting) -> None:
    config = dataclasses.replace(SMALL, cutting=cutting)
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


TAGS = ("<BCC>", "</BCC>", "<B2>", "</B2>")


def test_added_tokens_are_learnt_beside_adapters(tmp_path: Path) -> None:
    """Their rows are trained, and come back with the adapter's tokenizer."""
    first = load_text_policy(SMALL, TRIPLES)
    first.save(tmp_path / "base", first.start)
    base = TextModelConfig(base=str(tmp_path / "base"))
    lora = LoraConfig(rank=2)
    policy = load_text_policy(dataclasses.replace(base, added_tokens=TAGS, lora=lora))
    new = policy.tokenizer.encode(["".join(TAGS)])[0].tolist()
    model = policy.model(policy.start)
    assert model.embed_rows is not None
    assert sorted(model.embed_rows.tokens) == sorted(new)
    texts = policy.tokenizer.sequences([""] * 16, [TRIPLES[i % 4] for i in range(16)])
    config = SftConfig(
        n_epochs=10,
        batch_size=8,
        optimizer=OptimizerConfig(learning_rate=0.05, warmup_steps=0, ema_decay=0.0),
    )
    trained = sft(policy, texts, texts, config, tmp_path / "run", lambda *_: None).params
    rows = trained["embed_rows"]["rows"][...]
    assert np.abs(rows - policy.start["embed_rows"]["rows"][...]).max(axis=1).min() > 0.01
    assert np.abs(rows[0] - rows[1]).max() > 0.01  # they began as one mean

    policy.save(tmp_path / "adapter", trained)
    again = load_text_policy(dataclasses.replace(base, adapter=str(tmp_path / "adapter")))
    assert again.tokenizer.encode(["".join(TAGS)])[0].tolist() == new
    assert again.identity == policy.identity
    rows = pack_texts(texts[:4], (Rows(1, 64),))
    expected = policy.log_probs(trained, policy.frozen, rows, 4)[0]
    found = again.log_probs(again.start, again.frozen, rows, 4)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(ValueError, match="does not know 1 of the added tokens"):
        load_text_policy(
            dataclasses.replace(base, adapter=str(tmp_path / "adapter"), added_tokens=("<L12>",))
        )


def test_a_generator_is_kept_for_what_a_grammar_says() -> None:
    policy = tiny_policy()
    config, prompt = GenerationConfig(max_new_tokens=4), [triples(1)[0].tokens[:1]]
    size, end = policy.config.vocabulary, policy.tokenizer.end_id

    def only(token: int) -> TokenGrammar:
        """Texts of that token."""
        next_state = np.full((2, size), -1, np.int32)
        next_state[:, token] = 1
        return from_table(next_state, np.array([False, False]))

    def drawn(grammar: TokenGrammar) -> set[int]:
        return set(policy.sample(policy.start, prompt, 0, config, grammar=grammar).tokens.ravel())

    grammar = only(10)
    assert drawn(grammar) == {10}
    generator = policy._generator
    assert drawn(only(10)) == {10}
    assert policy._generator is generator
    grammar.token_class[:] = only(11).token_class  # the same object says something else
    assert drawn(grammar) == {11}
    assert drawn(only(12)) == {12}
    free = policy.sample(policy.start, prompt, 0, config).tokens.ravel()
    assert end in free or set(free.tolist()) != {12}


def test_samples_are_scored_as_they_were_drawn() -> None:
    policy = tiny_policy()
    asked = [tokens[:n] for tokens, n in triples(6)]
    drawn = policy.sample(policy.start, asked, 0, GenerationConfig(max_new_tokens=12), n=2)
    texts = [
        (np.concatenate([asked[i // 2], drawn.sequence(i)]), len(asked[i // 2])) for i in range(12)
    ]
    logp, _ = policy.log_probs(policy.start, policy.frozen, pack_texts(texts, (Rows(4, 64),)), 12)
    np.testing.assert_allclose(logp.sum(axis=1), drawn.logp_model.sum(axis=1), atol=1e-4)


def test_what_does_not_fit() -> None:
    small = LanguageModel(dataclasses.replace(TINY, vocabulary=4), nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ tokens, and the model 4"):
        TextPolicy(small, words())
    with pytest.raises(ValueError, match="adapter and lora are both given"):
        TextModelConfig(base="x", adapter="y", lora=LoraConfig())
    with pytest.raises(ValueError, match="a quantised base is asked for, and no base"):
        load_text_policy(dataclasses.replace(SMALL, quantized="int8"), TRIPLES)


def test_a_base_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="no model some where"):
        load_text_policy(TextModelConfig(base="some where"))
