"""Crystals in one small file that numpy reads, for machines without readers of structures."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystaljax.crystal import Crystals

DEFAULT = Path(__file__).with_name("crystals.npz")
"""The embedded prototypes, encoded."""

HELD_OUT = 10
"""Every so many crystals one is for validation, where no file has those."""

SETS = ("train", "validation")


class Split(NamedTuple):
    """Crystals to train on, and others."""

    train: Crystals
    validation: Crystals


def encode(train: str, validation: str | None, to: Path) -> Split:
    """Read data sets by any reader, symmetrise them, and write their crystals to one file."""
    from crystaljax.data.dataset import load

    crystals = load(train).crystals
    if validation is None:
        held_out = np.arange(len(crystals)) % HELD_OUT == HELD_OUT - 1
        split = Split(crystals[~held_out], crystals[held_out])
    else:
        split = Split(crystals, load(validation).crystals)
    arrays = {}
    for name, part in zip(SETS, split, strict=True):
        small = _narrow(part)
        arrays |= {f"{name}/{field.name}": getattr(small, field.name) for field in fields(small)}
    to.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(to, allow_pickle=False, **arrays)
    return split


def read(path: Path) -> Split:
    """What `encode` wrote. FileNotFoundError; ValueError for another file."""
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
    """Whole numbers in a byte each, none of which is above 255."""
    batch = crystals.to_numpy()
    small = (x.astype(np.uint8) for x in (batch.space_group, batch.wyckoff, batch.species))
    return Crystals(*small, batch.frac.astype(np.float32), batch.lattice.astype(np.float32))


def _wide(crystals: Crystals) -> Crystals:
    wide = (x.astype(np.int32) for x in (crystals.space_group, crystals.wyckoff, crystals.species))
    return Crystals(*wide, crystals.frac, crystals.lattice)
