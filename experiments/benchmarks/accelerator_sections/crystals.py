"""Crystals in one small file that numpy reads, for machines without readers of structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from crystaljax.crystal import Crystals

DEFAULT = Path(__file__).with_name("crystals.npz")
"""The embedded prototypes, encoded."""

HELD_OUT = 10
"""One of this number of crystals is for validation, if there is no file for it."""

SETS = ("train", "validation")


class Split(NamedTuple):
    """Crystals for training, and for validation."""

    train: Crystals
    validation: Crystals


def encode(sources: Sequence[str], to: Path) -> Split:
    """Read training data and, if they are separate, validation data; write them to one file.

    Sources are what `data.dataset.load` takes.
    """
    from crystaljax.data.dataset import load

    crystals, *others = (load(source).crystals for source in sources)
    if not others:
        held_out = np.arange(len(crystals)) % HELD_OUT == HELD_OUT - 1
        split = Split(crystals[~held_out], crystals[held_out])
    else:
        split = Split(crystals, others[0])
    arrays: dict[str, np.ndarray] = {}
    for name, part in zip(SETS, split, strict=True):
        small = _narrow(part)
        arrays |= {f"{name}/{field.name}": getattr(small, field.name) for field in fields(small)}
    to.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(to, allow_pickle=False, **arrays)
    return split


def read(path: Path) -> Split:
    """Read the output of `encode`. FileNotFoundError; ValueError for another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = [
                Crystals(*(file[f"{name}/{field.name}"] for field in fields(Crystals)))
                for name in SETS
            ]
    except (KeyError, ValueError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"no file {path}: write it with --encode") from None
        raise ValueError(f"{path} holds no crystals ({error}): write it with --encode") from error
    return Split(*(_wide(part) for part in parts))


def _narrow(crystals: Crystals) -> Crystals:
    """The crystals with integers stored in one byte each; none is above 255."""
    return jax.tree.map(
        lambda x: x.astype(np.uint8 if x.dtype.kind == "i" else np.float32), crystals.to_numpy()
    )


def _wide(crystals: Crystals) -> Crystals:
    return jax.tree.map(lambda x: x.astype(np.int32 if x.dtype.kind == "u" else x.dtype), crystals)
