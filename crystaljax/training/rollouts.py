"""Rollouts of training by reward: samples of the policy, judged."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.errors import UserError
from crystaljax.evaluation.matching import StructureSet, clusters, novel_mask, once
from crystaljax.rewards.base import Reasons, RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.rewards.compose import Guarded
from crystaljax.rewards.inputs import Items, take
from crystaljax.validity import structure_valid

log = logging.getLogger(__name__)

MOSTLY = 0.5
"""Share of clipped rewards above which a warning is given."""

MAX_UNJUDGED = 5
"""Number of rollouts in a row without any judged sample that end a run."""


def judge(reward: Any, items: Items, ok: np.ndarray, why: Reasons | None = None) -> RewardBatch:
    """Rewards [B] of the items that are `ok`; the others are not ok, with the reasons `why` [B].

    Without reasons they are no crystals. An item for which the reward raises is not ok either; see
    `Guarded`.
    """
    rows = np.flatnonzero(ok)
    reasons: Reasons = [reason or "no crystal" for reason in why or [None] * len(ok)]
    if not len(rows):
        return RewardBatch.from_values(np.full(len(ok), np.nan), None, reasons)
    return Guarded(reward)(take(items, rows)).spread(rows, reasons)


def prepare(
    judged: RewardBatch, bounds: RewardBounds, share: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, float]]:
    """Rewards to train on, float64 [B], and metrics.

    `share` [B]: what guards leave of the rewards, see `RewardBounds`. The metrics are mean and
    quantiles of the rewards as trained, the shares of all samples that were not ok or clipped, and
    medians (or shares) of infos.
    """
    value, clipped = bounds(judged, share), bounds.clips(judged)
    low, median, high = np.quantile(value, [0.1, 0.5, 0.9])
    numbers = {
        "reward/mean": value.mean(),
        "reward/q10": low,
        "reward/median": median,
        "reward/q90": high,
        "reward/not_ok": 1 - judged.ok.mean(),
        "reward/clipped": clipped.mean(),
    }
    for name, column in judged.info.items():
        if column.dtype == bool:
            numbers[f"reward/{name}"] = column.mean()
        elif judged.ok.any() and column.dtype.kind in "iuf":
            numbers[f"reward/median_{name}"] = np.median(column[judged.ok])
    return value, {name: float(x) for name, x in numbers.items()}


class FlatRewards:
    """Warn of rollouts whose rewards hardly distinguish samples: mostly clipped, or all equal.

    Of each kind, the first rollout of a run gets a warning.
    """

    def __init__(self) -> None:
        self._said = set[str]()

    def __call__(self, judged: RewardBatch, value: np.ndarray, bounds: RewardBounds) -> None:
        """`value` float64 [B]: the rewards as trained."""
        n, n_judged, n_clipped = len(judged), int(judged.ok.sum()), int(bounds.clips(judged).sum())
        kind, message = "", ""
        if n_clipped > MOSTLY * n_judged:
            low, high = bounds.limits
            kind, message = (
                "clipped",
                (
                    f"{n_clipped} of {n} rewards ({100 * n_clipped / n_judged:.0f} % of those"
                    f" judged) lie outside [{low:g}, {high:g}] and are clipped: their differences"
                    " are lost. If this goes on (reward/clipped of the metrics), give other bounds"
                ),
            )
        elif n_judged > 1 and np.ptp(value[judged.ok]) == 0:
            kind, message = (
                "equal",
                (
                    f"all {n_judged} rewards of {n} samples are {value[judged.ok][0]:g}: there is"
                    " nothing to learn but to be judged"
                ),
            )
        if message and kind not in self._said:
            log.warning(message)
            self._said.add(kind)


class NothingJudged(UserError):
    """No sample of a rollout, or of several in a row, could be judged."""


class Unjudged:
    """Count the rollouts of a run without any judged sample, and end the run after too many.

    Raises NothingJudged at the first rollout of all, since then the reward or the samples are
    broken, and at the `MAX_UNJUDGED`th in a row later on.

    Args:
      done: number of rollouts in the run that this one continues.
    """

    def __init__(self, done: int = 0) -> None:
        self._in_a_row = 0
        self._any_judged = done > 0

    def __call__(self, judged: RewardBatch) -> bool:
        """Whether no sample of a rollout was judged."""
        if judged.ok.any():
            self._in_a_row, self._any_judged = 0, True
            return False
        self._in_a_row += 1
        reasons = "; ".join(f"{n} × {reason}" for reason, n in judged.failures().items())
        problem = f"none of {len(judged)} samples could be judged ({_shortened(reasons)})"
        if not self._any_judged or self._in_a_row >= MAX_UNJUDGED:
            when = f", {self._in_a_row} rollouts in a row" if self._any_judged else ""
            raise NothingJudged(
                f"{problem}{when}: there is nothing to learn from; --check tries a reward on a few"
                " crystals"
            )
        log.warning("%s: this rollout is skipped", problem)
        return True


def _shortened(text: str, length: int = 1000) -> str:
    return text if len(text) <= length else f"{text[:length]} ..."


def compared(
    crystals: Crystals, ok: np.ndarray, reference: StructureSet | None
) -> dict[str, np.ndarray]:
    """Columns [B]: which samples are decoded, valid, unique and novel, and clusters of matching
    ones.

    `cluster` int as of `matching.clusters`, the others bool; `novel` only with a reference set.
    """
    structures = StructureSet.from_crystals(crystals, "rollout")
    cluster = np.where(ok, clusters(structures), -1)
    columns = {
        "decoded": ok,
        "valid": structure_valid(crystals) & ok,
        "unique": once(ok, cluster),
        "cluster": cluster,
    }
    if reference is not None:
        columns["novel"] = novel_mask(structures, reference) & ok
    return columns


def sample_metrics(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Shares of all samples of the rollout, of the columns of `compared` that are masks."""
    masks = {name: column for name, column in columns.items() if column.dtype == bool}
    return {f"samples/{name}": float(mask.mean()) for name, mask in masks.items()}


class Clock:
    """Time in seconds of each phase of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[f"seconds/{phase}"] = time.perf_counter() - start
