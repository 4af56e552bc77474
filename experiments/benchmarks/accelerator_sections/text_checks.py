"""Every compiled step of language models on fixed inputs, for `agreement`."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from accelerator_sections.agreement import Results
from accelerator_sections.checks import QUICK, Check, DType, Pair
from accelerator_sections.tokens import NoTexts
from crystaljax.crystal import Crystals
from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.likelihood import token_log_probs
from crystaljax.models.llm.lora import LoraConfig, add_lora
from crystaljax.models.llm.quantization import quantize
from crystaljax.policies.text import TextPolicy
from crystaljax.text.generation import GenerationConfig, Generator
from crystaljax.text.packing import (
    PackedTexts,
    Rows,
    TokenSequence,
    pack_micro_batches,
    pack_texts,
    per_sequence,
)
from crystaljax.training.optimizer import TrainState
from crystaljax.training.sft import SftConfig, make_update

SMALL = {
    "llama": LlmConfig(vocabulary=256, width=64, mlp_width=128, n_layers=2, n_kv_heads=2),
    "gemma2": LlmConfig(
        family="gemma2",
        vocabulary=256,
        width=64,
        mlp_width=128,
        n_layers=2,
        n_kv_heads=2,
        windows=(8, 0),
        activation="gelu_pytorch_tanh",
        query_scale=32.0,
        attention_cap=50.0,
        logit_cap=30.0,
    ),
}
"""Both have grouped queries; one has windows, caps and norms after the layers."""

WIDENED = 4.0
"""Factor on new weights, so that the layers' outputs are not negligible."""


def _model(family: str, dtype: DType) -> LanguageModel:
    """A model with random weights, equal in both types up to rounding."""
    config = SMALL[family]
    graph, shapes = nnx.split(
        nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0), jnp.dtype(dtype)))
    )
    weights = nnx.state(nnx.jit(lambda: LanguageModel(config, nnx.Rngs(0)))())

    def cast(shape: jax.ShapeDtypeStruct, x: jax.Array) -> jax.Array:
        return (WIDENED * x if x.ndim > 1 else x).astype(shape.dtype)

    return nnx.merge(graph, jax.tree.map(cast, shapes, weights))


SHORT_ROWS = (Rows(4, 64),)


def _texts(n: int) -> list[TokenSequence]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(6, 40, n)
    return [TokenSequence(rng.integers(1, 256, length), 4) for length in lengths]


@nnx.jit
def _score(model: LanguageModel, packed: PackedTexts) -> list[jax.Array]:
    return [token_log_probs(model, rows) for rows in packed]


def llama_logits(crystals: Crystals, dtype: DType) -> Results:
    """Log-probabilities of the tokens of packed texts, by text."""
    del crystals
    return _logits("llama", dtype)


def gemma_logits(crystals: Crystals, dtype: DType) -> Results:
    """The same for the family with windows and caps."""
    del crystals
    return _logits("gemma2", dtype)


def _logits(family: str, dtype: DType) -> Results:
    """They do not depend on the rows that texts are packed into."""
    texts = _texts(8)
    rows = pack_texts(texts, SHORT_ROWS)
    logp = per_sequence(_score(_model(family, dtype), rows), rows, len(texts))
    return {"logp": np.asarray(logp)}


def decoding(crystals: Crystals, dtype: DType) -> Results:
    """Tokens drawn with a cache, more sequences than there are rows."""
    del crystals
    return _drawn(_model("llama", dtype))[0]


def decoded_and_scored(crystals: Crystals, dtype: DType) -> tuple[Results, Results]:
    """Log-probabilities of tokens sampled with a cache, and of the same tokens scored at once."""
    del crystals
    model = _model("gemma2", dtype)
    drawn, texts = _drawn(model)
    rows = pack_texts(texts, SHORT_ROWS)
    logp = np.asarray(per_sequence(_score(model, rows), rows, len(texts)))
    scored = [x[text.n_prompt : len(text.tokens)] for x, text in zip(logp, texts, strict=True)]
    return {"logp": drawn["logp"]}, {"logp": np.stack(scored)}


def _drawn(model: LanguageModel) -> tuple[Results, list[TokenSequence]]:
    graph, weights = nnx.split(model)
    how = GenerationConfig(max_new_tokens=24, batch_size=8)
    prompts = [text.tokens[:n] for text, n in zip(_texts(12), [4, 9, 17] * 4, strict=True)]
    found = Generator(graph, how, end_tokens=())([weights], prompts, seed=0)
    texts = [
        TokenSequence(np.concatenate([prompt, found.sequence(i)]), len(prompt))
        for i, prompt in enumerate(prompts)
    ]
    return {"tokens": found.tokens, "logp": found.logp_model}, texts


def lora_step(crystals: Crystals, dtype: DType) -> Results:
    """Two steps of fine-tuning adapters; in the first, half of the gradients are zero."""
    del crystals
    return _fine_tuned(_model("llama", dtype))


def lora_step_int8(crystals: Crystals, dtype: DType) -> Results:
    """The same on a quantised base."""
    del crystals
    model = _model("llama", dtype)
    quantize(model, "int8")
    return _fine_tuned(model)


def _fine_tuned(model: LanguageModel) -> Results:
    add_lora(model, LoraConfig(rank=4), nnx.Rngs(1))
    policy = TextPolicy(model, NoTexts())
    optimizer = QUICK.build(2)
    update = make_update(policy, optimizer, SftConfig(batch_size=8, optimizer=QUICK))
    state = TrainState.create(policy.start, optimizer, averaged=False)
    rows = jax.device_put(pack_micro_batches([_texts(8)], SHORT_ROWS))
    losses, norms = [], []
    for _ in range(2):
        state, metrics = update(state, policy.frozen, rows)
        losses.append(metrics["nll"])
        norms.append(metrics["gradient_norm"])
    return {"nll": np.array(losses), "gradient_norm": np.array(norms)}


TEXT_CHECKS: Mapping[str, Check] = {
    "Llama logits": llama_logits,
    "Gemma 2 logits": gemma_logits,
    "decoding with a cache": decoding,
    "LoRA step": lora_step,
    "LoRA step, int8 base": lora_step_int8,
}

TEXT_PAIRS: Mapping[str, Pair] = {"decoding against logits": decoded_and_scored}
