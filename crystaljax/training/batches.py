"""Batches as a function of the step, so that a run can stop and go on anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from crystaljax.crystal import Array, Crystals
from crystaljax.symmetry.equivalence import random_equivalent
from crystaljax.tokenizations.packing import PackedTokens, RowPlan, pack, pad_rows, plan_rows
from crystaljax.tokenizations.wyckoff import WyckoffTokenization, WyckoffTokens

Packed = tuple[PackedTokens, ...]


def data_mesh() -> Mesh:
    """All devices of all hosts in one axis "data", along which batches are split."""
    return jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(AxisType.Auto,))


def place(packed: Packed, mesh: Mesh) -> Packed:
    """Packed rows on the devices, split evenly among them (every host gives all rows).

    Empty rows are added at the end to make it even. They change nothing, dropout included: its
    mask of a token depends on the tokens before it, not on those after.
    """
    even = tuple(pad_rows(block, mesh.size) for block in packed)
    return jax.device_put(even, NamedSharding(mesh, PartitionSpec("data")))


@dataclass(frozen=True)
class Batches:
    """An endless stream of packed training batches: every epoch all crystals, in a new order."""

    crystals: Crystals
    """Training crystals (numpy, may be memory-mapped)."""
    tokenization: WyckoffTokenization
    batch_size: int
    """Crystals in every batch; an epoch leaves out what is left over."""
    seed: int
    augment: bool = False
    """Give each crystal in a random equivalent description."""
    plan: RowPlan = field(init=False)

    def __post_init__(self) -> None:
        if self.batch_size > len(self.crystals):
            raise ValueError(
                f"a batch of {self.batch_size} from {len(self.crystals)} crystals: "
                "lower the batch size"
            )
        n_sites = np.asarray(self.crystals.n_sites)
        plan = plan_rows(n_sites, self.batch_size)
        object.__setattr__(self, "plan", plan)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.crystals) // self.batch_size

    def tokens(self, step: int) -> WyckoffTokens:
        """The crystals of a step, the same whenever it is asked for."""
        epoch, part = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.crystals))
        rows = order[part * self.batch_size : (part + 1) * self.batch_size]
        crystals = self.crystals[np.sort(rows)]
        if self.augment:
            crystals = random_equivalent(np.random.default_rng([self.seed, 1, step]), crystals)
        return self.tokenization.encode(crystals)

    def packed(self, step: int) -> Packed:
        """The batch of a step, on the host."""
        return pack(self.tokens(step), self.plan)

    def stream(self, first: int, last: int, mesh: Mesh) -> Iterator[tuple[int, Packed]]:
        """(step, batch on the devices) for steps first ... last − 1; the next is made meanwhile."""

        def make(step: int) -> Packed:
            return place(self.packed(step), mesh)

        with ThreadPoolExecutor(1) as worker:
            following = worker.submit(make, first) if first < last else None
            for step in range(first, last):
                assert following is not None
                batch = following.result()
                following = worker.submit(make, step + 1) if step + 1 < last else None
                yield step, batch


def fixed_batches(
    tokens: WyckoffTokens, batch_size: int, plan: RowPlan
) -> Iterator[tuple[Packed, Array]]:
    """All sequences in order: packed batches of one shape, and the rows (int [n]) they hold."""
    for start in range(0, len(tokens), batch_size):
        rows = np.arange(start, min(start + batch_size, len(tokens)))
        yield pack(tokens[rows], plan), rows
