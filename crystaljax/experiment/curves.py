"""Curves of training runs, for reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystaljax import plots
from crystaljax.evaluation.report import Table
from crystaljax.numbers import number_format
from crystaljax.tracking import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rl_figures(folder: Path, quantity: str) -> dict[str, tuple[Figure, str]]:
    """Reward and divergence along the run whose metrics are in a folder, with captions.

    quantity: what the reward measures, for the axis.
    """
    metrics = read_metrics(folder)
    reward = {"mean": metrics["reward/mean"], "median": metrics["reward/median"]}
    kl = {"KL": metrics["rl/kl_base"]}
    return {
        "reward": (plots.training_curves(reward, quantity), "Reward during the training"),
        "kl": (
            plots.training_curves(kl, "KL from the base model (nats)"),
            "Divergence of the policy from the model it started from",
        ),
    }


def last_kl(folder: Path) -> float:
    """KL from the base model at the end of the run, nats."""
    return float(read_metrics(folder)["rl/kl_base"][-1, 1])


def first_and_last(caption: str, curves: Mapping[str, np.ndarray]) -> Table:
    """The ends of curves [n, 2] of (step, value) by label."""
    ends = {label: curve[[0, -1], 1] for label, curve in curves.items()}
    shown = number_format(x for each in ends.values() for x in each)
    rows = [[label, *(f"{x:{shown}}" for x in each)] for label, each in ends.items()]
    return Table(caption, [["", "first", "last"], *rows])
