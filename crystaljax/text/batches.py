"""Batches of texts as a function of the step, so that a run can stop and go on anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from crystaljax.crystal import Array
from crystaljax.parallel import parts_sharding
from crystaljax.text.packing import (
    PackedTexts,
    RowPlan,
    TokenSequence,
    check_sequences,
    pack_micro_batches,
    pack_texts,
    padding_share,
    plan_rows,
)
from crystaljax.training.batches import N_PLANNED, balanced_batches, prefetched

Group = Sequence[TokenSequence]
"""Sequences that stay together: one text, or the two completions of a preference pair."""


class TextBatches:
    """An endless stream of packed training batches: every epoch all its groups, in a new order.

    A batch is A micro-batches of equally many groups, each packed into the same rows. Micro-batches
    are much alike in length, so all fit the same rows, with little room left over. Sequence
    `g * s + i` of a micro-batch is the i-th of the s in its g-th group.

    Args:
      groups: each of s sequences (1 for texts, 2 for pairs).
      batch_size: groups in every batch; an epoch leaves out what is left over.
      width: of the network that reads them; see `plan_rows`.
      micro_batches: A, in how many parts the gradient of a batch is added up.
      mesh: devices that the rows are spread over; one if not given.
      n_epochs: `groups` are those of so many epochs, one after the other, equally many each; they
        are taken in turns.

    ValueError if there are fewer groups than a batch has, if A does not divide `batch_size`, if
    groups differ in s, or naming a sequence that cannot be packed.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        batch_size: int,
        seed: int,
        width: int,
        micro_batches: int = 1,
        mesh: Mesh | None = None,
        n_epochs: int = 1,
    ) -> None:
        if len(groups) % n_epochs:
            raise ValueError(f"{len(groups)} examples are not those of {n_epochs} epochs")
        self.n_epochs, self.epoch_size = n_epochs, len(groups) // n_epochs
        if batch_size > self.epoch_size:
            raise ValueError(
                f"a batch of {batch_size} from {self.epoch_size} examples: lower the batch size"
            )
        if batch_size % micro_batches:
            raise ValueError(f"{micro_batches} micro-batches do not divide a batch of {batch_size}")
        self.groups = groups
        self.batch_size = batch_size
        self.micro_batches = micro_batches
        self.seed = seed
        self._lengths = _lengths(groups)
        self._dealt = -1, np.empty((0, 0, 0), np.int64)  # an epoch, and its micro-batches
        longest = self._lengths.max(keepdims=True)[0]
        self.sharding = None if mesh is None else parts_sharding(mesh)
        n_devices = 1 if mesh is None else mesh.size
        self.plan: RowPlan = plan_rows([*self._some_lengths(), longest], width, n_devices)

    @property
    def steps_per_epoch(self) -> int:
        return self.epoch_size // self.batch_size

    @property
    def n_sequences(self) -> int:
        """B, the sequences of a micro-batch."""
        return self.batch_size // self.micro_batches * self._lengths.shape[1]

    def chosen(self, step: int) -> np.ndarray:
        """int [A, groups of a micro-batch]: the groups of a step, the same whenever asked for."""
        epoch, part = divmod(step, self.steps_per_epoch)
        return self._batches(epoch)[part]

    def packed(self, step: int) -> PackedTexts:
        """[A, R, T] of each block: the batch of a step, on the host."""
        micro_batches = [
            [sequence for group in part for sequence in self.groups[group]]
            for part in self.chosen(step)
        ]
        return pack_micro_batches(micro_batches, self.plan)

    def stream(self, first: int, last: int) -> Iterator[tuple[int, PackedTexts]]:
        """(step, batch on the devices) for steps first ... last − 1; the next is made meanwhile."""
        put = jax.device_put
        return prefetched(lambda step: put(self.packed(step), self.sharding), first, last)

    def save_batch(self, step: int, folder: Path) -> Path:
        """Write the packed texts of a step to a file in `folder`."""
        path = folder / "bad_batch.npz"
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{field.name}_{block}": getattr(rows, field.name)
            for block, rows in enumerate(self.packed(step))
            for field in dataclasses.fields(rows)
        }
        np.savez(path, **arrays)
        return path

    def padding(self, n_steps: int = 10) -> float:
        """The share of tokens that are padding in the first steps, 0 to 1."""
        return float(np.mean([padding_share(self.packed(step)) for step in range(n_steps)]))

    def _some_lengths(self) -> list[np.ndarray]:
        """Tokens of the sequences of `N_PLANNED` micro-batches from four epochs or more."""
        size = self.batch_size // self.micro_batches
        part = min(N_PLANNED // 4, self.steps_per_epoch * self.micro_batches)
        epochs = range(-(-N_PLANNED // part))
        chosen = [self._batches(epoch).reshape(-1, size)[:part] for epoch in epochs]
        return [self._lengths[groups].ravel() for groups in np.concatenate(chosen)]

    def _batches(self, epoch: int) -> np.ndarray:
        """int [steps, A, groups of a micro-batch]: the groups of an epoch's batches."""
        if self._dealt[0] != epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            n_parts = self.steps_per_epoch * self.micro_batches
            size = self.batch_size // self.micro_batches
            first = epoch % self.n_epochs * self.epoch_size
            lengths = self._lengths[first : first + self.epoch_size].sum(axis=1)
            parts = first + balanced_batches(lengths, n_parts, size, rng)
            self._dealt = epoch, parts.reshape(-1, self.micro_batches, size)
        return self._dealt[1]


def _lengths(groups: Sequence[Group]) -> np.ndarray:
    """int [N, s]: numbers of tokens; ValueError naming a group that will not do."""
    size = len(groups[0])
    for i, group in enumerate(groups):
        if len(group) != size:
            raise ValueError(f"example {i} has {len(group)} sequences, and the first {size}")
    lengths = np.array([[len(tokens) for tokens, _ in group] for group in groups], np.int64)
    n_prompt = np.array([[prompt for _, prompt in group] for group in groups], np.int64)
    for each in range(size):
        check_sequences(lengths[:, each], n_prompt[:, each], int(lengths.max()), "example {}")
    return lengths


SPARE = 1.2
"""Texts that rows are planned for, over those of a batch: compiling again takes half a minute."""


def plan_like(lengths: np.ndarray, n: int, longest: int, width: int, multiple: int = 1) -> RowPlan:
    """Rows for batches of n texts that are like those of some lengths (int [N] tokens).

    There is room to spare for longer ones, and for a text of `longest` tokens. `width` and
    `multiple` are as in `plan_rows`.
    """
    rng = np.random.default_rng(0)
    likely = [rng.choice(lengths, round(SPARE * n)) for _ in range(N_PLANNED)]
    return plan_rows([*likely, np.array([longest])], width, multiple)


def fixed_batches(
    sequences: Sequence[TokenSequence], batch_size: int, width: int, multiple: int = 1
) -> Iterator[tuple[PackedTexts, Array]]:
    """All sequences in order: packed batches of one shape, and which (int [n]) they hold.

    `width` and `multiple` are as in `plan_rows`. All are packed as `batch_size` sequences, the
    last batch too.
    """
    lengths = np.array([len(tokens) for tokens, _ in sequences], np.int64)
    starts = range(0, len(sequences), batch_size)
    plan = plan_rows([lengths[i : i + batch_size] for i in starts], width, multiple)
    for start in starts:
        chosen = np.arange(len(sequences))[start : start + batch_size]
        yield pack_texts(sequences[start : start + batch_size], plan, batch_size), chosen
