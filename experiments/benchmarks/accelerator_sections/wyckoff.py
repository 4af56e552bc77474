"""Training and sampling with the Wyckoff transformer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import jax
import numpy as np

from accelerator_sections.checks import CHECKPOINT, DType
from accelerator_sections.run import Budget, Found, Measurement, Run, timed
from accelerator_sections.sizes import Size
from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.models.wyckoff.transformer import ModelConfig
from crystaljax.parallel import make_mesh, replicated
from crystaljax.policies.base import Params, Rollout, SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy, load_wyckoff
from crystaljax.roofline import Work, count
from crystaljax.tokenizations.packing import RowPlan, Rows, pack
from crystaljax.tokenizations.wyckoff import TOKENS_PER_SITE
from crystaljax.training.batches import Batches, place
from crystaljax.training.optimizer import TrainState
from crystaljax.training.pretrain import PretrainConfig, make_update

HOST_LIMITS = 1.3
"""Ratio of a loop's time to that of its steps on the device above which the host limits it."""


def training(run: Run, budget: Budget, size: Size, crystals: Crystals) -> Iterator[Measurement]:
    """Steps of pretraining, as in `crystaljax.training.fit`."""
    *others, largest = size.models
    first, *more = size.batches
    cases: list[tuple[str, int, DType]] = [(largest, first, "float32")]
    cases += [(largest, n, "float32") for n in more]
    cases += [(largest, size.batches[-1], "bfloat16")]
    cases += [(name, first, "float32") for name in others]
    for name, batch, dtype in cases:
        config = dataclasses.replace(size.models[name], dtype=dtype)
        keeps = name == largest and batch == first
        work = partial(_training, run, budget, config, crystals, batch, keeps)
        yield f"training, {name}, {batch} crystals, {dtype}", work


def _training(
    run: Run, budget: Budget, config: ModelConfig, crystals: Crystals, batch: int, keeps: bool
) -> Found:
    crystals = crystals[np.resize(np.arange(len(crystals)), max(len(crystals), batch))]
    policy = WyckoffPolicy(config, np.bincount(crystals.space_group, minlength=231)[1:])
    batches = Batches(crystals, policy.codec, batch, seed=0)
    settings = PretrainConfig(batch_size=batch)
    optimizer = settings.optimizer.build(10_000)
    update = make_update(policy, optimizer, settings)
    mesh = make_mesh()
    state = jax.device_put(TrainState.create(policy.init(0), optimizer), replicated(mesh))
    packed = place(batches.packed(0), mesh)
    work = count(update, state, packed)

    def step() -> None:
        nonlocal state
        state, metrics = update(state, packed)
        float(metrics["nll"])

    on_device = timed(step, budget)
    stream = batches.stream(1, 10_000)

    def streamed() -> None:
        nonlocal state
        _, waiting = next(stream)
        state, metrics = update(state, waiting)
        float(metrics["nll"])

    whole = timed(streamed, budget)
    if keeps and config.dtype == "float32":
        run.step_seconds = whole.median
    note, details = run.limit(work, on_device.median)
    if whole.median > HOST_LIMITS * on_device.median:
        ratio = whole.median / on_device.median
        note = f"the loop takes {ratio:.1f} times the device's step: packing on the host; {note}"
    tokens = _computed_tokens(batches.plan)
    details |= {
        "step_s": whole.median,
        "device_step_s": on_device.median,
        "tokens_per_s": tokens / whole.median,
        "gflop_per_step": work.total_flops / 1e9,
    }
    return Found(batch / whole.median, "crystals/s", note, on_device.first, None, details)


def _computed_tokens(plan: RowPlan) -> int:
    """Number of tokens of a step, empty slots included."""
    return sum(rows.n_rows * (TOKENS_PER_SITE * rows.sites + rows.crystals) for rows in plan)


def sampling(run: Run, budget: Budget, size: Size) -> Iterator[Measurement]:
    """Batches of samples, from random weights of several sizes and from the shipped model."""
    counts = np.ones(230, int)
    cases = {
        f"{name}, random weights": partial(_random, config, counts)
        for name, config in reversed(list(size.models.items()))
    }
    cases["the model that ships"] = partial(load_wyckoff, CHECKPOINT)
    for name, make in cases.items():
        yield (
            f"sampling, {name}, {size.sampled} at a time",
            partial(_sampling, run, budget, size, make),
        )


def _random(config: ModelConfig, counts: np.ndarray) -> tuple[WyckoffPolicy, Params]:
    policy = WyckoffPolicy(config, counts)
    return policy, policy.init(0)


def _sampling(run: Run, budget: Budget, size: Size, make: partial) -> Found:
    policy, params = make()
    config = SamplingConfig(batch_size=size.sampled)
    rollouts: list[Rollout] = []

    def sample() -> None:
        rollouts.append(policy.sample(params, [Condition()] * size.sampled, 1, config))

    timing = timed(sample, budget, at_least=2)
    tokens = rollouts[-1].sequences.tokens
    n_sites = np.asarray(tokens.n_sites)
    work, n_calls = _sampling_work(policy, params, rollouts[-1])
    note, details = run.limit(work, timing.median)
    per_call = timing.median / n_calls
    note += f"; {n_calls} calls of compiled functions, {per_call * 1e6:.0f} µs each"
    details |= {"mean_sites": float(n_sites.mean()), "calls": n_calls}
    return Found(size.sampled / timing.median, "crystals/s", note, timing.first, None, details)


def _sampling_work(policy: WyckoffPolicy, params: Params, rollout: Rollout) -> tuple[Work, int]:
    """Work of sampling: products for each token once, weights read at every position; calls.

    Operations are those of the likelihood of the samples, packed without padding.
    """
    n_sites = np.asarray(rollout.sequences.tokens.n_sites)
    places = TOKENS_PER_SITE * int(n_sites.max()) + 1
    sites = policy.config.max_sites
    n_rows = -(-int(n_sites.sum()) // sites)
    packed = pack(rollout.sequences.tokens, (Rows(n_rows, sites, sites),))
    by_row = count(
        lambda params, packed: policy.packed_log_prob(params, packed, len(rollout)).total,
        params,
        packed,
    )
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    return Work(by_row.flops, float(weights * places)), places * (policy.config.n_layers + 2)
