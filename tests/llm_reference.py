"""Tiny random checkpoints of transformers, the reference for language models, and ours."""

from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from crystaljax.models.llm.decoder import LanguageModel

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")

from crystaljax.models.llm.folder import load_model  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ALL_BIASES = {"attention_bias": True, "mlp_bias": True}
CASES: dict[str, dict[str, Any]] = {
    "llama": {"head_dim": 16, "rope_parameters": LLAMA3},
    "llama-tied": {"num_key_value_heads": 4, "tie_word_embeddings": True, **ALL_BIASES},
    "llama-gelu": {"num_key_value_heads": 1, "hidden_act": "gelu", "rms_norm_eps": 0.01},
    "gemma2": {
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
        "sliding_window": 9,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 4.0,
    },
    "gemma2-untied": {
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
        "head_dim": 12,
        "attention_bias": True,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "sliding_window": 40,
        "layer_types": ["full_attention", "sliding_attention"],
    },
    "olmo2": {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}},
    "olmo2-tied": {"num_key_value_heads": 4, "tie_word_embeddings": True, "attention_bias": True},
    "qwen2": {"tie_word_embeddings": True},
    "qwen2-window": {
        "num_key_value_heads": 4,
        "head_dim": 12,
        "use_sliding_window": True,
        "sliding_window": 7,
        "max_window_layers": 1,
    },
}
FAMILIES = ("llama", "gemma2", "olmo2", "qwen2-window")


@cache
def reference(case: str) -> Any:
    """A model with every parameter random, norms and biases included."""
    fields = {**SIZES, **CASES[case]}
    config = transformers.AutoConfig.for_model(case.split("-", maxsplit=1)[0], **fields)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(0.2 * torch.randn_like(weight) + 0.5 * ("norm" in name))
    return model.eval()


def checkpoint(case: str, folder: Path, **options: Any) -> Path:
    """The folder that transformers saves the model to."""
    reference(case).save_pretrained(folder, **options)
    return folder


def from_folder(folder: Path, **options: Any) -> Any:
    """The model that transformers loads."""
    load = transformers.AutoModelForCausalLM.from_pretrained
    return load(folder, attn_implementation="eager", **options).eval()


@cache
def ours(case: str) -> LanguageModel:
    """The same model, here."""
    with TemporaryDirectory() as folder:
        return load_model(checkpoint(case, Path(folder)))


@partial(jax.jit, static_argnums=0)
def _logits(graph: Any, params: Any, *rows: Any) -> Any:
    model = nnx.merge(graph, params)
    return model.logits(model.hidden(*rows))


def logits(model: LanguageModel, tokens: Any, position: Any = None, segment: Any = None) -> Any:
    """Of packed rows, by default of one text each."""
    if position is None:
        position = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        segment = np.ones_like(tokens)
    return np.asarray(_logits(*nnx.split(model), tokens, position, segment))


LENGTH = 150  # longer than every window and than what llama3 angles are stretched from


def random_tokens(rows: int, length: int = LENGTH) -> np.ndarray:
    """int [rows, length], none of them special."""
    return np.random.default_rng(length).integers(3, 97, (rows, length))
