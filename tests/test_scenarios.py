"""The first hour of five users: each scenario of scenarios.sh, from a shell, at a tiny size."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scripts import ROOT

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.data.writers import to_cif

pytestmark = pytest.mark.slow

NEEDED = {
    "cifs": (),
    "reward": ("chgnet", "sklearn"),
    "hull": ("chgnet",),
    "huggingface": ("transformers", "tokenizers", "torch", "qwix"),
    "compare": ("chgnet",),
}
"""Scenarios, and packages of extras that they need."""

DENSITY = "def density(structure):\n    return structure.density\n"


def some_crystals(n: int) -> Crystals:
    """Small ones of the embedded set, of many compositions."""
    crystals = load("prototypes").crystals
    rows = np.flatnonzero(np.asarray(crystals.n_sites) <= 3)
    return crystals[rows[:: len(rows) // n][:n]]


def write_cifs(folder: Path) -> None:
    """Sixty CIFs, and one that is none."""
    folder.mkdir()
    for i, cif in enumerate(to_cif(some_crystals(60))):
        (folder / f"crystal_{i}.cif").write_text(cif, encoding="utf-8")
    (folder / "broken.cif").write_text("data_broken\n_cell_length_a five\n", encoding="utf-8")


def write_language_model(folder: Path) -> None:
    """A tiny Llama with random weights and a tokenizer of bytes, as transformers writes them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.parametrize("name", NEEDED)
def test_scenario(name: str, tmp_path: Path) -> None:
    absent = [package for package in NEEDED[name] if find_spec(package) is None]
    if absent:
        pytest.skip(f"needs {', '.join(absent)}")
    for folder in ("experiments", "checkpoints"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    if name in ("cifs", "hull"):
        write_cifs(tmp_path / "my_crystals")
    elif name == "huggingface":
        write_language_model(tmp_path / "my_llm")
    elif name == "compare":
        (tmp_path / "my_density.py").write_text(DENSITY, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    cache = str(tmp_path / "cache")
    done = subprocess.run(
        ["bash", str(ROOT / "tests" / "scenarios.sh"), name],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "CRYSTALJAX_CACHE": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
