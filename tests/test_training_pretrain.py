"""Pretraining: batches, devices change nothing, killed runs go on the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from small import SMALL

from crystaljax.data.dataset import load
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.tokenizations.wyckoff import WyckoffTokenization
from crystaljax.tracking import read_metrics
from crystaljax.training.batches import Batches
from crystaljax.training.optimizer import TrainState
from crystaljax.training.pretrain import PretrainConfig, make_update, pretrain

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[3])
from small import SMALL
from crystaljax.data.dataset import load
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.tracking import Tracker
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.pretrain import PretrainConfig, pretrain
from crystaljax.checkpoints import RunCheckpoints

folder = Path(sys.argv[1])
crystals = load("prototypes").crystals
crystals = crystals[np.flatnonzero(crystals.n_sites <= 6)[:96]]
config = PretrainConfig(
    n_epochs=int(sys.argv[2]), batch_size=16, log_every=1, save_every=5, validate_every=1000,
    augment=True, optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=3),
)
with RunCheckpoints(folder / "checkpoints") as checkpoints:
    step = checkpoints.latest
with Tracker(folder, resume_step=step) as tracker:
    pretrain(WyckoffPolicy(SMALL, np.ones(230)), crystals, crystals, config, folder, tracker.log)
"""


def small_crystals():  # type: ignore[no-untyped-def]
    crystals = load("prototypes").crystals
    return crystals[np.flatnonzero(crystals.n_sites <= SMALL.max_sites)[:96]]


def start(folder: Path, epochs: int, devices: int = 1) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices}"
    arguments = [sys.executable, "-c", SCRIPT, folder, epochs, Path(__file__).parent]
    return subprocess.Popen(
        [str(x) for x in arguments],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def losses(folder: Path) -> dict[int, float]:
    return {int(step): x for step, x in read_metrics(folder)["train/nll"]}


def finish(process: subprocess.Popen) -> None:
    error = process.communicate()[1].decode()
    assert process.returncode == 0, error


def test_an_epoch_has_every_crystal_once() -> None:
    policy = WyckoffPolicy(SMALL, np.ones(230))
    batches = Batches(small_crystals(), policy.codec, 16, seed=3)
    lattices = np.concatenate([batches.tokens(step).lattice for step in range(6)])
    expected = policy.codec.encode(small_crystals()).lattice
    np.testing.assert_array_equal(np.unique(lattices, axis=0), np.unique(expected, axis=0))
    assert len(lattices) == 96
    jax.tree.map(np.testing.assert_array_equal, batches.packed(7), batches.packed(7))
    assert not np.array_equal(batches.tokens(0).lattice, batches.tokens(6).lattice)


def test_batches_larger_than_the_data() -> None:
    with pytest.raises(ValueError, match="lower the batch size"):
        Batches(small_crystals(), WyckoffPolicy(SMALL, np.ones(230)).codec, 97, seed=0)


def test_plans_waste_little() -> None:
    crystals = load("prototypes").crystals
    batches = Batches(crystals, WyckoffTokenization(), 100, seed=0)
    computed = sum(rows.n_rows * rows.sites for rows in batches.plan)
    assert 100 * crystals.n_sites.mean() / computed > 0.75
    assert all(
        len(block.crystal) == rows.n_rows
        for step in (0, 19, 20, 47)
        for block, rows in zip(batches.packed(step), batches.plan, strict=True)
    )


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    crystals = small_crystals()
    crystals.lattice[:] = np.nan
    config = PretrainConfig(n_epochs=1, batch_size=16)
    policy = WyckoffPolicy(SMALL, np.ones(230))
    with pytest.raises(FloatingPointError, match=r"bad_batch\.npz"):
        pretrain(policy, crystals, crystals, config, tmp_path, lambda metrics, step: None)
    with np.load(tmp_path / "bad_batch.npz") as batch:
        assert np.isnan(batch["lattice"]).all()


@pytest.mark.parametrize("dropout", [True, False])
def test_fine_tuning_draws_no_dropout(dropout: bool) -> None:
    policy = WyckoffPolicy(SMALL, np.ones(230))
    config = PretrainConfig(batch_size=16, dropout=dropout)
    batch = Batches(small_crystals(), policy.codec, 16, seed=0).packed(0)
    optimizer = config.optimizer.build(10)
    state = jax.eval_shape(lambda: TrainState.create(policy.init(0), optimizer))
    step = jax.make_jaxpr(make_update(policy, optimizer, config))(state, batch)
    assert ("random_bits" in str(step)) == dropout


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_losses(tmp_path: Path) -> None:
    finish(start(tmp_path / "whole", 4))
    process = start(tmp_path / "killed", 4)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and len(metrics.read_text().splitlines()) >= 8:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(start(tmp_path / "killed", 4))
    whole, killed = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert list(whole) == list(range(1, 25))
    assert killed == whole
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert len(set(steps)) >= 24


@pytest.mark.slow
def test_eight_devices_have_the_losses_of_one(tmp_path: Path) -> None:
    finish(start(tmp_path / "one", 2))
    finish(start(tmp_path / "eight", 2, devices=8))
    one, eight = losses(tmp_path / "one"), losses(tmp_path / "eight")
    assert len(one) == 12
    first, second = list(one.values())[:6], list(one.values())[6:]  # the same crystals
    assert np.mean(second) < np.mean(first)
    for step, loss in one.items():
        assert eight[step] == pytest.approx(loss, rel=1e-4)
