"""Pretraining for a given time, with the model written to one small file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np

from accelerator_sections.crystals import Split
from accelerator_sections.run import Budget, Found, Measurement, Run
from accelerator_sections.sizes import Size
from crystaljax.checkpoints import Metadata
from crystaljax.parallel import make_mesh, replicated
from crystaljax.policies.wyckoff import Params, WyckoffPolicy
from crystaljax.training.batches import Batches
from crystaljax.training.optimizer import OptimizerConfig, TrainState
from crystaljax.training.pretrain import PretrainConfig, make_update

USED = 0.8
"""Share of the time that is planned for, so that the learning rate has decayed before the end."""

AFTERWARDS_S = 30.0
"""Seconds reserved for validation and writing the model; and as many for compiling before."""

CHANGED = 0.05
"""Largest increase of the NLL, in nats per crystal, by rounding the weights to 16 bits."""


def pretraining(
    run: Run, budget: Budget, size: Size, split: Split, to: Path
) -> Iterator[Measurement]:
    """Train the published size on a data set, for as many epochs as fit into the time."""
    if run.step_seconds is None:
        raise FileNotFoundError("the speed is not known: the section training has to come before")
    n = len(split.train)
    yield f"pretraining on {n} crystals", partial(_train, run, budget, size, split, to)


def _train(run: Run, budget: Budget, size: Size, split: Split, to: Path) -> dict[str, Found]:
    assert run.step_seconds is not None
    counts = np.bincount(split.train.space_group, minlength=231)[1:]
    policy = WyckoffPolicy(size.models["published"], counts)
    batch = min(size.batches[0], len(split.train))
    reserved = min(AFTERWARDS_S, budget.left / 4)
    steps_per_epoch = len(split.train) // batch
    affordable = int(USED * (budget.left - 2 * reserved) / run.step_seconds)
    planned = max(min(affordable, size.epochs * steps_per_epoch), 1)
    optimizing = OptimizerConfig(warmup_steps=min(200, planned // 10))
    settings = PretrainConfig(batch_size=batch, optimizer=optimizing)
    optimizer = settings.optimizer.build(planned)
    mesh = make_mesh()
    batches = Batches(split.train, policy.codec, batch, 0, mesh)
    update = make_update(policy, optimizer, settings)
    state = jax.device_put(TrainState.create(policy.init(0), optimizer), replicated(mesh))
    for step, packed in batches.stream(0, planned):
        state, metrics = update(state, packed)
        loss, done = float(metrics["nll"]), step + 1
        if budget.left < reserved:
            break
    write_model(to, policy, state.averaged)
    nll = _scorer(policy, split, batch)
    value, again = nll(state.averaged), nll(read_model(to)[1])
    epochs = done / steps_per_epoch
    note = f"of validation, after {done} of {planned} steps, {epochs:.1f} epochs; loss {loss:.2f}"
    details = {"steps": done, "planned": planned, "epochs": epochs}
    trained = Found(value, "nats/crystal", note, None, None, details)
    note = f"weights in float16; read again, they have an NLL of {again:.4f}"
    kept = Found(to.stat().st_size / 1e6, "MB", note, agrees=abs(again - value) < CHANGED)
    return {f"NLL, {len(split.train)} crystals trained on": trained, to.name: kept}


def _scorer(policy: WyckoffPolicy, split: Split, batch: int) -> Callable[[Params], float]:
    """Mean −ln p of the validation crystals under some weights, compiled once."""
    tokens = policy.codec.encode(split.validation)
    return lambda params: -float(np.mean(policy.log_prob_parts(params, tokens, batch).total))


def write_model(path: Path, policy: WyckoffPolicy, params: Params) -> None:
    """One file of weights in float16, half as large as the folder of a released model."""
    leaves = {f"w{i}": np.asarray(x, np.float16) for i, x in enumerate(jax.tree.leaves(params))}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, metadata=policy.metadata.to_json(), **leaves)


def read_model(path: Path) -> tuple[WyckoffPolicy, Params]:
    """Read the output of `write_model`. FileNotFoundError; ValueError for another file."""
    with np.load(path, allow_pickle=False) as file:
        metadata = Metadata.from_json(str(file["metadata"]), path)
        policy = WyckoffPolicy(metadata.model, np.array(metadata.space_group_counts))
        shapes, structure = jax.tree.flatten(policy.param_shapes)
        leaves = [file[f"w{i}"].astype(shape.dtype) for i, shape in enumerate(shapes)]
    return policy, jax.tree.unflatten(structure, leaves)


def unpack(path: Path, folder: Path) -> None:
    """The folder of a released model, which `load_policy` reads, from one file."""
    policy, params = read_model(path)
    policy.save(folder, params)
