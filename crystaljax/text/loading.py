"""Language-model policies from folders, from the hub, or made small from scratch."""

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
"""Files fetched of a model on the hub."""


@dataclass(frozen=True)
class TextModelConfig:
    """A language model, and its placement in memory."""

    base: str = ""
    """Folder of a Hugging Face model, or its name on the hub; a small one from scratch if empty."""
    adapter: str = ""
    """PEFT folder of an adapter to go on from; its tokenizer, if it has one, is used."""
    small: LlmConfig = field(default_factory=LlmConfig)
    """Size of the model from scratch; its vocabulary is the tokenizer's."""
    cutting: Cutting = "bpe"
    """Cut of texts into the tokens of a model from scratch: symbols of elements and single
    characters, words of the text format's own vocabulary, or BPE learnt from the texts."""
    n_vocabulary: int | None = None
    """Tokens of a model from scratch at most; 512 of bpe, else as many as needed if not given."""
    pattern: str = ""
    """Regular expression whose matches are the symbols, instead of the text format's."""
    added_tokens: tuple[str, ...] = ()
    """Texts that become one token each, such as tags. With `lora` their rows of the embedding and
    the head are trained beside the adapters."""
    lora: LoraConfig | None = None
    """New adapters; without them, and without `adapter`, all parameters are trained. A setting of
    theirs makes them where a preset has none, such as --setup.model.lora.rank 8."""
    quantized: Literal["no", "int8", "nf4"] = "no"
    """Format of the frozen base's matrices."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of parameters and computations."""
    dropout: float = 0.0
    """Share of the outputs of attention and feed-forward layers that is dropped in supervised
    training: 0.1 or so where a small model learns few crystals many times."""
    remat: Remat = "products"
    """Activations that training computes again rather than keeps, to save memory."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """Sharing of the work among devices."""
    seed: int = 0
    """Random seed for new weights."""

    def __post_init__(self) -> None:
        check(self, dropout=Range(0, 1, with_high=False))
        if self.adapter and self.lora is not None:
            raise ValueError("an adapter to go on from, and a new one: give one of the two")
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
    """The tokenizer of the adapter's folder, which may have tokens more, or else of the base's.

    Errors: see `fetched`, `Tokenizer.load`.
    """
    adapter = Path(config.adapter)
    has_one = bool(config.adapter) and (adapter / TOKENIZER_FILE).is_file()
    return Tokenizer.load(adapter if has_one else fetched(config.base))


def fetched(name: str) -> Path:
    """The folder of a model: itself, or a copy of what the hub has under that name.

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
