"""What every training by reward starts from: samples of the policy, judged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.evaluation.matching import StructureSet, novel_mask, unique_mask
from crystaljax.evaluation.validity import structure_valid
from crystaljax.policies import Params, WyckoffPolicy
from crystaljax.rewards.base import Reasons, Reward, RewardBatch
from crystaljax.sampling import SamplingConfig
from crystaljax.tokenizations.packing import RowPlan, plan_rows
from crystaljax.training.batches import N_PLANNED

SPARE = 1.2
"""Crystals that rows are planned for, over those of a batch: compiling again takes a minute."""


@dataclass(frozen=True)
class RewardBounds:
    """How rewards are made fit to be trained on."""

    invalid: float = -1.0
    """Reward of samples that cannot be judged: sequences that are no crystal, atoms too close."""
    low: float = -1.0
    """Rewards below are raised to it, so that single bad samples do not rule the gradient."""
    high: float = 0.5
    """Rewards above are lowered to it: a potential errs most where it promises most."""
    scale: Literal["linear", "log"] = "linear"
    """log: −log10(1 + high − reward), for rewards over decades, whose worst would rule others."""

    def __call__(self, judged: RewardBatch) -> np.ndarray:
        """Rewards to train on, float64 [B]."""
        value = np.where(judged.ok, judged.value, self.invalid)
        value = np.clip(value, self.low, self.high)
        return value if self.scale == "linear" else -np.log10(1 + self.high - value)


def rows_for(
    policy: WyckoffPolicy,
    params: Params,
    batch_size: int,
    sampling: SamplingConfig,
    repeat: int = 1,
) -> RowPlan:
    """Rows that batches of the policy's samples fit, told from one batch of them.

    There is room to spare for the larger crystals that training may move the policy to. Samples
    of one space group, `repeat` in a row, are alike in size: batches of them differ the more.
    """
    tokens = policy.sample(params, batch_size, 0, sampling).tokens
    rng = np.random.default_rng(0)
    drawn = round(SPARE * -(-batch_size // repeat))
    likely = [
        np.repeat(rng.choice(np.asarray(tokens.n_sites), drawn), repeat) for _ in range(N_PLANNED)
    ]
    return plan_rows(likely, policy.config.max_sites)


def judge(reward: Reward, crystals: Crystals, ok: np.ndarray) -> RewardBatch:
    """Rewards [B] of those samples that are crystals; the others are not ok."""
    rows = np.flatnonzero(ok)
    reasons: Reasons = ["no crystal"] * len(ok)
    if not len(rows):
        return RewardBatch.from_values(np.full(len(ok), np.nan), None, reasons)
    return reward(crystals[rows]).spread(rows, reasons)


def reward_metrics(judged: RewardBatch, value: np.ndarray) -> dict[str, float]:
    """Mean and quantiles of rewards as trained, share judged, medians (or shares) of infos."""
    low, median, high = np.quantile(value, [0.1, 0.5, 0.9])
    numbers = {
        "reward/mean": value.mean(),
        "reward/q10": low,
        "reward/median": median,
        "reward/q90": high,
        "reward/judged": judged.ok.mean(),
    }
    for name, column in judged.info.items():
        if column.dtype == bool:
            numbers[f"reward/{name}"] = column.mean()
        elif judged.ok.any():
            numbers[f"reward/median_{name}"] = np.median(column[judged.ok])
    return {name: float(x) for name, x in numbers.items()}


def sample_metrics(
    crystals: Crystals, ok: np.ndarray, reference: StructureSet | None
) -> dict[str, float]:
    """Shares of all samples of the rollout that are decoded, valid, unique and novel."""
    structures = StructureSet.from_crystals(crystals, "rollout")
    shares = {
        "decoded": ok,
        "valid": structure_valid(crystals) & ok,
        "unique": unique_mask(structures) & ok,
    }
    if reference is not None:
        shares["novel"] = novel_mask(structures, reference) & ok
    return {f"samples/{name}": float(mask.mean()) for name, mask in shares.items()}


class Clock:
    """Seconds spent in each phase of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[f"seconds/{phase}"] = time.perf_counter() - start
