"""The crystals of a comparison: the same for all tokenizations, each structure once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.data.files import locked, replacing
from crystaljax.evaluation.matching import StructureSet, clusters
from crystaljax.ranges import POSITIVE, Range, at_least, check
from crystaljax.symmetry.equivalence import canonicalize

DATA_FILE = "data.npz"

Lengths = Callable[[Crystals, np.ndarray], np.ndarray]
"""Tokens of each of N crystals, int [N]; 0 of those that cannot be written. The mask [N] says which
are for training: a tokenizer learns from those."""


@dataclass(frozen=True)
class DataConfig:
    """Training and validation crystals."""

    train: str = "prototypes"
    """Training crystals: a file, a folder or a registered dataset."""
    validation: str = ""
    """Validation crystals: a file, a folder or a registered dataset. If not given, a share of the
    training crystals is held out."""
    share: float = 0.1
    """Share of the training crystals that is held out, if --data.validation is not given."""
    max_sites: int = 8
    """Crystals with more symmetry-distinct sites are left out."""
    max_length: float = 40.0
    """Å: crystals with a longer axis are left out. Bins of lengths end here."""
    max_tokens: int = 1024
    """Crystals with more tokens in any of the tokenizations are left out for all."""
    n_train: int = 0
    """Largest number of training crystals, chosen at random. 0: all."""
    n_validation: int = 0
    """Largest number of validation crystals. 0: all."""
    seed: int = 0
    """Random seed for these choices."""

    def __post_init__(self) -> None:
        check(self, share=Range(0, 1, False, False), max_sites=at_least(1), max_length=POSITIVE)
        zero = at_least(0)
        check(self, max_tokens=at_least(1), n_train=zero, n_validation=zero)


class ComparedData(NamedTuple):
    """Crystals in their canonical descriptions."""

    train: Crystals
    validation: Crystals
    left_out: Mapping[str, int]
    """Number of crystals left out, by reason."""

    @property
    def words(self) -> str:
        """Description for the report."""
        reasons = ", ".join(f"{n} {reason}" for reason, n in self.left_out.items() if n)
        return (
            f"{len(self.train)} training and {len(self.validation)} validation crystals, the same"
            f" for all. Left out: {reasons or 'none'}."
        )


def compared_data(config: DataConfig, folder: Path, lengths: Mapping[str, Lengths]) -> ComparedData:
    """The crystals of a comparison, chosen once and kept in its folder.

    Each structure occurs once (by StructureMatcher, over both sets; the training crystal is kept).
    From these, n_train and n_validation are chosen.

    Args:
      lengths: by tokenization; a crystal that one of them cannot write, or writes with more than
        `max_tokens`, is left out.

    ValueError if nothing is left of one of the two sets.
    """
    kept = folder / DATA_FILE
    with locked(kept):  # other processes of the comparison wait for it
        if not kept.is_file():
            write(_chosen(config, lengths), kept)
    return read(kept)


def write(data: ComparedData, path: Path) -> None:
    """Write the crystals to a file, completely or not at all."""
    arrays = {
        f"{name}.{field.name}": getattr(crystals, field.name)
        for name, crystals in (("train", data.train), ("validation", data.validation))
        for field in dataclasses.fields(Crystals)
    }
    with replacing(path) as temporary:
        np.savez(temporary, left_out=json.dumps(dict(data.left_out)), **arrays)


def read(path: Path) -> ComparedData:
    """The crystals that `write` wrote."""
    names = [field.name for field in dataclasses.fields(Crystals)]
    with np.load(path) as arrays:
        train, validation = (
            Crystals(*(arrays[f"{part}.{name}"] for name in names))
            for part in ("train", "validation")
        )
        return ComparedData(train, validation, json.loads(str(arrays["left_out"])))


def _chosen(config: DataConfig, lengths: Mapping[str, Lengths]) -> ComparedData:
    rng = np.random.default_rng(config.seed)
    train = load(config.train).crystals.to_numpy()
    if config.validation:
        validation = load(config.validation).crystals.to_numpy()
    else:
        order = rng.permutation(len(train))
        n = max(1, round(config.share * len(train)))
        train, validation = train[order[n:]], train[order[:n]]
    n_slots = max(train.n_slots, validation.n_slots)
    both = jax.tree.map(
        lambda a, b: np.concatenate([a, b]),
        train.with_slots(n_slots),
        validation.with_slots(n_slots),
    )
    is_train = np.arange(len(both)) < len(train)
    left_out: dict[str, int] = {}

    def leave_out(wrong: np.ndarray, reason: str) -> None:
        nonlocal both, is_train
        left_out[reason] = int(wrong.sum())
        both, is_train = both[np.flatnonzero(~wrong)], is_train[~wrong]
        for name, there in (("training", is_train), ("validation", ~is_train)):
            if not there.any():
                raise ValueError(f"no {name} crystal is left without those {reason}")

    n_sites = np.asarray(both.n_sites)
    leave_out(
        (n_sites == 0) | (n_sites > config.max_sites), f"of more than {config.max_sites} sites"
    )
    leave_out(
        both.lattice[:, :3].max(axis=1) > config.max_length,
        f"with an axis longer than {config.max_length:g} Å",
    )
    both = canonicalize(both).with_slots(config.max_sites)
    tokens = {name: length(both, is_train) for name, length in lengths.items()}
    for name, found in tokens.items():
        if not found.any():
            raise ValueError(f"{name} cannot write any of the crystals")
    each = np.stack(list(tokens.values()), axis=1)
    unwritten = np.any(each == 0, axis=1)
    too_long = np.any(each[~unwritten] > config.max_tokens, axis=1)
    leave_out(unwritten, "that one of the tokenizations cannot write")
    leave_out(too_long, f"of more than {config.max_tokens} tokens in one of the tokenizations")
    leader = clusters(StructureSet.from_crystals(both, "crystals"))
    failed = leader < 0
    first = np.zeros(len(both), bool)
    first[np.unique(leader, return_index=True)[1]] = True
    twins = ~first[~failed]
    leave_out(failed, "that cannot be compared with others")
    leave_out(twins, "of a structure that is there already")

    def some(there: np.ndarray, n: int) -> Crystals:
        rows = np.flatnonzero(there)
        if n and n < len(rows):
            rows = np.sort(rng.choice(rows, n, replace=False))
        return both[rows]

    return ComparedData(
        some(is_train, config.n_train), some(~is_train, config.n_validation), left_out
    )
