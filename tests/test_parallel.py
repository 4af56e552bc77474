"""A language model on a mesh of 8 virtual devices is the one on a single device."""

import os
import subprocess
import sys

import pytest

from crystaljax.parallel import MeshConfig, make_mesh

SCRIPT = """
import tempfile
from functools import partial
from types import SimpleNamespace
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.folder import export_model, load_model
from crystaljax.models.llm.likelihood import token_log_probs
from crystaljax.parallel import MeshConfig, batch_sharding, make_mesh, parameter_placement

assert jax.device_count() == 8
mesh = make_mesh(MeshConfig(fsdp=4))
assert dict(mesh.shape) == {"data": 2, "fsdp": 4}
place = parameter_placement(mesh)
spec = jax.sharding.PartitionSpec
assert place((16, 32)).spec == spec(None, "fsdp") and place((16, 30)).spec == spec("fsdp", None)
assert place((32,)).spec == spec(None) and place((3, 5)).spec == spec(None, None)

config = LlmConfig(
    family="gemma2", n_layers=2, vocabulary=66, width=32, mlp_width=48, n_heads=4, n_kv_heads=2,
    head_size=8, windows=(5, 0), attention_cap=5.0, logit_cap=4.0, attention_bias=True, tied=False,
)
rows, length = 16, 24
rng = np.random.default_rng(0)
batch = {
    "tokens": rng.integers(0, 66, (rows, length)),
    "position": np.tile(np.arange(length) % 12, (rows, 1)),
    "segment": np.tile(1 + np.arange(length) // 12, (rows, 1)),
    "trained": np.tile(np.arange(length) % 12 > 0, (rows, 1)),
}

@partial(jax.jit, static_argnums=0)
@partial(jax.grad, argnums=1, has_aux=True)
def gradient(graph, params, batch):
    logp = token_log_probs(nnx.merge(graph, params), SimpleNamespace(**batch), chunk=10)
    return logp.sum(), logp

with tempfile.TemporaryDirectory() as folder, jax.default_matmul_precision("highest"):
    model = LanguageModel(config, nnx.Rngs(0))
    export_model(model, folder)
    graph, params = nnx.split(model)
    expected_grad, expected = gradient(graph, params, batch)
    graph, params = nnx.split(load_model(folder, placement=place))
    kernel = params.blocks[0].mlp.up_proj.kernel.get_value()
    assert kernel.addressable_shards[0].data.shape == (32, 12)
    for path, leaf in nnx.to_flat_state(params):
        assert leaf.get_value().sharding.is_equivalent_to(place(leaf.shape), leaf.ndim), path
    batch = jax.device_put(batch, batch_sharding(mesh))
    assert batch["tokens"].addressable_shards[0].data.shape == (2, length)
    grad, logp = gradient(graph, params, batch)
    np.testing.assert_allclose(logp, expected, atol=1e-5)
    scale = 1e-5 * max(np.abs(x).max() for x in jax.tree.leaves(expected_grad))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=scale), grad, expected_grad)
    jax.tree.map(lambda a: np.testing.assert_(np.abs(a).max() > 0), expected_grad)
    with tempfile.TemporaryDirectory() as again:
        export_model(nnx.merge(graph, params), again)
        read = load_model(again)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(read), nnx.state(model))
"""


@pytest.mark.slow
def test_eight_devices_equal_one() -> None:
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_devices_that_cannot_be_shared_out() -> None:
    with pytest.raises(ValueError, match="data -1 x fsdp 3 for 1 devices"):
        make_mesh(MeshConfig(fsdp=3))
