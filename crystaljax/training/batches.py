"""Batches as a function of the step, so that a run can stop and go on anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from crystaljax.crystal import Array, Crystals
from crystaljax.parallel import batch_sharding, make_mesh
from crystaljax.symmetry.equivalence import random_equivalent
from crystaljax.tokenizations.packing import PackedTokens, RowPlan, pack, pad_rows, plan_rows
from crystaljax.tokenizations.wyckoff import WyckoffTokenization, WyckoffTokens

Packed = tuple[PackedTokens, ...]

T = TypeVar("T")

N_PLANNED = 120
"""Batches that rows are planned for."""


def even(packed: Packed, mesh: Mesh) -> Packed:
    """Packed rows (numpy) with empty ones at the end, so that they split evenly over the devices.

    They change nothing, dropout included: its mask of a token depends on the tokens before it, not
    on those after.
    """
    return tuple(pad_rows(block, mesh.size) for block in packed)


def place(packed: Packed, mesh: Mesh) -> Packed:
    """Packed rows on the devices, split evenly among them (every host gives all rows)."""
    return jax.device_put(even(packed, mesh), batch_sharding(mesh))


def balanced_batches(
    sizes: np.ndarray, n_batches: int, batch_size: int, rng: np.random.Generator
) -> Array:
    """int [n_batches, batch_size]: random batches that are much alike in their sizes.

    Of items of given sizes (int [N]), those left over are left out. Sorted by size, each run of as
    many items as there are batches is distributed over them.
    """
    chosen = rng.permutation(len(sizes))[: n_batches * batch_size]
    by_size = chosen[np.argsort(sizes[chosen], kind="stable")]
    return rng.permuted(by_size.reshape(batch_size, n_batches), axis=1).T


def prefetched(make: Callable[[int], T], first: int, last: int) -> Iterator[tuple[int, T]]:
    """(step, what `make` gives for it) for steps first ... last − 1; the next is made meanwhile."""
    with ThreadPoolExecutor(1) as worker:
        following = worker.submit(make, first) if first < last else None
        for step in range(first, last):
            assert following is not None
            batch = following.result()
            following = worker.submit(make, step + 1) if step + 1 < last else None
            yield step, batch


class Batches:
    """An endless stream of packed training batches: every epoch all crystals, in a new order.

    Batches are much alike: each has its share of the large crystals and of the small, drawn anew
    every epoch. So all fit the same rows, with little room left over.

    Args:
      crystals: training crystals (numpy, may be memory-mapped).
      batch_size: crystals in every batch; an epoch leaves out what is left over.
      mesh: devices that batches are split over; all of them if not given.
      augment: give each crystal in a random equivalent description.

    ValueError if there are fewer crystals than a batch has.
    """

    def __init__(
        self,
        crystals: Crystals,
        tokenization: WyckoffTokenization,
        batch_size: int,
        seed: int,
        mesh: Mesh | None = None,
        augment: bool = False,
    ) -> None:
        if batch_size > len(crystals):
            raise ValueError(
                f"a batch of {batch_size} from {len(crystals)} crystals: lower the batch size"
            )
        self.crystals = crystals
        self.tokenization = tokenization
        self.batch_size = batch_size
        self.seed = seed
        self.mesh = mesh or make_mesh()
        self.augment = augment
        self._n_sites = np.asarray(crystals.n_sites)
        self._dealt = -1, np.empty((0, 0), np.int64)  # an epoch, and its batches
        self.plan: RowPlan = plan_rows(self._some_sizes(), int(self._n_sites.max()))

    @property
    def steps_per_epoch(self) -> int:
        return len(self.crystals) // self.batch_size

    def tokens(self, step: int) -> WyckoffTokens:
        """The crystals of a step, the same whenever it is asked for."""
        epoch, part = divmod(step, self.steps_per_epoch)
        crystals = self.crystals[np.sort(self._batches(epoch)[part])]
        if self.augment:
            crystals = random_equivalent(np.random.default_rng([self.seed, 1, step]), crystals)
        return self.tokenization.encode(crystals)

    def _some_sizes(self) -> list[np.ndarray]:
        """Numbers of sites of the crystals of `N_PLANNED` batches from four epochs or more."""
        part = min(N_PLANNED // 4, self.steps_per_epoch)
        epochs = range(-(-N_PLANNED // part))
        return [self._n_sites[rows] for epoch in epochs for rows in self._batches(epoch)[:part]]

    def _batches(self, epoch: int) -> np.ndarray:
        """int [steps, batch size]: the crystals of an epoch's batches."""
        if self._dealt[0] != epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            self._dealt = (
                epoch,
                balanced_batches(self._n_sites, self.steps_per_epoch, self.batch_size, rng),
            )
        return self._dealt[1]

    def packed(self, step: int) -> Packed:
        """The batch of a step, on the host."""
        return pack(self.tokens(step), self.plan)

    def stream(self, first: int, last: int) -> Iterator[tuple[int, Packed]]:
        """(step, batch on the devices) for steps first ... last − 1; the next is made meanwhile."""
        return prefetched(lambda step: place(self.packed(step), self.mesh), first, last)

    def save_batch(self, step: int, folder: Path) -> Path:
        """Write the sequences of a step to a file in `folder`."""
        tokens, path = self.tokens(step), folder / "bad_batch.npz"
        np.savez(path, **{f.name: getattr(tokens, f.name) for f in dataclasses.fields(tokens)})
        return path


def fixed_batches(
    tokens: WyckoffTokens, batch_size: int, plan: RowPlan
) -> Iterator[tuple[Packed, Array]]:
    """All sequences in order: packed batches of one shape, and the rows (int [n]) they hold."""
    for start in range(0, len(tokens), batch_size):
        rows = np.arange(start, min(start + batch_size, len(tokens)))
        yield pack(tokens[rows], plan), rows
