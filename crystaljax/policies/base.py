"""The protocol of policies of crystals, and their rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from crystaljax.conditions import Condition
from crystaljax.crystal import Array, Crystals
from crystaljax.models.wyckoff.importance import effective_size
from crystaljax.ranges import POSITIVE, at_least, check
from crystaljax.rewards.base import Reasons

Params = Any
"""The arrays that are trained."""


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of sampling. ValueError for values that make no sense."""

    temperature: float = 1.0
    """Sampling temperature. Below 1: likelier crystals; above 1: more varied ones."""
    top_p: float = 1.0
    """Nucleus sampling: draw letters, elements and tokens only from the most likely ones, which
    together have this probability."""
    max_candidates: int = 8
    """Largest number of candidates from which each sample is selected, under conditions. If weights
    of samples still differ, the effective sample size says how much."""
    grammar: bool = False
    """Language models: sample only texts that fit the grammar of the text format."""
    max_new_tokens: int = 0
    """Language models: largest number of tokens of a crystal. 0: as many as the model was made
    for."""
    batch_size: int = 256
    """Samples drawn at a time. The result does not depend on it."""

    def __post_init__(self) -> None:
        check(self, temperature=POSITIVE, max_candidates=at_least(1), batch_size=at_least(1))
        check(self, max_new_tokens=at_least(0))
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p {self.top_p}: it must be above 0, and 1 at most")


@dataclass(frozen=True, eq=False)
class Rollout:
    """N samples of a policy, with their conditions."""

    sequences: Any
    """The policy's own tokens, of which `Policy.parts` takes rows."""
    conditions: tuple[Condition, ...]
    """[N]: condition of each sample."""
    crystals: Crystals
    """[N]; rows that are no crystal are all zero."""
    ok: np.ndarray
    """bool [N]: whether the sequence is a crystal."""
    met: np.ndarray
    """bool [N]: whether it is a crystal that meets its condition, as far as this can be checked."""
    reasons: Reasons
    """[N]: reason that it is no crystal, or does not meet its condition; None for others."""
    logp: np.ndarray
    """float64 [N]: ln p under the distribution that was sampled; nan if it was not sampled."""
    logp_model: np.ndarray
    """float64 [N]: ln p under the model itself; `Policy.log_prob` gives the same."""
    log_weight: np.ndarray
    """float64 [N]: ln of the sample's weight in averages, up to a constant. All are equal if
    samples follow the distribution exactly; −inf where a condition that should hold is not met."""
    prompt: np.ndarray
    """int [N]: samples of the same prompt (condition, and what the policy added to it, such as a
    space group) have the same number."""
    dead_ends: int = 0
    """Number of candidates that ended without meeting their condition, despite the masks. They were
    replaced, within `SamplingConfig.max_candidates`."""

    def __len__(self) -> int:
        return len(self.ok)

    @property
    def weight(self) -> np.ndarray:
        """float64 [N]: weights of samples in averages, with mean 1; all 0 if none meets its
        condition."""
        if not np.isfinite(self.log_weight).any():
            return np.zeros(len(self))
        weight = np.exp(self.log_weight - self.log_weight.max())
        return weight / weight.mean()

    @property
    def effective_size(self) -> float:
        """Effective sample size: (Σw)²/Σw² (Kong, JASA 89, 278, 1994)."""
        return effective_size(self.weight)


Typical = Callable[[int], Rollout]
"""Gives so many samples, always the same ones, that are as large as those to come."""


class Policy(Protocol):
    """p(crystal | condition) by a network with its tokenization; parameters are passed in.

    All methods give ValueError for what a policy cannot do, before anything is computed.
    """

    @property
    def tokenization(self) -> str:
        """Name of the tokenization, or FILE.py:CLASS of a text format of a user's own."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that a continued run must share with the first one; plain JSON."""
        ...

    @property
    def max_sites(self) -> int | None:
        """Largest number of symmetry-distinct sites of a crystal; None: no limit."""
        ...

    def check(self, conditions: Sequence[Condition], sampling: SamplingConfig) -> None:
        """Check the conditions; ValueError says what the policy cannot be asked for, and what it
        can."""
        ...

    def sample(
        self,
        params: Params,
        conditions: Sequence[Condition],
        seed: int,
        sampling: SamplingConfig | None = None,
        repeat: int = 1,
    ) -> Rollout:
        """`repeat` crystals in a row for each condition, of the same prompt.

        Inputs that the policy needs and a condition leaves open (a space group, a formula) are
        drawn from its training data. Sample i depends only on the seed, i and the conditions, not
        on the batch size.
        """
        ...

    def encode(self, crystals: Crystals, conditions: Sequence[Condition] | None = None) -> Rollout:
        """Crystals as if they had been sampled, without log-probabilities (nan).

        Without conditions each is asked for what the policy needs to be told of it. ValueError
        naming the first crystal that cannot be written.
        """
        ...

    def log_prob(self, params: Params, rollout: Rollout) -> np.ndarray:
        """float64 [N]: ln p of each sample under the model, given its prompt."""
        ...

    # Training: the same for any policy (see training.tasks).

    @property
    def frozen(self) -> Any:
        """Frozen arrays of the network, on the devices."""
        ...

    def place(self, tree: Any) -> Any:
        """Parameters, or a state that holds them, on the devices as training wants them."""
        ...

    def parts(
        self, rollout: Rollout, rows: np.ndarray, n_parts: int = 1, typical: Typical | None = None
    ) -> Any:
        """A = `n_parts` micro-batches on the devices of samples `rows` (int [n]), in order.

        Arrays have A on the leading axis. Shapes depend on n and A alone as far as that can be,
        so that little is compiled again, and not on what the policy was called with before. A
        policy whose shapes follow the sizes of samples asks `typical` for them, once, or takes
        them from `rows` if it is not given.
        """
        ...

    def log_probs(
        self, params: Params, frozen: Any, part: Any, n_samples: int
    ) -> tuple[Array, Array]:
        """Log-probabilities of the actions of a micro-batch, and which are actions: [n, T].

        Jittable. A crystal of the Wyckoff transformer is one action (T = 1), a token of a text
        one.
        """
        ...

    def save(self, folder: str | Path, params: Params) -> None:
        """Write a model folder, which `policies.loading.load_policy` reads."""
        ...


def rows_without_error(attempt: Callable[[np.ndarray], Any], rows: np.ndarray) -> np.ndarray:
    """The rows, of int [n], for which `attempt` raises no ValueError; found by bisection."""
    if not len(rows):
        return rows
    try:
        attempt(rows)
    except ValueError:
        halves = np.array_split(rows, 2) if len(rows) > 1 else []
        return np.concatenate([rows[:0], *(rows_without_error(attempt, x) for x in halves)])
    return rows


def writable_rows(policy: Policy, crystals: Crystals, rows: np.ndarray) -> np.ndarray:
    """The rows, of int [n], of B crystals that a policy can write.

    They are found by bisection, since a policy names only the first crystal that it cannot write.
    """
    return rows_without_error(lambda some: policy.encode(crystals[some]), rows)


def encode_writable(
    policy: Policy,
    crystals: Crystals,
    rows: np.ndarray,
    conditions: Sequence[Condition] | None = None,
) -> tuple[Rollout | None, np.ndarray]:
    """Rollout of the rows, of int [n], of B crystals that a policy can write, and these rows.

    None if there are none. See `writable_rows`.
    """

    def encode(rows: np.ndarray) -> Rollout:
        own = None if conditions is None else [conditions[i] for i in rows]
        return policy.encode(crystals[rows], own)

    if not len(rows):
        return None, rows
    try:
        return encode(rows), rows
    except ValueError:
        some = rows_without_error(encode, rows)
        return encode(some) if len(some) else None, some
