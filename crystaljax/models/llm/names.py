"""Names of a language model's parameters in Hugging Face folders."""

from __future__ import annotations

from typing import Any

from crystaljax.models.llm.config import LlmConfig

Path = tuple[Any, ...]
"""Path of a parameter in the model's state: ("blocks", 0, "mlp", "up_proj", "kernel")."""

TOP = {
    ("embed", "embedding"): "model.embed_tokens.weight",
    ("norm", "weight"): "model.norm.weight",
    ("head", "kernel"): "lm_head.weight",
}

PARTS = {"attention": "self_attn", "mlp": "mlp"}

WEIGHTS = {"kernel": "weight", "weight": "weight", "bias": "bias"}

AROUND = {
    "before_attention": "input_layernorm",
    "after_attention": "post_attention_layernorm",
    "before_mlp": "pre_feedforward_layernorm",
    "after_mlp": "post_feedforward_layernorm",
}


def tensor_name(path: Path, config: LlmConfig) -> str:
    """The name that transformers gives to a parameter; KeyError if it has none.

    A kernel is the transpose of the tensor.
    """
    if path[0] != "blocks":
        return TOP[path]
    _, layer, part, *rest = path
    prefix = f"model.layers.{layer}"
    if part in PARTS:
        module, weight = rest
        return f"{prefix}.{PARTS[part]}.{module}.{WEIGHTS[weight]}"
    norm = AROUND[part]
    if part == "before_mlp" and not config.traits.post_norm:
        norm = "post_attention_layernorm"  # its name depends on the family's other norms
    return f"{prefix}.{norm}.weight"
