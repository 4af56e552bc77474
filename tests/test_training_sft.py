"""Supervised fine-tuning: PyTorch's loss and gradients, devices change nothing, runs resume."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from llm_adapters import by_key, random_adapter, slopes_by_key
from llm_reference import torch
from resuming import killed_and_resumed
from small_policy import TINY, tiny_policy, triples
from small_text import words

from crystaljax.checkpoints import About, RunCheckpoints
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.lora import LoraConfig
from crystaljax.policies.text import TextPolicy
from crystaljax.text.batches import TextBatches
from crystaljax.text.packing import TokenSequence
from crystaljax.training.fit import best_weights
from crystaljax.training.optimizer import OptimizerConfig, TrainState
from crystaljax.training.sft import SftConfig, make_score, make_update, sft

QUICK = SftConfig(
    n_epochs=2,
    batch_size=8,
    n_parts=2,
    log_every=1,
    save_every=2,
    validate_every=100,
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0, ema_decay=0.0),
)


def random_sequences(n: int) -> list[TokenSequence]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 30, n)
    return [
        TokenSequence(rng.integers(3, 97, length), int(rng.integers(1, length)))
        for length in lengths
    ]


@pytest.mark.parametrize("n_parts", [1, 4])
def test_loss_and_gradients_are_those_of_transformers(n_parts: int, tmp_path: Path) -> None:
    """The mean over all completion tokens, of adapters, packed and in micro-batches."""
    theirs, model = random_adapter("llama", tmp_path)
    texts = random_sequences(8)
    longest = max(len(tokens) for tokens, _ in texts)
    padded, labels = np.zeros((2, 8, longest), int)
    labels -= 100
    for i, (tokens, n_prompt) in enumerate(texts):
        padded[i, : len(tokens)] = tokens
        labels[i, n_prompt : len(tokens)] = tokens[n_prompt:]
    loss = theirs(torch.tensor(padded), labels=torch.tensor(labels)).loss
    loss.backward()

    policy = TextPolicy(model, words())
    config = dataclasses.replace(QUICK, batch_size=8, n_parts=n_parts)
    optimizer = optax.sgd(1.0)
    update = make_update(policy, optimizer, config)
    batches = TextBatches([[text] for text in texts], 8, 0, TINY.width, n_parts)
    start = jax.tree.map(np.asarray, policy.start)
    state = TrainState.create(jax.tree.map(jax.numpy.copy, policy.start), optimizer)
    state, metrics = update(state, policy.frozen, batches.packed(0))
    assert float(metrics["nll"]) == pytest.approx(float(loss), rel=1e-5)
    gradient = jax.tree.map(lambda a, b: a - np.asarray(b), start, state.params)
    expected = slopes_by_key(theirs)
    assert len(expected) == len(jax.tree.leaves(gradient))
    for key, value in by_key(gradient).items():
        np.testing.assert_allclose(value, expected[key], atol=2e-5)
    score = make_score(policy, texts, 3)(policy.start)
    assert score["nll"] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.slow
def test_bfloat16_weights_move_as_float32_ones_do() -> None:
    """100 steps of 1e-5, which are lost beside weights in bfloat16; in micro-batches."""
    config = dataclasses.replace(
        QUICK,
        n_parts=4,
        optimizer=OptimizerConfig(
            learning_rate=1e-5, schedule="constant", warmup_steps=0, ema_decay=0.0
        ),
    )
    optimizer = config.optimizer.build(100)
    texts = TextBatches([[text] for text in triples()], 8, 0, TINY.width, 4)
    rounded = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16), nnx.state(LanguageModel(TINY, nnx.Rngs(0)))
    )
    start, moved, kept = {}, {}, {}
    for dtype in ("float32", "bfloat16"):
        model = LanguageModel(TINY, nnx.Rngs(0), dtype)
        nnx.update(model, jax.tree.map(lambda x: x.astype(dtype), rounded))  # noqa: B023
        policy = TextPolicy(model, words())
        update = make_update(policy, optimizer, config)
        state = policy.place(TrainState.create(policy.start, optimizer, averaged=False))
        start[dtype] = flat(state.params)
        for step in range(100):
            state, _ = update(state, policy.frozen, texts.packed(step))
        assert {x.dtype for x in jax.tree.leaves(state)} == {
            jnp.dtype("int32"),
            jnp.dtype("float32"),
        }
        moved[dtype] = flat(state.params) - start[dtype]
        kept[dtype] = flat(jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params))
        own = {x.dtype for x in jax.tree.leaves(policy.in_own_types(state.params))}
        assert own == {jnp.dtype(dtype)}
    np.testing.assert_array_equal(start["float32"], start["bfloat16"])
    ours, expected = moved["bfloat16"], moved["float32"]
    cosine = ours @ expected / np.linalg.norm(ours) / np.linalg.norm(expected)
    assert cosine > 0.98
    assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(expected), rel=0.03)
    # What is exported has moved as often as float32 weights, rounded, have.
    changed = {name: (x != start[name]).mean() for name, x in kept.items()}
    assert changed["bfloat16"] == pytest.approx(changed["float32"], abs=0.02)
    assert changed["bfloat16"] > 0.5


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


def test_an_update_takes_the_memory_of_its_state_and_what_is_saved_stays(tmp_path: Path) -> None:
    policy, optimizer = tiny_policy(), QUICK.optimizer.build(10)
    update = make_update(policy, optimizer, QUICK)
    batches = TextBatches([[text] for text in triples()], 8, 0, TINY.width, 2)
    state = policy.place(TrainState.create(policy.start, optimizer, averaged=False))
    before = jax.tree.map(lambda x: np.array(x, copy=True), state)
    with RunCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, About({}))
        after, _ = update(state, policy.frozen, batches.packed(0))
        after, _ = update(after, policy.frozen, batches.packed(1))
        assert all(x.is_deleted() for x in jax.tree.leaves(state.params))
        assert all(x.is_deleted() for x in jax.tree.leaves(state.opt_state))
        assert not any(x.is_deleted() for x in jax.tree.leaves(policy.start))
    with RunCheckpoints(tmp_path) as checkpoints:
        saved, _ = checkpoints.restore(after, About({}))
    jax.tree.map(np.testing.assert_array_equal, saved, before)


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    """One text, learnt by heart: the validation loss is lowest at some step before the last."""
    policy, losses = tiny_policy(), {}

    def track(metrics: dict[str, Any], step: int) -> None:
        if "validation/nll" in metrics:
            losses[step] = metrics["validation/nll"]

    fast = dataclasses.replace(QUICK.optimizer, learning_rate=0.05, schedule="constant")
    config = dataclasses.replace(QUICK, n_epochs=3, validate_every=1, optimizer=fast)
    last = sft(policy, triples(1) * 32, triples(8), config, tmp_path, track)
    best, step = best_weights(tmp_path, last.averaged, policy.identity)
    assert step == min(losses, key=losses.get)
    score = make_score(policy, triples(8), 4)
    assert score(best)["nll"] == pytest.approx(min(losses.values()), rel=1e-5)
    assert min(losses.values()) < losses[12]
    # A run that starts anew forgets it.
    shutil.rmtree(tmp_path / "checkpoints")
    brief = dataclasses.replace(config, n_epochs=1, validate_every=4)
    last = sft(policy, triples(), triples(8), brief, tmp_path, lambda *_: None)
    assert best_weights(tmp_path, last.averaged, policy.identity)[1] == 4


def test_it_learns(tmp_path: Path) -> None:
    policy = tiny_policy()
    lines: list[dict[str, Any]] = []
    config = dataclasses.replace(QUICK, n_epochs=10)
    texts = triples()
    sft(policy, texts, texts, config, tmp_path, lambda metrics, _: lines.append(metrics))
    assert lines[0]["train/nll"] > 3
    assert lines[-1]["validation/nll"] < 2


def test_dropout_is_of_training_alone() -> None:
    policy, texts = tiny_policy(), triples(8)
    params = jax.tree.map(lambda x: 8 * x, policy.start)
    batch = TextBatches([[text] for text in texts], 8, 0, TINY.width).packed(0)
    expected = make_score(policy, texts, 4)(params)["nll"]
    policy.dropout = 0.5
    assert make_score(policy, texts, 4)(params)["nll"] == expected
    optimizer = QUICK.optimizer.build(1)
    update = make_update(policy, optimizer, SftConfig(batch_size=8))
    state = TrainState.create(params, optimizer, averaged=False)
    _, metrics = update(state, policy.frozen, batch)
    assert abs(float(metrics["nll"]) - expected) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lora", "dropout"),
    [(None, 0.0), (None, 0.2), (LoraConfig(rank=2, dropout=0.2, targets=("q_proj",)), 0.0)],
)
def test_a_resumed_run_has_the_same_losses(
    tmp_path: Path, lora: LoraConfig | None, dropout: float
) -> None:
    def run(folder: Path, track: Any) -> None:
        def losses(metrics: dict[str, Any], step: int) -> None:
            track({k: v for k, v in metrics.items() if k.endswith("nll")}, step)

        two_epochs = [*triples(), *triples()[:16], *triples()[:16]]
        policy = tiny_policy(lora)
        policy.dropout = dropout
        sft(policy, two_epochs, triples(8), QUICK, folder, losses, n_drawn=2)

    whole, first, second = killed_and_resumed(run, tmp_path, stop_after=5)
    assert sorted(second) == [5, 6, 7, 8]  # step 5 was tracked but not saved
    assert first | second == whole


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    policy = tiny_policy()
    broken = jax.tree.map(lambda x: x * np.nan, policy.start)
    with pytest.raises(FloatingPointError, match=r"loss of step 0 is nan.*bad_batch\.npz"):
        sft(policy, triples(), triples(8), QUICK, tmp_path, lambda *_: None, start=broken)
    with np.load(tmp_path / "bad_batch.npz") as batch:
        assert batch["tokens_0"].shape[0] == QUICK.n_parts


@pytest.mark.slow
def test_a_run_of_another_model_is_not_resumed(tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, n_epochs=1)
    sft(tiny_policy(), triples(), triples(8), config, tmp_path, lambda *_: None)
    with pytest.raises(ValueError, match="trained: all parameters there, adapters here"):
        policy = tiny_policy(LoraConfig(rank=2))
        sft(policy, triples(), triples(8), config, tmp_path, lambda *_: None)


SCRIPT = """
import json, sys
from pathlib import Path
import jax
import numpy as np
sys.path.insert(0, sys.argv[3])
from small_policy import tiny_policy, triples
from test_training_sft import QUICK
from crystaljax.parallel import MeshConfig, make_mesh
from crystaljax.text.generation import GenerationConfig
from crystaljax.training.optimizer import TrainState
from crystaljax.training.sft import sft

policy = tiny_policy(mesh=make_mesh(MeshConfig(fsdp=int(sys.argv[2]))))
fresh = TrainState.create(policy.start, QUICK.optimizer.build(1))
moments = [x for x in jax.tree.leaves(fresh.opt_state) if x.ndim]
start = jax.tree.leaves(policy.start)
for x, like in zip([*jax.tree.leaves(fresh.params), *moments], 3 * start, strict=True):
    assert x.sharding == like.sharding
losses = []
def track(metrics, step):
    losses.append(metrics.get("train/nll", metrics.get("validation/nll")))
state = sft(policy, triples(), triples(8), QUICK, Path(sys.argv[1]), track)
prompts = [tokens[:n] for tokens, n in triples(16)]
drawn = policy.sample(state.params, prompts, 0, GenerationConfig(max_new_tokens=8, temperature=0))
print(json.dumps({"losses": losses, "tokens": drawn.tokens.tolist()}))
"""


@pytest.mark.slow
def test_eight_devices_have_the_losses_and_samples_of_one(tmp_path: Path) -> None:
    def run(name: str, devices: int, fsdp: int) -> dict[str, Any]:
        flags = f"--xla_force_host_platform_device_count={devices}"
        arguments = [sys.executable, "-c", SCRIPT, tmp_path / name, fsdp, Path(__file__).parent]
        done = subprocess.run(
            [str(x) for x in arguments],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout.decode().splitlines()[-1])

    one = run("one", 1, 1)
    for name, fsdp in {"copies": 1, "shared": 4}.items():
        eight = run(name, 8, fsdp)
        np.testing.assert_allclose(eight["losses"], one["losses"], rtol=1e-4)
        assert eight["tokens"] == one["tokens"]
    # A checkpoint of one mesh goes on in another.
    again = run("shared", 1, 1)
    assert again["tokens"] == one["tokens"]
