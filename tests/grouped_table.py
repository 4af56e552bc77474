"""A policy of 16 crystals of two structures, that may be asked for a space group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from table_policy import N, TablePolicy

from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.policies.base import Rollout, SamplingConfig

SALT, CESIUM_CHLORIDE = 225, 221


class GroupedTable(TablePolicy):
    """Rock salt, or the structure of CsCl with bromine second; of one element twice neither.

    It may be asked for space groups, and does not follow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crystals = two_structures(self.crystals)

    def check(self, conditions: Sequence[Condition], sampling: SamplingConfig) -> None:
        for condition in conditions:
            if condition.asked - {"space_group"}:
                raise ValueError(f"the table cannot be asked for {', '.join(condition.asked)}")

    def _rollout(self, index: np.ndarray, asked: list[Condition], logp: np.ndarray) -> Rollout:
        groups = [condition.space_groups or (0,) for condition in asked]
        prompt = np.array([group[0] for group in groups], int)
        return replace(super()._rollout(index, asked, logp), prompt=prompt)


def two_structures(crystals: Crystals) -> Crystals:
    """Those with bromine second as CsCl is."""
    bromide = np.arange(N * N) % N == N - 1
    lattice = np.where(bromide[:, None], np.float32([3.6, 3.6, 3.6, 90, 90, 90]), crystals.lattice)
    group = np.where(bromide, CESIUM_CHLORIDE, SALT).astype(np.int32)
    return replace(crystals, space_group=group, lattice=lattice)
