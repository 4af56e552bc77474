"""A policy of 16 crystals, in a table of logits: rock salt of two of four elements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.composition import atomic_number
from crystaljax.conditions import Condition, unmet
from crystaljax.crystal import Array, Crystals
from crystaljax.policies.base import Policy, Rollout, SamplingConfig, Typical

ELEMENTS = ("Na", "K", "Cl", "Br")
NUMBERS = np.array([atomic_number(name) for name in ELEMENTS])
N = len(ELEMENTS)


def table_crystals() -> Crystals:
    """[16]: the first element by the second, of one cell."""
    n, index = N * N, np.arange(N * N)
    return Crystals(
        np.full(n, 225, np.int32),
        np.tile(np.array([1, 2], np.int32), (n, 1)),
        np.stack([NUMBERS[index // N], NUMBERS[index % N]], axis=1).astype(np.int32),
        np.tile(np.array([[0, 0, 0], [0.5, 0.5, 0.5]], np.float32), (n, 1, 1)),
        np.tile(np.array([5.6, 5.6, 5.6, 90, 90, 90], np.float32), (n, 1)),
    )


def probabilities(params: Any) -> np.ndarray:
    """float64 [16]"""
    first = jax.nn.softmax(params["first"])
    return np.asarray(first[:, None] * jax.nn.softmax(params["second"], axis=1), float).ravel()


class TablePolicy:
    """p(first element) p(second element | first); two actions a crystal.

    It may be asked for elements, and does not follow.
    """

    tokenization = "table"
    max_sites = 2
    frozen = ()

    def __init__(self) -> None:
        self.crystals = table_crystals()
        self.identity: dict[str, Any] = {"elements": list(ELEMENTS)}

    def init(self, seed: int) -> dict[str, Array]:
        keys = jax.random.split(jax.random.key(seed))
        return {
            "first": jax.random.normal(keys[0], (N,)),
            "second": jax.random.normal(keys[1], (N, N)),
        }

    def check(self, conditions: Sequence[Condition], sampling: SamplingConfig) -> None:
        for condition in conditions:
            if condition.asked - {"elements"}:
                raise ValueError(f"the table cannot be asked for {', '.join(condition.asked)}")

    def sample(
        self,
        params: Any,
        conditions: Sequence[Condition],
        seed: int,
        sampling: SamplingConfig | None = None,
        repeat: int = 1,
    ) -> Rollout:
        self.check(conditions, sampling or SamplingConfig())
        p = probabilities(params)
        asked = [condition for condition in conditions for _ in range(repeat)]
        index = np.random.default_rng(seed).choice(N * N, len(asked), p=p / p.sum())
        return self._rollout(index, asked, np.log(p)[index])

    def encode(self, crystals: Crystals, conditions: Sequence[Condition] | None = None) -> Rollout:
        there = crystals.with_slots(self.crystals.n_slots)
        same = np.abs(there.lattice[:, None] - self.crystals.lattice).max(axis=2) < 1e-4
        same &= (there.species[:, None] == self.crystals.species).all(axis=2)
        if not same.any(axis=1).all():
            raise ValueError(f"crystal {np.argmin(same.any(axis=1))} is not in the table")
        asked = [Condition()] * len(crystals) if conditions is None else list(conditions)
        return self._rollout(same.argmax(axis=1), asked, np.full(len(crystals), np.nan))

    def _rollout(self, index: np.ndarray, asked: list[Condition], logp: np.ndarray) -> Rollout:
        crystals = self.crystals[index]
        reasons = unmet(crystals, asked)
        met = np.array([reason is None for reason in reasons], bool)
        same, ok = np.zeros(len(index), int), np.ones(len(index), bool)
        weight = np.zeros(len(index))
        return Rollout(index, tuple(asked), crystals, ok, met, reasons, logp, logp, weight, same)

    def log_prob(self, params: Any, rollout: Rollout) -> np.ndarray:
        return np.log(probabilities(params))[rollout.sequences]

    def place(self, tree: Any) -> Any:
        return jax.tree.map(jnp.asarray, tree)

    def parts(
        self, rollout: Rollout, rows: np.ndarray, n_parts: int = 1, typical: Typical | None = None
    ) -> Array:
        return jnp.asarray(rollout.sequences[rows].reshape(n_parts, -1))

    def log_probs(
        self, params: Any, frozen: Any, part: Array, n_samples: int
    ) -> tuple[Array, Array]:
        first, second = part // N, part % N
        logp = jnp.stack(
            [
                jax.nn.log_softmax(params["first"])[first],
                jax.nn.log_softmax(params["second"], axis=1)[first, second],
            ],
            axis=1,
        )
        return logp, jnp.ones(logp.shape, bool)

    def save(self, folder: str | Path, params: Any) -> None:
        raise NotImplementedError


def table_policy() -> tuple[Policy, Any]:
    """The policy with random logits."""
    policy = TablePolicy()
    return policy, policy.init(0)
