"""Configuration of language models, as in Hugging Face's `config.json`, and of adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Activation = Literal["silu", "gelu", "gelu_pytorch_tanh"]


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's scaling of rotary frequencies for longer contexts."""

    factor: float = 8.0
    """Low frequencies are divided by this factor."""
    low_freq_factor: float = 1.0
    """Frequencies with fewer turns than this in the original context are low."""
    high_freq_factor: float = 4.0
    """Frequencies with more turns are unchanged; those between are interpolated."""
    original_max_position_embeddings: int = 8192
    """Length of the original context in tokens."""


@dataclass(frozen=True)
class Family:
    """Settings shared by all models of an architecture."""

    architecture: str
    """Class of transformers."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of fields that its `config.json` may leave out, if they differ from `DEFAULTS`."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `LlmConfig` with the same value in all its models."""
    pre_norm: bool = True
    """Attention and feed-forward layers have a norm before them."""
    post_norm: bool = False
    """Attention and feed-forward layers have a norm after them, before the residual is added."""
    norm_offset: float = 0.0
    """Added to the weights of norms."""
    qk_norm: bool = False
    """All queries of a token, and all its keys, are normalised together."""
    output_bias: bool = True
    """The attention's output has a bias if queries, keys and values have one."""
    scaled_embedding: bool = False
    """Embeddings are multiplied by sqrt(width)."""
    activation_field: str = "hidden_act"
    """Key of the activation in `config.json`."""


DEFAULTS: dict[str, Any] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "use_sliding_window": False,
    "max_window_layers": 28,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
"""Defaults of fields that a `config.json` may leave out."""

UNCAPPED = {"query_scale": None, "attention_cap": None, "logit_cap": None}

FAMILIES = {
    "llama": Family("LlamaForCausalLM", fixed={**UNCAPPED, "windows": None}),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        defaults={
            "num_key_value_heads": 4,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
        },
        fixed={"mlp_bias": False},
        post_norm=True,
        norm_offset=1.0,
        scaled_embedding=True,
        activation_field="hidden_activation",
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        defaults={"rms_norm_eps": 1e-5},
        fixed={**UNCAPPED, "windows": None, "mlp_bias": False},
        pre_norm=False,
        post_norm=True,
        qk_norm=True,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        defaults={"num_key_value_heads": 32},
        fixed={**UNCAPPED, "attention_bias": True, "mlp_bias": False},
        output_bias=False,
    ),
}
"""Families by the `model_type` of `config.json`."""

FIELDS = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "mlp_width": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "max_length": "max_position_embeddings",
    "norm_epsilon": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
    "query_scale": "query_pre_attn_scalar",
    "attention_cap": "attn_logit_softcapping",
    "logit_cap": "final_logit_softcapping",
}
"""Fields of `LlmConfig` that `config.json` has under another name."""

REPLACED = ("rope_parameters", "rope_scaling", "rope_theta", "layer_types", "dtype", "torch_dtype")
"""Fields of the source's `config.json` that are not copied."""

UNSUPPORTED = {"partial_rotary_factor": 1.0, "use_bidirectional_attention": False}
"""Fields that must have these values, as the other values are not implemented."""


@dataclass(frozen=True)
class LoraConfig:
    """Size and place of LoRA adapters."""

    rank: int = 8
    """Rank of the adapters."""
    alpha: float = 32.0
    """α: the product of the factors is multiplied by α/rank."""
    dropout: float = 0.0
    """Dropout rate of the adapters' inputs in training."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the projections with an adapter, in every block."""
    rank_stabilized: bool = False
    """Multiply by α/√rank instead (rsLoRA, arXiv 2312.03732)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the adapters."""


@dataclass(frozen=True)
class LlmConfig:
    """Size and kind of a language model. The default is small, with about a million parameters.

    ValueError: unknown architecture, or values that it cannot have.
    """

    family: Literal["llama", "gemma2", "olmo2", "qwen2"] = "llama"
    """Architecture, the `model_type` of Hugging Face."""
    vocabulary: int = 512
    """Number of tokens of the vocabulary."""
    width: int = 128
    """Width of the residual stream."""
    mlp_width: int = 384
    """Hidden width of the feed-forward layers."""
    n_layers: int = 4
    """Transformer blocks."""
    n_heads: int = 4
    """Attention heads."""
    n_kv_heads: int = 4
    """Heads of keys and values, each shared by as many query heads."""
    head_size: int = 32
    """Width of a head."""
    max_length: int = 2048
    """Number of tokens of the longest text."""
    windows: tuple[int, ...] | None = None
    """Attention window of every layer: number of tokens, including the current one (0: all). Not
    given: no limits."""
    activation: Activation = "silu"
    """Activation function of the feed-forward layers."""
    norm_epsilon: float = 1e-6
    """ε of the RMS norms: added to mean squares before the root."""
    tied: bool = True
    """The last layer is the embedding's transpose."""
    attention_bias: bool = False
    """Queries, keys and values have a bias, and in most families the attention's output."""
    mlp_bias: bool = False
    """Feed-forward layers have a bias."""
    query_scale: float | None = None
    """Attention scores are divided by the root of this number. Not given: of `head_size`."""
    attention_cap: float | None = None
    """Attention scores s become c tanh(s / c)."""
    logit_cap: float | None = None
    """The logits of tokens become c tanh(s / c)."""
    rope_theta: float = 10000.0
    """Base of the rotary angles."""
    rope_scaling: RopeScaling | None = None
    """Scaling of the rotary angles, if any."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"no architecture {self.family!r}: known are {', '.join(FAMILIES)}")
        for name, value in self.traits.fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"{self.family} models have {name} = {value}: set it so")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"{self.n_heads} attention heads cannot share {self.n_kv_heads} heads of keys and "
                "values evenly: make the one a multiple of the other"
            )
        if self.windows is not None and len(self.windows) != self.n_layers:
            raise ValueError(f"{len(self.windows)} windows for {self.n_layers} layers")

    @property
    def traits(self) -> Family:
        """Settings that the architecture prescribes."""
        return FAMILIES[self.family]

    def window(self, layer: int) -> int:
        """Number of tokens that a layer sees, itself included; 0 for all."""
        return 0 if self.windows is None else self.windows[layer]

    @classmethod
    def from_hf(cls, fields: Mapping[str, Any]) -> LlmConfig:
        """The configuration that a `config.json` describes, written by transformers 4 or 5.

        ValueError for an unknown architecture, an unsupported setting, or a missing size.
        """
        kind = fields.get("model_type")
        if kind not in FAMILIES:
            raise ValueError(
                f"model_type {kind!r} in config.json: the architectures known are "
                f"{', '.join(FAMILIES)}"
            )
        family = FAMILIES[kind]
        given = {**DEFAULTS, **family.defaults, **fields}
        for name, value in UNSUPPORTED.items():
            if given.get(name) not in (None, value):
                raise ValueError(f"{name} = {given[name]!r} in config.json is not supported")
        missing = [name for name in FIELDS.values() if name not in given]
        if missing:
            raise ValueError(f"config.json has no {', '.join(missing)}: get a complete one")
        values = {ours: given[name] for ours, name in FIELDS.items()}
        values["n_kv_heads"] = values["n_kv_heads"] or values["n_heads"]
        values["head_size"] = values["head_size"] or values["width"] // values["n_heads"]
        values["windows"] = _windows(kind, given)
        values["activation"] = given[family.activation_field] or given["hidden_act"]
        if values["activation"] not in get_args(Activation):
            raise ValueError(
                f"activation {values['activation']!r} in config.json: those known are "
                f"{', '.join(get_args(Activation))}"
            )
        values["rope_theta"], values["rope_scaling"] = _rope(given)
        return cls(family=kind, **{**values, **family.fixed})

    def to_hf(self, other: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Fields of a `config.json` that transformers 4 and 5 read.

        Fields of `other`, the source's `config.json`, that do not describe the network are copied.
        """
        family = self.traits
        kept = {name: x for name, x in (other or {}).items() if name not in REPLACED}
        fields = {
            "architectures": [family.architecture],
            "model_type": self.family,
            **{
                name: getattr(self, ours)
                for ours, name in FIELDS.items()
                if ours not in family.fixed
            },
            family.activation_field: self.activation,
            "rope_theta": self.rope_theta,
        }
        if self.rope_scaling is not None:
            fields["rope_scaling"] = {"rope_type": "llama3", **asdict(self.rope_scaling)}
        return {**kept, **fields, **self._sliding_fields()}

    def _sliding_fields(self) -> dict[str, Any]:
        if "windows" in self.traits.fixed:
            return {}
        windows = self.windows or (0,) * self.n_layers
        sizes = set(windows) - {0}
        if len(sizes) > 1:
            raise ValueError(f"windows of {sorted(sizes)} tokens: Hugging Face has one for all")
        fields = {
            "layer_types": ["sliding_attention" if n else "full_attention" for n in windows],
            "sliding_window": sizes.pop() if sizes else None,
        }
        if self.family == "qwen2":
            fields["use_sliding_window"] = self.windows is not None
        return fields


def _windows(family: str, given: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The window of every layer, 0 for none."""
    n_layers, size = given["num_hidden_layers"], given["sliding_window"]
    if not size or (family == "qwen2" and not given["use_sliding_window"]):
        return None
    if given.get("layer_types") is not None:
        slides = [kind == "sliding_attention" for kind in given["layer_types"]]
    elif family == "gemma2":
        slides = [i % 2 == 0 for i in range(n_layers)]
    else:
        slides = [i >= given["max_window_layers"] for i in range(n_layers)]
    return tuple(size if x else 0 for x in slides) if any(slides) else None


def _rope(given: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary angles, from the fields of transformers 4 or 5."""
    new = given.get("rope_parameters") or {}
    scaling = new or given.get("rope_scaling") or {}
    theta = new.get("rope_theta") or given["rope_theta"]
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ValueError(f"rope_type {kind!r} in config.json: those known are default and llama3")
    length = "original_max_position_embeddings"
    return theta, RopeScaling(
        scaling["factor"],
        scaling["low_freq_factor"],
        scaling["high_freq_factor"],
        scaling.get(length) or given.get(length) or given["max_position_embeddings"],
    )
