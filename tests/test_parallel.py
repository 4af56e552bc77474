"""A language model on a mesh of 8 virtual devices is the one on a single device."""

import os
import subprocess
import sys
from pathlib import Path

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


REINFORCE = """
import sys
sys.path.insert(0, "tests")
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from small_policy import tiny_policy, triples
from crystaljax.parallel import MeshConfig, make_mesh, parameter_placement, parts_sharding
from crystaljax.text.packing import pack_micro_batches, plan_completions
from crystaljax.training.optimizer import fine_tuning
from crystaljax.training.reinforce import ReinforceConfig, ReinforceState, make_update

texts = triples(16)
config = ReinforceConfig(
    algorithm="grpo", batch_size=16, group_size=4, inner_steps=1, n_minibatches=2, tau=0.001,
    optimizer=fine_tuning(1e-2),
)
reward = jnp.asarray(np.random.default_rng(0).normal(size=16), jnp.float32)
found = {}
for fsdp in (1, 4):
    policy = tiny_policy(mesh=make_mesh(MeshConfig(fsdp=fsdp)))
    place = parameter_placement(policy.mesh)

    def check(tree, where):
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            same = x.sharding.is_equivalent_to(place(x.shape), x.ndim)
            assert same, (where, jax.tree_util.keystr(path), x.sharding)

    optimizer = config.optimizer.build(2)
    state = ReinforceState.create(policy.start, optimizer)
    # Nothing whole is made on the way: not even the moments before they are placed.
    check([x for x in jax.tree.leaves(state) if x.ndim > 1], "new")
    state = policy.place(state)
    base = policy.place(policy.start)
    # The reference is the policy's own start: no copy beside the float32 one that is trained.
    own = zip(jax.tree.leaves(base), jax.tree.leaves(policy.start), strict=True)
    for a, b in own:
        pointers = [[s.data.unsafe_buffer_pointer() for s in x.addressable_shards] for x in (a, b)]
        assert pointers[0] == pointers[1]
    update = make_update(partial(policy.log_probs, n_samples=4), optimizer, config)
    plan = plan_completions(4, 64, 4, policy.config.width, policy.mesh.size)
    four = [texts[i : i + 4] for i in range(0, 16, 4)]
    packed = pack_micro_batches(four, plan)
    parts = jax.device_put(packed, parts_sharding(policy.mesh))
    state, metrics = update(state, base, policy.frozen, parts, reward)
    check([x for x in jax.tree.leaves(state) if x.ndim > 1], "updated")
    if fsdp > 1:
        shared = [x for x in jax.tree.leaves(state.train.opt_state) if x.ndim > 1]
        assert all(x.addressable_shards[0].data.size == x.size // 4 for x in shared), "moments"
    found[fsdp] = jax.device_get(state.train.params)
    assert np.isfinite(float(metrics["loss"]))
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), found[1], found[4])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "script"), [(8, SCRIPT), (4, REINFORCE)], ids=["gradient", "reinforce"]
)
def test_many_devices_equal_one(devices: int, script: str) -> None:
    """Also in training by reward: parameters and the optimiser's state are shared out."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_devices_that_cannot_be_shared_out() -> None:
    with pytest.raises(ValueError, match="data -1 x fsdp 3 for 1 devices"):
        make_mesh(MeshConfig(fsdp=3))
