"""Hugging Face folders: round trips, and folders that are not whole."""

import copy
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from llm_reference import (
    CASES,
    checkpoint,
    from_folder,
    logits,
    ours,
    random_tokens,
    reference,
    torch,
)
from safetensors.numpy import load_file, save_file

from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.folder import export_model, load_config, load_model


def equal(a: LanguageModel, b: LanguageModel) -> None:
    assert a.config == b.config
    assert a.dtype == b.dtype
    jax.tree.map(np.testing.assert_array_equal, nnx.state(a), nnx.state(b))


@pytest.mark.parametrize("case", CASES)
def test_transformers_loads_what_we_write_bit_for_bit(case: str, tmp_path: Path) -> None:
    export_model(ours(case), tmp_path)
    again, expected = from_folder(tmp_path).state_dict(), reference(case).state_dict()
    assert set(again) == set(expected)
    for name, value in expected.items():
        assert torch.equal(again[name], value), name


def test_bfloat16_in_shards(tmp_path: Path) -> None:
    half = copy.deepcopy(reference("gemma2")).to(torch.bfloat16)
    half.save_pretrained(tmp_path / "first", max_shard_size="5KB")
    (tmp_path / "first" / "tokenizer.json").write_text("{}")
    model = load_model(tmp_path / "first")
    assert model.dtype == jnp.bfloat16
    assert len(list((tmp_path / "first").glob("*.safetensors"))) > 3
    export_model(model, tmp_path / "second", source=tmp_path / "first", max_shard_bytes=5000)
    files = sorted((tmp_path / "second").glob("*.safetensors"))
    assert len(files) > 3
    assert all(
        len(tensors) == 1 or sum(x.nbytes for x in tensors.values()) <= 5000
        for tensors in map(load_file, files)
    )
    equal(model, load_model(tmp_path / "second"))
    assert (tmp_path / "second" / "tokenizer.json").is_file()
    first, second = (from_folder(tmp_path / x, dtype="auto") for x in ("first", "second"))
    assert second.dtype == torch.bfloat16
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    assert second.config.eos_token_id == 2


def test_new_models_export_and_load(tmp_path: Path) -> None:
    config = LlmConfig(family="qwen2", attention_bias=True, n_layers=1, tied=False)
    model = LanguageModel(config, nnx.Rngs(0), jnp.bfloat16)
    export_model(model, tmp_path)
    equal(model, load_model(tmp_path))
    assert from_folder(tmp_path).config.vocab_size == config.vocabulary
    with pytest.raises(FileExistsError, match="choose another"):
        export_model(model, tmp_path)


def test_loading_into_another_type(tmp_path: Path) -> None:
    model = load_model(checkpoint("llama", tmp_path), jnp.bfloat16)
    kinds = {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))}
    assert kinds == {jnp.dtype("bfloat16")}
    expected = reference("llama").model.layers[1].mlp.up_proj.weight.to(torch.bfloat16).T
    found = model.blocks[1].mlp.up_proj.kernel[...].astype(jnp.float32)
    np.testing.assert_array_equal(found, expected.float().detach().numpy())


def test_a_tied_head_may_stand_in_the_file(tmp_path: Path) -> None:
    tensors = load_file(checkpoint("qwen2", tmp_path) / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    equal(load_model(tmp_path), ours("qwen2"))


def test_a_head_beside_the_embedding_it_should_be_is_used_as_transformers_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = load_file(checkpoint("qwen2", tmp_path / "theirs") / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].copy()
    head[5:9] += 1.0
    tensors["lm_head.weight"] = head
    save_file(tensors, tmp_path / "theirs" / "model.safetensors", metadata={"format": "pt"})
    tokens = random_tokens(2, 12)
    with torch.no_grad():
        expected = from_folder(tmp_path / "theirs")(torch.tensor(tokens)).logits.numpy()
        tied = reference("qwen2")(torch.tensor(tokens)).logits.numpy()
    assert np.abs(expected - tied).max() > 0.1
    model = load_model(tmp_path / "theirs")
    np.testing.assert_allclose(logits(model, tokens), expected, atol=1e-4)
    assert "lm_head.weight is another matrix than model.embed_tokens.weight" in caplog.text
    export_model(model, tmp_path / "ours")
    caplog.clear()
    equal(load_model(tmp_path / "ours"), model)
    assert not caplog.records


def edit(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_folders_that_are_not_whole(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder.*hf download"):
        load_config(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_model(tmp_path)
    folder = checkpoint("qwen2", tmp_path / "qwen2", max_shard_size="5KB")
    shutil.copytree(folder, tmp_path / "shard")
    missing = sorted((tmp_path / "shard").glob("*.safetensors"))[1]
    missing.unlink()
    with pytest.raises(FileNotFoundError, match=f"shard lacks {missing.name}.*fetch it again"):
        load_model(tmp_path / "shard")
    broken = sorted(folder.glob("*.safetensors"))[2]
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{broken.name} cannot be read"):
        load_model(folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        load_model(folder)


def test_folders_that_contradict_their_configuration(tmp_path: Path) -> None:
    folder = checkpoint("llama", tmp_path)
    edit(folder, model_type="mamba")
    with pytest.raises(ValueError, match=f"{folder}.*'mamba'.*known are llama, gemma2"):
        load_model(folder)
    edit(folder, model_type="llama", intermediate_size=49)
    with pytest.raises(ValueError, match=r"down_proj\.weight is \[32, 48\].* it \[32, 49\]"):
        load_model(folder)
    edit(folder, intermediate_size=48, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"no tensor model\.layers\.2\."):
        load_model(folder)
    edit(folder, num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"9 tensors .* no place for, such as model\.layers\.1\."):
        load_model(folder)


def test_adapters_cannot_be_exported(tmp_path: Path) -> None:
    model = LanguageModel(LlmConfig(n_layers=1), nnx.Rngs(0))
    model.blocks[0].mlp.up_proj.lora_a = nnx.Param(jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"up_proj\.lora_a has no name.*merge"):
        export_model(model, tmp_path)
