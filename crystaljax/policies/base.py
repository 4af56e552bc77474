"""The protocol of policies of crystals, and what they give."""

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
    """Sampling temperature: below 1 likelier crystals, above 1 more varied ones."""
    top_p: float = 1.0
    """Nucleus sampling: letters, elements and tokens are drawn from the likeliest that make up this
    probability."""
    max_candidates: int = 8
    """Candidates drawn for each sample, at most, where some have to be chosen from to meet the
    conditions; samples whose weights still differ tell by their effective size."""
    grammar: bool = False
    """Language models: sample only texts that fit the grammar of the text format."""
    max_new_tokens: int = 0
    """Language models: most tokens of a crystal. 0: as many as the model was made for."""
    batch_size: int = 256
    """Samples made at a time; the result does not depend on it."""

    def __post_init__(self) -> None:
        check(self, temperature=POSITIVE, max_candidates=at_least(1), batch_size=at_least(1))
        check(self, max_new_tokens=at_least(0))
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p {self.top_p}: it must be above 0, and 1 at most")


@dataclass(frozen=True, eq=False)
class Rollout:
    """N samples of a policy: what they were asked to be, and what they are."""

    sequences: Any
    """The policy's own tokens, of which `Policy.parts` takes rows."""
    conditions: tuple[Condition, ...]
    """[N]: what was asked of each."""
    crystals: Crystals
    """[N]; rows that are no crystal are all zero."""
    ok: np.ndarray
    """bool [N]: the sequence is a crystal."""
    met: np.ndarray
    """bool [N]: it is a crystal that meets its condition, as far as that can be told from it."""
    reasons: Reasons
    """[N]: why it is no crystal, or does not meet its condition."""
    logp: np.ndarray
    """float64 [N]: ln p under the distribution that was sampled; nan if it was not sampled."""
    logp_model: np.ndarray
    """float64 [N]: ln p under the model itself; `Policy.log_prob` gives the same."""
    log_weight: np.ndarray
    """float64 [N]: ln of the weight that the sample should have in averages, up to a constant; all
    equal where samples are exact, −inf where a condition that should hold is not met."""
    prompt: np.ndarray
    """int [N]: samples of the same prompt (condition, and what the policy added to it, such as a
    space group) have the same number."""
    dead_ends: int = 0
    """Candidates that masks could not keep from ending without meeting their condition, of which
    there were others drawn in their place, as far as `SamplingConfig.max_candidates` allows."""

    def __len__(self) -> int:
        return len(self.ok)

    @property
    def weight(self) -> np.ndarray:
        """float64 [N]: what samples count for in averages, 1 on average; all 0 if none is met."""
        if not np.isfinite(self.log_weight).any():
            return np.zeros(len(self))
        weight = np.exp(self.log_weight - self.log_weight.max())
        return weight / weight.mean()

    @property
    def effective_size(self) -> float:
        """Samples of equal weight that are worth as much: (Σw)²/Σw² (Kong, JASA 89, 278, 1994)."""
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
        """Settings that a run and those which resume it must share; plain JSON."""
        ...

    @property
    def max_sites(self) -> int | None:
        """Symmetry-distinct sites of a crystal at most, if there is such a limit."""
        ...

    def check(self, conditions: Sequence[Condition], sampling: SamplingConfig) -> None:
        """ValueError naming what of the conditions the policy cannot be asked, and what it can."""
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

        What a condition leaves open and the policy needs to be told (a space group, a formula) is
        drawn from its training data. Sample i depends on the seed, i and the conditions alone,
        whatever the batch size.
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
        """Arrays on the devices that the network needs and training leaves as they are."""
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
    """Those of some rows (int [n]) for which `attempt` raises no ValueError, tried in halves."""
    if not len(rows):
        return rows
    try:
        attempt(rows)
    except ValueError:
        halves = np.array_split(rows, 2) if len(rows) > 1 else []
        return np.concatenate([rows[:0], *(rows_without_error(attempt, x) for x in halves)])
    return rows


def writable_rows(policy: Policy, crystals: Crystals, rows: np.ndarray) -> np.ndarray:
    """Those of some rows (int [n]) of B crystals that a policy can write.

    A policy names only the first that it cannot write: rows are tried in halves.
    """
    return rows_without_error(lambda some: policy.encode(crystals[some]), rows)


def encode_writable(
    policy: Policy,
    crystals: Crystals,
    rows: np.ndarray,
    conditions: Sequence[Condition] | None = None,
) -> tuple[Rollout | None, np.ndarray]:
    """Those of some rows (int [n]) of B crystals that a policy can write, and which these are.

    None if there are none. They are tried in halves, as of `writable_rows`.
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
