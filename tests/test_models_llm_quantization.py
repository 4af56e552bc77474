"""Quantised models: how far off they are, how they are loaded, and on many devices."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from crystaljax.models.llm import folder as folders
from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.folder import export_model, load_model
from crystaljax.models.llm.linear import QuantizedKernel, QuantizedParam
from crystaljax.models.llm.lora import projections
from crystaljax.models.llm.quantization import dequantize, quantize

CONFIG = LlmConfig(
    vocabulary=61,
    width=128,
    mlp_width=192,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_size=32,
    tied=False,
)
TOKENS = np.random.default_rng(0).integers(0, 61, (2, 16))


def small(config: LlmConfig = CONFIG) -> LanguageModel:
    """A model whose layers matter as those of trained models do: 1/√n_in, not 0.02."""
    model = LanguageModel(config, nnx.Rngs(0))
    for layer in [*projections(model).values(), model.head]:
        layer.kernel[...] *= layer.kernel.shape[0] ** -0.5 / 0.02
    return model


@jax.jit
def logits(model: LanguageModel) -> jax.Array:
    position = jnp.broadcast_to(jnp.arange(16), TOKENS.shape)
    return model.logits(model.hidden(jnp.asarray(TOKENS), position, jnp.ones_like(position)))


def test_error_of_the_logits() -> None:
    expected = logits(small())
    errors = {}
    for form, tile in (("int8", 0), ("int8", 32), ("nf4", 0)):
        model = small()
        quantize(model, form, tile)
        errors[form, tile] = float(
            jnp.linalg.norm(logits(model) - expected) / jnp.linalg.norm(expected)
        )
    # Rounding to 255 steps or 16 levels of normal numbers costs 0.7 % or 9 % of a product; each
    # of the layers adds some of its own.
    assert 0 < errors["int8", 32] < errors["int8", 0] < 0.03, errors
    assert errors["int8", 0] < errors["nf4", 0] < 0.4, errors


def test_only_the_projections_are_quantised() -> None:
    model = small()
    quantize(model, "nf4")
    plain = nnx.to_flat_state(nnx.state(model, nnx.Param))
    assert not [path for path, _ in plain if "attention" in path or "mlp" in path]
    assert len(jax.tree.leaves(nnx.state(model, QuantizedParam))) == 2 * 7 * 2
    assert isinstance(model.head.kernel, nnx.Param)
    with pytest.raises(ValueError, match=r"blocks\.0\.attention\.\w+ is quantised already, as nf4"):
        quantize(model, "int8")
    expected = logits(model)
    dequantize(model)
    assert nnx.graphdef(model) == nnx.graphdef(small())
    np.testing.assert_allclose(logits(model), expected, atol=1e-5)


def test_a_tile_that_does_not_fit_leaves_the_model_alone() -> None:
    model = small()
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.down_proj: .* the 192"):
        quantize(model, "int8", 128)
    assert nnx.graphdef(model) == nnx.graphdef(small())


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_loading_quantises_one_tensor_at_a_time(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(small(), tmp_path)
    expected = load_model(tmp_path)
    quantize(expected, form, 32)
    expected_state, expected_graph = nnx.to_pure_dict(nnx.state(expected)), nnx.graphdef(expected)

    before = {id(x) for x in jax.live_arrays()}
    most = 0
    read = folders._read

    def watched(*arguments: Any) -> jax.Array:
        nonlocal most
        value = read(*arguments)
        kernels = {(128, 128), (128, 64), (128, 192), (192, 128)}
        alive = [x for x in jax.live_arrays() if id(x) not in before and x.dtype == jnp.float32]
        most = max(most, sum(x.shape in kernels for x in alive))
        return value

    monkeypatch.setattr(folders, "_read", watched)
    model = load_model(tmp_path, quantized=form, tile=32)
    assert most <= 2  # the one just read, and the one before it until its name is taken
    assert nnx.graphdef(model) == expected_graph
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model)), expected_state)
    with pytest.raises(ValueError, match=r"a tile of 48 rows does not divide the 128"):
        load_model(tmp_path, quantized=form, tile=48)


def test_a_quantised_model_is_not_exported(tmp_path: Path) -> None:
    model = small()
    quantize(model, "int8")
    with pytest.raises(ValueError, match="dequantise before exporting"):
        export_model(model, tmp_path)


SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from flax import nnx
from types import SimpleNamespace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from dataclasses import replace
from test_models_llm_quantization import CONFIG, small
from crystaljax.models.llm.folder import export_model, load_model
from crystaljax.models.llm.likelihood import token_log_probs
from crystaljax.models.llm.linear import AdapterParam
from crystaljax.models.llm.lora import LoraConfig, add_lora
from crystaljax.parallel import MeshConfig, batch_sharding, make_mesh, parameter_placement

export_model(small(replace(CONFIG, n_layers=1)), Path(sys.argv[1]))
rng = np.random.default_rng(1)
tokens = rng.integers(0, 61, (8, 16))

def losses(placement, spread, form, tile):
    model = load_model(sys.argv[1], placement=placement, quantized=form, tile=tile)
    add_lora(model, LoraConfig(rank=4, targets=("q_proj", "down_proj")), nnx.Rngs(0))
    graph, factors, rest = nnx.split(model, AdapterParam, ...)
    if placement:
        factors = jax.tree.map(lambda x: jax.device_put(x, placement(x.shape)), factors)
        split = [x for x in jax.tree.leaves(rest) if not x.sharding.is_fully_replicated]
        assert any(x.dtype == {"int8": jnp.int8, "nf4": jnp.uint8}[form] for x in split)
    optimizer = optax.adam(0.01)  # at 0.05, rounding errors grow tenfold within these steps

    @jax.jit
    def step(factors, state, rest, tokens):
        def loss(factors):
            position = jnp.broadcast_to(jnp.arange(16), tokens.shape)
            rows = SimpleNamespace(tokens=tokens, position=position, trained=position > 0,
                                   segment=jnp.ones_like(position))
            logp = token_log_probs(nnx.merge(graph, factors, rest), rows, remat="all")
            return -logp.sum() / (position > 0).sum()
        value, slope = jax.value_and_grad(loss)(factors)
        updates, state = optimizer.update(slope, state, factors)
        return optax.apply_updates(factors, updates), state, value

    state, values = optimizer.init(factors), []
    for _ in range(8):
        factors, state, value = step(factors, state, rest, spread(tokens))
        values.append(float(value))
    return values

mesh = make_mesh(MeshConfig(data=2, fsdp=2))
form, tile = sys.argv[3], int(sys.argv[4])
one = losses(None, jnp.asarray, form, tile)
many = losses(parameter_placement(mesh), lambda x: jax.device_put(x, batch_sharding(mesh)),
              form, tile)
print("LOSSES", one[0], one[-1], np.abs(np.subtract(one, many)).max())
"""


@pytest.mark.parametrize(
    ("form", "tile"),
    [("int8", 0), ("int8", 32), ("nf4", 64)],
)
@pytest.mark.slow
def test_losses_on_a_mesh_are_those_of_one_device(form: str, tile: int, tmp_path: Path) -> None:
    flags = "--xla_force_host_platform_device_count=4"
    arguments = [tmp_path / "model", Path(__file__).parent, form, tile]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, last, difference = map(float, done.stdout.split("LOSSES")[1].split())
    assert last < first - 0.1  # it learns
    assert difference < 1e-5


def test_kernels_know_their_shape_when_abstract() -> None:
    model = folders.abstract_model(CONFIG, jnp.bfloat16, "nf4", 32)
    kernel = model.blocks[0].mlp.down_proj.kernel
    assert isinstance(kernel, QuantizedKernel)
    assert kernel.shape == (192, 128)
    assert kernel.codes.shape == (96, 128)
    assert kernel.scale.shape == (6, 128)
