"""Language models that write crystals, small enough for tests."""

import dataclasses
from functools import lru_cache

import numpy as np
from flax import nnx
from small_policy import TINY

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.lora import LoraConfig, add_lora
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.text import TextPolicy
from crystaljax.policies.text_metadata import TextMetadata
from crystaljax.policies.text_prompts import crystal_fields
from crystaljax.text.prompts import load_template
from crystaljax.text.tokenizer import Tokenizer
from crystaljax.text.tokenizer_training import train_words
from crystaljax.tokenizations.registry import create_format

TEMPLATES = ("formula", "unconditional", "space_group", "formula_space_group")


@lru_cache
def small_crystals() -> Crystals:
    """Some crystals of one or two sites."""
    crystals = load("prototypes").crystals[::10]
    return crystals[np.flatnonzero(np.asarray(crystals.n_sites) <= 2)[:60]]


def crystal_text_policy(
    templates: tuple[str, ...] = TEMPLATES,
    format: str = "wyckoff-text",
    lora: LoraConfig | None = None,
) -> CrystalTextPolicy:
    """Random weights, and a tokenizer of what the small crystals are written with."""
    metadata, tokenizer = small_metadata(templates, format)
    config = dataclasses.replace(TINY, vocabulary=tokenizer.n_vocabulary(), max_length=256)
    model = LanguageModel(config, nnx.Rngs(0))
    if lora is not None:
        add_lora(model, lora, nnx.Rngs(1))
    return CrystalTextPolicy(TextPolicy(model, tokenizer), metadata)


def small_metadata(templates: tuple[str, ...], format: str) -> tuple[TextMetadata, Tokenizer]:
    """How the small crystals are written and asked for, with properties made up."""
    crystals = small_crystals()
    n = len(crystals)
    properties = {"band_gap": np.arange(n) / 10, "e_above_hull": np.arange(n) / 100}
    rows = crystal_fields(crystals, properties)
    loaded = tuple(load_template(name) for name in templates)
    texts = create_format(format).encode(crystals)
    prompts = [template.prompt(row) for template in loaded for row in rows]
    tokenizer = train_words([*texts, *prompts], r"[A-Z][a-z]?|[\s\S]")
    longest = max(map(len, tokenizer.encode(texts))) + 1
    return TextMetadata.of(format, loaded).describing(crystals, rows, longest), tokenizer
