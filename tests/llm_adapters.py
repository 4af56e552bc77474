"""PEFT models with random adapters, and the same here."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from llm_reference import checkpoint, reference, torch

from crystaljax.models.llm.adapters import load_adapter
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.folder import load_model


def random_adapter(case: str, folder: Path) -> tuple[Any, LanguageModel]:
    """PEFT's model, whose adapters alone have gradients, and ours."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=3, lora_alpha=5, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]
    )
    theirs = peft.get_peft_model(copy.deepcopy(reference(case)), config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "lora_" in name:
                weight.copy_(0.2 * torch.randn_like(weight))
    theirs.save_pretrained(folder / "adapter")
    model = load_model(checkpoint(case, folder / "base"))
    load_adapter(model, folder / "adapter")
    return theirs, model


def slopes_by_key(theirs: Any) -> dict[str, np.ndarray]:
    """Gradients of the adapters, by PEFT's names."""
    return {
        name.removesuffix(".default.weight"): weight.grad.numpy()
        for name, weight in theirs.named_parameters()
        if weight.requires_grad
    }


def by_key(tree: Any) -> dict[str, np.ndarray]:
    """Our adapters' arrays by PEFT's names."""
    found = {}
    for (_, layer, part, name, _, factor), value in nnx.to_flat_state(tree):
        where = "self_attn" if part == "attention" else part
        key = f"base_model.model.model.layers.{layer}.{where}.{name}.lora_{factor.upper()}"
        found[key] = np.asarray(value[...]).T
    return found
