"""Language models that write crystals, small enough for tests."""

import dataclasses
from functools import lru_cache
from pathlib import Path

import numpy as np
from flax import nnx
from small_policy import TINY

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.lora import LoraConfig, add_lora
from crystaljax.policies.base import Params
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.text import TextPolicy
from crystaljax.policies.text_metadata import TextMetadata
from crystaljax.policies.text_prompts import crystal_fields
from crystaljax.text.prompts import load_template
from crystaljax.text.tokenizer import Tokenizer
from crystaljax.text.tokenizer_training import train_words
from crystaljax.tokenizations.registry import create_format
from crystaljax.training.likelihood import LikelihoodConfig, learn
from crystaljax.training.optimizer import OptimizerConfig

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
    config = dataclasses.replace(TINY, vocabulary=tokenizer.n_vocabulary(), max_length=1024)
    model = LanguageModel(config, nnx.Rngs(0))
    if lora is not None:
        add_lora(model, lora, nnx.Rngs(1))
    return CrystalTextPolicy(TextPolicy(model, tokenizer), metadata)


def learnt_crystal_texts(folder: Path, head_size: int = 8) -> tuple[CrystalTextPolicy, Params]:
    """A model that has learnt the cubic ones of the small crystals by heart, by space group."""
    width = max(32, 2 * head_size)
    crystals = small_crystals()
    crystals = crystals[np.isin(crystals.space_group, (216, 221, 225, 227))]
    metadata, tokenizer = small_metadata(("space_group",), "wyckoff-text", crystals)
    config = dataclasses.replace(
        TINY,
        vocabulary=tokenizer.n_vocabulary(),
        max_length=256,
        width=width,
        mlp_width=64,
        head_size=head_size,
    )
    policy = CrystalTextPolicy(TextPolicy(LanguageModel(config, nnx.Rngs(0)), tokenizer), metadata)
    quick = OptimizerConfig(learning_rate=0.01, warmup_steps=10, ema_decay=0.0)
    n = len(crystals)
    fit = LikelihoodConfig(n_epochs=200, batch_size=n, optimizer=quick, validate_every=1000)
    start = policy.texts.start
    state = learn(policy, crystals, crystals, fit, folder, lambda *_: None, start=start)
    return policy, state.averaged


def small_metadata(
    templates: tuple[str, ...], format: str, crystals: Crystals | None = None
) -> tuple[TextMetadata, Tokenizer]:
    """How some crystals, the small ones, are written and asked for, with properties made up."""
    crystals = small_crystals() if crystals is None else crystals
    n = len(crystals)
    properties = {"band_gap": np.arange(n) / 10, "e_above_hull": np.arange(n) / 100}
    rows = crystal_fields(crystals, properties)
    loaded = tuple(load_template(name) for name in templates)
    texts = create_format(format).encode(crystals)
    prompts = []
    for template in loaded:
        said = template.saying(range(len(template.clauses)))
        everything = dict.fromkeys(said.prompt_fields, 0)
        prompts += [said.prompt({**everything, **row}) for row in rows]
    tokenizer = train_words([*texts, *prompts], r"[A-Z][a-z]?|[\s\S]")
    longest = max(map(len, tokenizer.encode(texts))) + 1
    return TextMetadata.of(format, loaded).describing(crystals, rows, longest), tokenizer
