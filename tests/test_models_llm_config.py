"""Configurations from and to `config.json`, as transformers 4 and 5 and the hub write it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_reference import CASES, SIZES, transformers

from crystaljax.models.llm.config import FAMILIES, LlmConfig, RopeScaling

# config.json of Llama-3.1-8B-Instruct, as on the hub
LLAMA_31 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 128256,
}


def test_a_configuration_of_the_hub() -> None:
    config = LlmConfig.from_hf(LLAMA_31)
    assert config == LlmConfig(
        family="llama",
        vocabulary=128256,
        width=4096,
        mlp_width=14336,
        n_layers=32,
        n_heads=32,
        n_kv_heads=8,
        head_size=128,
        max_length=131072,
        norm_epsilon=1e-5,
        tied=False,
        rope_theta=500000.0,
        rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192),
    )
    kept = config.to_hf(LLAMA_31)
    assert kept.pop("head_dim") == 128
    assert kept == {name: x for name, x in LLAMA_31.items() if name != "torch_dtype"}


def test_fields_left_out_have_the_values_of_transformers() -> None:
    """Gemma-2's on the hub says neither that the embedding is tied nor which layers slide."""
    for family in FAMILIES:
        sizes = {**SIZES, "hidden_size": 64, "num_attention_heads": 32}
        del sizes["num_key_value_heads"]
        config = transformers.AutoConfig.for_model(family, **sizes)
        short = {"model_type": family, **sizes}
        assert LlmConfig.from_hf(short) == LlmConfig.from_hf(config.to_dict())


@pytest.mark.parametrize("case", CASES)
def test_what_we_write_transformers_reads_alike(case: str) -> None:
    family = case.split("-", maxsplit=1)[0]
    theirs = transformers.AutoConfig.for_model(family, **{**SIZES, **CASES[case]})
    ours = LlmConfig.from_hf(theirs.to_dict())
    written_otherwise = "architectures", "dtype", "max_window_layers"  # layer_types says it
    for other in (None, theirs.to_dict()):
        fields = {**SIZES, **ours.to_hf(other)}
        again = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields).to_dict()
        for name, value in theirs.to_dict().items():
            if name not in written_otherwise:
                assert again[name] == value, name


def configs(family: str) -> st.SearchStrategy[LlmConfig]:
    def build(n_layers: int, groups: int, **values: Any) -> LlmConfig:
        windows = values["windows"][:n_layers] if any(values["windows"][:n_layers]) else None
        values = {**values, "windows": windows, **FAMILIES[family].fixed}
        values = {**values, "n_layers": n_layers, "n_heads": 2 * groups, "n_kv_heads": 2}
        return LlmConfig(family=family, **values)  # type: ignore[arg-type]

    cap = st.none() | st.floats(1, 50)
    scaling = st.builds(
        RopeScaling, st.floats(1.5, 9), st.floats(1, 2), st.floats(3, 5), st.integers(10, 99)
    )
    return st.builds(
        build,
        st.integers(1, 5),
        st.integers(1, 3),
        windows=st.lists(st.sampled_from([0, 7]), min_size=5, max_size=5).map(tuple),
        tied=st.booleans(),
        attention_bias=st.booleans(),
        mlp_bias=st.booleans(),
        head_size=st.sampled_from([2, 32]),
        activation=st.sampled_from(["silu", "gelu"]),
        query_scale=cap,
        attention_cap=cap,
        logit_cap=cap,
        rope_theta=st.floats(100, 1e6),
        rope_scaling=st.none() | scaling,
    )


FAMILY = st.sampled_from(list(FAMILIES))


@given(FAMILY.flatmap(configs))
def test_there_and_back(config: LlmConfig) -> None:
    assert LlmConfig.from_hf(config.to_hf()) == config


@given(FAMILY.flatmap(lambda family: st.tuples(configs(family), configs(family))))
def test_nothing_of_the_network_is_kept(pair: tuple[LlmConfig, LlmConfig]) -> None:
    config, former = pair
    assert LlmConfig.from_hf(config.to_hf(former.to_hf())) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "mamba"}, "'mamba'.*llama, gemma2, olmo2, qwen2"),
        ({"model_type": None}, "None.*llama, gemma2"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn.*llama3"),
        ({"hidden_act": "relu"}, "relu.*silu"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"num_key_value_heads": 3}, "32 attention heads.*3"),
    ],
)
def test_what_cannot_be_built(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LlmConfig.from_hf({**LLAMA_31, **fields})


def test_configurations_that_contradict_themselves() -> None:
    with pytest.raises(ValueError, match="no hidden_size"):
        LlmConfig.from_hf({k: x for k, x in LLAMA_31.items() if k != "hidden_size"})
    with pytest.raises(ValueError, match="llama models have logit_cap = None"):
        LlmConfig(logit_cap=30.0)
    with pytest.raises(ValueError, match="2 windows for 4 layers"):
        LlmConfig(family="gemma2", windows=(4, 0))
    with pytest.raises(ValueError, match="one for all"):
        LlmConfig(family="gemma2", windows=(4, 0, 5, 0)).to_hf()
