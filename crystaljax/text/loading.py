"""Language-model policies from folders, from the hub, or new small ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
from flax import nnx

from crystaljax.models.llm.adapters import load_adapter
from crystaljax.models.llm.config import LlmConfig, LoraConfig
from crystaljax.models.llm.decoder import LanguageModel, Remat
from crystaljax.models.llm.folder import load_model
from crystaljax.models.llm.lora import add_lora
from crystaljax.models.llm.vocabulary import resize_vocabulary
from crystaljax.parallel import MeshConfig, make_mesh, parameter_placement
from crystaljax.policies.text import TextPolicy
from crystaljax.ranges import Range, check
from crystaljax.text.cutting import Cutting, make_tokenizer
from crystaljax.text.tokenizer import TOKENIZER_FILE, Tokenizer
from crystaljax.tokenizations.base import TextFormat

log = logging.getLogger(__name__)

FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
"""Files that are downloaded for a model on the hub."""


@dataclass(frozen=True)
class TextModelConfig:
    """A language model, and its placement in memory."""

    base: str = ""
    """Folder of a Hugging Face model, or its name on the hub. Empty: a new small model."""
    adapter: str = ""
    """PEFT folder of an adapter to train further. If it has a tokenizer, this one is used."""
    small: LlmConfig = field(default_factory=LlmConfig)
    """Size of a new model. Its vocabulary is the tokenizer's."""
    cutting: Cutting = "bpe"
    """Tokens of a new model. symbols: symbols of elements, and single characters; own: words of the
    text format's own vocabulary; bpe: BPE learnt from the texts."""
    n_vocabulary: int | None = None
    """Largest vocabulary of a new model. Not given: 512 for bpe, else as many tokens as needed."""
    pattern: str = ""
    """Regular expression for symbols, instead of that of the text format."""
    added_tokens: tuple[str, ...] = ()
    """Texts that become one token each, such as tags. With `lora`, their rows of the embedding and
    of the head are trained together with the adapters."""
    lora: LoraConfig | None = None
    """New LoRA adapters. Without them and without `adapter`, all parameters are trained. Any
    setting, such as --setup.model.lora.rank 8, adds adapters to a preset that has none."""
    quantized: Literal["no", "int8", "nf4"] = "no"
    """Number format of the matrices of the frozen base."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of parameters and computations."""
    dropout: float = 0.0
    """Dropout of attention and feed-forward layers in supervised training. About 0.1 if a small
    model sees the same few crystals many times."""
    remat: Remat = "products"
    """Activations that are recomputed in training instead of kept, to save memory."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """Distribution of the work over devices."""
    seed: int = 0
    """Random seed for new weights."""

    def __post_init__(self) -> None:
        check(self, dropout=Range(0, 1, with_high=False))
        if self.adapter and self.lora is not None:
            raise ValueError(
                "adapter and lora are both given: train an adapter further, or a new one"
            )
        if self.pattern and self.cutting != "symbols":
            raise ValueError(f"a pattern for symbols, and cutting {self.cutting}: choose symbols")


def load_text_policy(
    config: TextModelConfig, texts: Sequence[str] = (), format: TextFormat | None = None
) -> TextPolicy:
    """The policy that a configuration describes.

    `texts`, and the format that crystals among them are written in, make the tokenizer of a new
    model.

    Errors: see `folder.load_model`, `adapters.load_adapter`, `Tokenizer.load` and
    `cutting.make_tokenizer`.
    """
    mesh = make_mesh(config.mesh)
    added: list[int] = []
    if config.base:
        tokenizer = load_tokenizer(config)
        added = tokenizer.add_tokens(config.added_tokens)
        quantized = None if config.quantized == "no" else config.quantized
        placement = parameter_placement(mesh)
        model = load_model(fetched(config.base), config.dtype, placement, quantized)
    elif config.quantized != "no":
        raise ValueError("a quantised base is asked for, and no base: give its folder or name")
    else:
        tokenizer = make_tokenizer(
            config.cutting,
            texts,
            format,
            config.n_vocabulary,
            config.pattern,
            config.added_tokens,
        )
        shape = replace(config.small, vocabulary=tokenizer.n_vocabulary())
        model = LanguageModel(shape, nnx.Rngs(config.seed), jnp.dtype(config.dtype))
    old = model.config.vocabulary
    resize_vocabulary(model, tokenizer.n_vocabulary())
    if config.adapter:
        if added:
            raise ValueError(
                f"the adapter {config.adapter} does not know {len(added)} of the added tokens, so "
                "they could not be learnt: merge it into its base first, or start a new one (lora)"
            )
        load_adapter(model, config.adapter, config.base or None)
    elif config.lora is not None:
        tokens = sorted({*added, *range(old, model.config.vocabulary)})
        add_lora(model, config.lora, nnx.Rngs(config.seed), tokens)
    return TextPolicy(model, tokenizer, mesh, config.remat, config.dropout, config.base)


def load_tokenizer(config: TextModelConfig) -> Tokenizer:
    """The tokenizer of the adapter's folder, which may have more tokens, else that of the base.

    Errors: see `fetched`, `Tokenizer.load`.
    """
    adapter = Path(config.adapter)
    has_one = bool(config.adapter) and (adapter / TOKENIZER_FILE).is_file()
    return Tokenizer.load(adapter if has_one else fetched(config.base))


def fetched(name: str) -> Path:
    """The folder of a model: the given one, or a copy from the hub.

    FileNotFoundError if there is neither.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except (OSError, HFValidationError) as error:
        raise FileNotFoundError(
            f"no model {name}: it is no folder here, and the hub gave none ({error})"
        ) from error
