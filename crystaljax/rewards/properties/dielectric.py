"""Dielectric constants by a Gaussian process on descriptors of the band-gap MEGNet.

The target is log(ε − 1), so that ε > 1 always; the features are MEGNet's descriptors of nodes,
edges and state, and the logarithm of the volume per atom.
"""

from __future__ import annotations

import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.rewards.properties.base import Predictions
from crystaljax.rewards.properties.gaussian_process import (
    GaussianProcess,
    Hyperparameters,
    fit,
    predict,
)
from crystaljax.rewards.properties.pretrained import Description, MEGNet, band_gap


class Dielectric:
    """Dielectric constants (means over directions) of crystals as they stand."""

    def __init__(self, process: GaussianProcess, megnet: MEGNet, caution: float = 0.0) -> None:
        """`process`: of log(ε − 1); `megnet`: the band-gap model that describes the crystals.

        `caution`: number of standard deviations that are subtracted from the process's mean, so
        that crystals unlike the training crystals get lower values.
        """
        self.process = process
        self.megnet = megnet
        self.caution = caution

    def predict(self, crystals: Crystals) -> Predictions:
        """Dielectric constants of B crystals, except those that the MEGNet cannot take."""
        described = self.megnet.describe(crystals)
        taken = np.array([reason is None for reason in described.reasons], bool)
        value = np.full(len(taken), np.nan)
        if taken.any():
            mean, deviation = predict(self.process, features(described)[taken])
            value[taken] = to_constant(mean - self.caution * deviation)
        return Predictions(value, described.reasons)


def features(described: Description) -> np.ndarray:
    """Features float64 [B, 161] of described crystals."""
    return np.column_stack([described.descriptor, np.log(described.volume)])


def to_constant(value: np.ndarray) -> np.ndarray:
    """Dielectric constants from the process's log(ε − 1)."""
    return 1 + np.exp(value)


def train(described: Description, constant: np.ndarray) -> GaussianProcess:
    """The process of dielectric constants [N] above 1; ValueError for others."""
    if not (constant > 1).all():
        raise ValueError("a dielectric constant in the training data is not above 1: remove it")
    x = features(described)
    group = np.r_[np.zeros(x.shape[1] - 1, int), 1]
    return fit(x, np.log(constant - 1), group)


def save(folder: Path, process: GaussianProcess) -> None:
    """Write `process.npz` into a folder, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {**process._asdict(), **process.hyperparameters._asdict()}
    del arrays["hyperparameters"]
    np.savez(folder / "process.npz", **arrays)


def dielectric(
    folder: str | PathLike, *, megnet: str | PathLike | None = None, caution: float = 0.0
) -> Dielectric:
    """A dielectric model from its folder, such as checkpoints/dielectric-mp.

    `megnet`: the folder of the band-gap MEGNet (default: downloaded on first use); `caution`: see
    `Dielectric`. FileNotFoundError, ValueError for files of another kind; `band_gap`'s errors.
    """
    return Dielectric(load(folder), band_gap(megnet), caution)


def load(folder: str | PathLike) -> GaussianProcess:
    """The process that `save` wrote; errors as in `dielectric`."""
    folder = Path(folder)
    if not (folder / "process.npz").is_file():
        raise FileNotFoundError(f"no process.npz in {folder}: give a dielectric model's folder")
    try:
        with np.load(folder / "process.npz", allow_pickle=False) as arrays:
            at = Hyperparameters(**{name: arrays[name] for name in Hyperparameters._fields})
            rest = [name for name in GaussianProcess._fields if name != "hyperparameters"]
            return GaussianProcess(hyperparameters=at, **{name: arrays[name] for name in rest})
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{folder / 'process.npz'} is no dielectric model ({error})") from error
