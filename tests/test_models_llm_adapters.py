"""Adapters against PEFT: its logits and gradients from its files, and ours in PEFT."""

import copy
import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from llm_reference import FAMILIES, checkpoint, from_folder, reference, torch
from safetensors.numpy import load_file, save_file

from crystaljax.models.llm.adapters import CONFIG, WEIGHTS, load_adapter, save_adapter
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.folder import load_model
from crystaljax.models.llm.linear import AdapterParam
from crystaljax.models.llm.lora import (
    LoraConfig,
    adapters,
    add_lora,
    count_parameters,
    merge_lora,
    projections,
)
from crystaljax.models.llm.quantization import quantize
from crystaljax.models.llm.vocabulary import resize_vocabulary

peft = pytest.importorskip("peft")

TOKENS = np.random.default_rng(0).integers(3, 97, (2, 20))
OPTIONS: dict[str, dict[str, Any]] = {
    "llama": {"target_modules": ["q_proj", "v_proj"]},
    "gemma2": {
        "target_modules": ["k_proj", "o_proj", "down_proj"],
        "rank_pattern": {"k_proj": 2, "layers.1.mlp.down_proj": 5},
        "alpha_pattern": {"layers.1.self_attn.o_proj": 7},
    },
    "olmo2": {"target_modules": r".*\.(q_proj|gate_proj|up_proj)", "use_rslora": True},
    "qwen2-window": {"target_modules": ["v_proj", "down_proj"], "layers_to_transform": [1]},
}


def theirs(case: str) -> Any:
    """A PEFT model with random factors."""
    config = peft.LoraConfig(r=3, lora_alpha=5, task_type="CAUSAL_LM", **OPTIONS[case])
    model = peft.get_peft_model(copy.deepcopy(reference(case)), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(0.2 * torch.randn_like(weight))
    return model.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory):  # type: ignore[no-untyped-def]
    """The folder of a case's model."""
    folders: dict[str, Path] = {}

    def get(case: str) -> Path:
        if case not in folders:
            folders[case] = checkpoint(case, tmp_path_factory.mktemp(case))
        return folders[case]

    return get


@pytest.fixture
def saved(tmp_path: Path, base: Any) -> tuple[LanguageModel, Path]:
    """Our model and PEFT's folder for it."""
    theirs("llama").save_pretrained(tmp_path / "adapter")
    return load_model(base("llama")), tmp_path / "adapter"


def hidden(model: LanguageModel) -> jax.Array:
    position = jnp.broadcast_to(jnp.arange(TOKENS.shape[1]), TOKENS.shape)
    return model.hidden(jnp.asarray(TOKENS), position, jnp.ones_like(position))


@jax.jit
def logits(model: LanguageModel) -> jax.Array:
    return model.logits(hidden(model))


def torch_logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.numpy()


@partial(jax.jit, static_argnums=0)
@partial(jax.grad, argnums=1)
def gradient(graph: Any, factors: Any, rest: Any) -> Any:
    model = nnx.merge(graph, factors, rest)
    logp = jax.nn.log_softmax(model.logits(hidden(model))[:, :-1])
    return -jnp.take_along_axis(logp, jnp.asarray(TOKENS)[:, 1:, None], axis=-1).mean()


@pytest.mark.parametrize("case", FAMILIES)
def test_peft_and_we_agree(case: str, base: Any, tmp_path: Path) -> None:
    peft_model, model = theirs(case), load_model(base(case))
    expected, plain = torch_logits(peft_model), torch_logits(reference(case))
    assert np.abs(expected - plain).max() > 0.1
    peft_model.save_pretrained(tmp_path / "theirs")
    load_adapter(model, tmp_path / "theirs")
    np.testing.assert_allclose(logits(model), expected, atol=1e-4)
    trainable, total = peft_model.get_nb_trainable_parameters()
    assert count_parameters(model) == (trainable, total)

    # Gradients of the same loss.
    tokens = torch.tensor(TOKENS)
    for name, weight in peft_model.named_parameters():
        weight.requires_grad_("lora_" in name)
    peft_model(tokens, labels=tokens).loss.backward()
    slopes = {name: w.grad.numpy() for name, w in peft_model.named_parameters() if w.requires_grad}
    graph, factors, rest = nnx.split(model, AdapterParam, ...)
    ours = nnx.to_flat_state(gradient(graph, factors, rest))
    assert len(ours) == len(slopes)
    for (_, layer, part, name, _, factor), value in ours:
        part = "self_attn" if part == "attention" else part  # noqa: PLW2901
        key = f"base_model.model.model.layers.{layer}.{part}.{name}.lora_{factor.upper()}"
        np.testing.assert_allclose(value[...].T, slopes[f"{key}.default.weight"], atol=1e-5)

    # Our files in PEFT, read back bit for bit.
    save_adapter(model, tmp_path / "ours", base="someone/model")
    again = peft.PeftModel.from_pretrained(from_folder(base(case)), tmp_path / "ours").eval()
    np.testing.assert_allclose(torch_logits(again), expected, atol=1e-4)
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("ours", "theirs"))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    other = load_model(base(case))
    load_adapter(other, tmp_path / "ours")
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), nnx.state(other))
    assert nnx.graphdef(model) == nnx.graphdef(other)

    merge_lora(model)
    np.testing.assert_allclose(logits(model), expected, atol=1e-4)


ROWS: dict[str, Any] = {
    "llama": {"embed_tokens": [5, 3, 9], "lm_head": [3, 7]},
    "gemma2": [3, 5],
    "qwen2": {"embed_tokens": [3, 5], "lm_head": [3, 5]},
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_of_tokens_are_those_of_peft(case: str, base: Any, tmp_path: Path) -> None:
    """Logits and gradients of `trainable_token_indices`; its files and ours, both ways."""
    config = peft.LoraConfig(
        r=3, task_type="CAUSAL_LM", target_modules=["q_proj"], trainable_token_indices=ROWS[case]
    )
    peft_model = peft.get_peft_model(copy.deepcopy(reference(case)), config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in peft_model.parameters():
            if weight.requires_grad:
                weight.copy_(0.3 * torch.randn_like(weight))
    expected = torch_logits(peft_model)
    peft_model.save_pretrained(tmp_path / "theirs")
    model = load_model(base(case))
    load_adapter(model, tmp_path / "theirs")
    np.testing.assert_allclose(logits(model), expected, atol=1e-4)
    assert count_parameters(model) == peft_model.get_nb_trainable_parameters()

    tokens = torch.tensor(TOKENS)
    peft_model(tokens, labels=tokens).loss.backward()
    slopes = {
        next(table for table in ("embed", "head") if table in name): weight.grad.numpy()
        for name, weight in peft_model.named_parameters()
        if "trainable_tokens_delta" in name and weight.requires_grad
    }
    graph, factors, rest = nnx.split(model, AdapterParam, ...)
    found = gradient(graph, factors, rest)
    assert np.abs(slopes["embed"]).max() > 1e-4
    np.testing.assert_allclose(found["embed_rows"]["rows"][...], slopes["embed"], atol=1e-5)
    if model.head is not None:
        np.testing.assert_allclose(found["head_rows"]["rows"][...], slopes["head"], atol=1e-5)

    save_adapter(model, tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(from_folder(base(case)), tmp_path / "ours").eval()
    np.testing.assert_allclose(torch_logits(again), expected, atol=1e-4)
    other = load_model(base(case))
    load_adapter(other, tmp_path / "ours")
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), nnx.state(other))

    merge_lora(model)
    assert model.embed_rows is None
    np.testing.assert_allclose(logits(model), expected, atol=1e-4)


@pytest.mark.parametrize("case", ["llama", "qwen2"])
def test_a_vocabulary_that_was_resized_for_peft(case: str, base: Any, tmp_path: Path) -> None:
    """PEFT then keeps all embeddings, here of one row more than the trained ones."""
    grown = from_folder(base(case))
    grown.resize_token_embeddings(100)
    config = peft.LoraConfig(
        r=3, task_type="CAUSAL_LM", target_modules=["q_proj"], trainable_token_indices=[97, 98]
    )
    peft_model = peft.get_peft_model(grown, config).eval()
    with torch.no_grad():
        for weight in peft_model.parameters():
            if weight.requires_grad:
                weight.copy_(0.3 * torch.randn_like(weight))
    peft_model.save_pretrained(tmp_path / "adapter")
    model = load_model(base(case))
    load_adapter(model, tmp_path / "adapter")
    assert model.config.vocabulary == 100
    expected = torch_logits(peft_model)
    np.testing.assert_allclose(logits(model), expected, atol=1e-4)

    save_adapter(model, tmp_path / "ours")
    other = load_model(base(case))
    load_adapter(other, tmp_path / "ours")
    np.testing.assert_array_equal(logits(other), logits(model))
    fresh = from_folder(base(case))
    fresh.resize_token_embeddings(100)
    again = peft.PeftModel.from_pretrained(fresh, tmp_path / "ours").eval()
    np.testing.assert_allclose(torch_logits(again), expected, atol=1e-4)


@pytest.mark.parametrize("case", ["llama", "qwen2"])
def test_peft_loads_tokens_that_were_added_here(case: str, base: Any, tmp_path: Path) -> None:
    model = load_model(base(case))
    resize_vocabulary(model, 99)
    add_lora(model, LoraConfig(rank=2), nnx.Rngs(0), tokens=[97, 98])
    graph, factors, rest = nnx.split(model, AdapterParam, ...)
    key = jax.random.key(0)
    factors = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), factors)
    model = nnx.merge(graph, factors, rest)
    save_adapter(model, tmp_path)
    theirs = from_folder(base(case))
    theirs.resize_token_embeddings(99)
    again = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    np.testing.assert_allclose(logits(model), torch_logits(again), atol=1e-4)


@pytest.mark.parametrize(
    ("case", "rows", "message"),
    [
        ("llama", [3, 97], "token 97 cannot be trained: the model has the tokens 0 to 96"),
        ("llama", [3, 3], "more than once"),
        ("llama", {"norm": [3]}, "trainable_token_indices of 'norm'"),
        ("qwen2", {"lm_head": [3]}, "they are one table"),
        ("qwen2", {"embed_tokens": [3], "lm_head": [4]}, "they are one table"),
        ("llama", [3, 4], r"1 arrays are missing \(.*embed_tokens.token_adapter"),
    ],
)
def test_rows_that_cannot_be_read(
    case: str, rows: Any, message: str, base: Any, tmp_path: Path
) -> None:
    model = load_model(base(case))
    add_lora(model, LoraConfig(rank=2), nnx.Rngs(0))
    save_adapter(model, tmp_path)
    edit(tmp_path, trainable_token_indices=rows)
    other = load_model(base(case))
    with pytest.raises(ValueError, match=message):
        load_adapter(other, tmp_path)
    assert not adapters(other)


def test_an_adapter_goes_on_a_quantised_base(saved: tuple[LanguageModel, Path]) -> None:
    model, folder = saved
    load_adapter(model, folder)
    quantize(model, "int8")
    expected = logits(model)
    remove(model)
    load_adapter(model, folder)
    np.testing.assert_array_equal(logits(model), expected)


def remove(model: LanguageModel) -> None:
    for layer in projections(model).values():
        layer.lora = None


def test_bfloat16_files(saved: tuple[LanguageModel, Path]) -> None:
    model, folder = saved
    arrays = {k: x.astype(jnp.bfloat16) for k, x in load_file(folder / WEIGHTS).items()}
    save_file(arrays, folder / WEIGHTS)
    load_adapter(model, folder)
    lora = adapters(model)["blocks", 1, "attention", "q_proj"]
    assert lora.a.dtype == jnp.float32
    key = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    np.testing.assert_array_equal(lora.a[...].T, arrays[key].astype(np.float32))


def test_another_base_by_name_is_a_warning(
    saved: tuple[LanguageModel, Path], caplog: pytest.LogCaptureFixture
) -> None:
    model, folder = saved
    edit(folder, base_model_name_or_path="meta-llama/Llama-3.1-8B")
    load_adapter(model, folder, base="models/Llama-3.1-8B")
    assert not caplog.records
    remove(model)
    with caplog.at_level(logging.WARNING):
        load_adapter(model, folder, base="Qwen/Qwen2.5-7B")
    assert "trained on meta-llama/Llama-3.1-8B, and the model is Qwen/Qwen2.5-7B" in caplog.text


def edit(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"exclude_modules": ["q_proj"]}, "exclude_modules"),
        ({"something_new": {"a": 1}}, "something_new"),
        ({"peft_type": "IA3"}, "peft_type is not LORA"),
        ({"target_modules": ["q_proj", "lm_head"]}, r"\['lm_head'\] are not among .*down_proj"),
        ({"target_modules": ".*nothing"}, "select no projection"),
        ({"target_modules": ["q_proj"]}, r"4 are not of this model .*v_proj\.lora_A"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, r"4 arrays are missing .*o_proj"),
        ({"r": 4}, r"lora_A.weight has the shape \(3, 32\) where \(4, 32\) is expected"),
    ],
)
def test_settings_that_cannot_be_followed(
    saved: tuple[LanguageModel, Path], fields: dict[str, Any], message: str
) -> None:
    model, folder = saved
    edit(folder, **fields)
    with pytest.raises(ValueError, match=message):
        load_adapter(model, folder)
    assert not adapters(model)


def test_a_wrong_prefix_is_an_error(saved: tuple[LanguageModel, Path]) -> None:
    model, folder = saved
    arrays = load_file(folder / WEIGHTS)
    save_file({k.removeprefix("base_model.model."): x for k, x in arrays.items()}, folder / WEIGHTS)
    with pytest.raises(
        ValueError, match=r"8 arrays are missing \(base_model\.model\.model\.layers"
    ):
        load_adapter(model, folder)


def test_an_adapter_of_another_base_is_an_error(saved: tuple[LanguageModel, Path]) -> None:
    model, folder = saved
    longer = LanguageModel(replace(model.config, n_layers=3), nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"another base: 4 arrays are missing \(.*layers\.2"):
        load_adapter(longer, folder)
    shorter = LanguageModel(replace(model.config, n_layers=1), nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"another base: 4 are not of this model \(.*layers\.1"):
        load_adapter(shorter, folder)
    wider = LanguageModel(replace(model.config, width=40), nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"another base: .*shape \(3, 32\) where \(3, 40\)"):
        load_adapter(wider, folder)


def test_missing_and_broken_files(saved: tuple[LanguageModel, Path]) -> None:
    model, folder = saved
    (folder / CONFIG).write_text("{")
    with pytest.raises(ValueError, match="no JSON file"):
        load_adapter(model, folder)
    (folder / WEIGHTS).write_text("nonsense")
    edit_config = {"peft_type": "LORA", "r": 3, "lora_alpha": 5, "target_modules": ["q_proj"]}
    (folder / CONFIG).write_text(json.dumps(edit_config))
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors cannot be read"):
        load_adapter(model, folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"has no adapter_model\.safetensors"):
        load_adapter(model, folder)


def test_nothing_to_save_and_nothing_to_add(saved: tuple[LanguageModel, Path]) -> None:
    model, folder = saved
    with pytest.raises(ValueError, match="no adapters to save"):
        save_adapter(model, folder)
    add_lora(model, LoraConfig(), nnx.Rngs(0))
    with pytest.raises(ValueError, match="has adapters already"):
        load_adapter(model, folder)
