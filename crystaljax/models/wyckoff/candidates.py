"""Weighted candidates for conditional samples: their number, their proposal, and the selection."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import numpy as np

from crystaljax.models.wyckoff.importance import effective_size, kept_weights, select
from crystaljax.models.wyckoff.lookahead import Begun, Start
from crystaljax.models.wyckoff.rollout import TokenRollout

ENOUGH = 0.9
"""Drawing stops when the effective sample size reaches this share of the number of samples."""

FEW = 8
"""Fewer samples than this give no reliable effective size: then more candidates are drawn only if
the demand is not met."""

FUNNEL = 3
"""Number of candidates that are started (up to the second element) for each finished one."""

POOL = 32
"""Largest number of finished candidates of a pool."""

EXPLORE = 0.2
"""Share of later candidates that are drawn from the first proposal instead of the improved one."""


@dataclass(frozen=True, eq=False)
class Target:
    """Number of samples wanted for one demand."""

    demand: int
    start: Start
    wanted: int
    """Number of them."""
    binding: bool
    """Whether candidates have different weights."""


class Pool:
    """Weighted candidates of T targets, M in total.

    Args:
      most: largest number of candidates for each wanted sample.
    """

    def __init__(self, targets: list[Target], most: int) -> None:
        self._targets, self._most = targets, most
        self._expected = [np.zeros(len(t.start.group)) for t in targets]  # of each start
        self._proposals = [t.start.proposal for t in targets]
        self._count = np.zeros(len(targets), int)
        self._rounds: list[TokenRollout] = []
        self._target = self._option = np.zeros(0, int)
        self._weight = np.zeros(0)

    def propose(
        self, open_targets: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, Begun]:
        """Targets and starts of new candidates, `FUNNEL` of them for each that will be finished."""
        sizes, options, pools, n_pools = [], [], [], 0
        for t in open_targets:
            target, proposal = self._targets[t], self._proposals[t]
            left = self._most * target.wanted - self._count[t]
            size = min(max(target.wanted, self._count[t] if target.wanted < FEW else 0), left)
            self._count[t] += size
            parts = [len(x) for x in np.array_split(np.arange(size), -(-size // POOL))]
            pools.append(n_pools + np.repeat(np.arange(len(parts)), parts))
            n_pools += len(parts)
            if target.binding:
                size *= FUNNEL
                pools[-1] = np.repeat(pools[-1], FUNNEL)
            options.append(rng.choice(len(proposal), size, p=proposal))
            self._expected[t] += size * proposal
            sizes.append(size)
        target_, option = np.repeat(open_targets, sizes), np.concatenate(options)
        starts = [t.start for t in self._targets]
        prior, unit, group = (
            _of_options(target_, option, [getattr(s, name) for s in starts])
            for name in ("prior", "unit", "group")
        )
        return (
            target_,
            option,
            Begun(
                demand=np.array([t.demand for t in self._targets])[target_],
                unit=unit,
                group=group,
                log_weight=prior - np.log(_of_options(target_, option, self._expected)),
                pool=np.concatenate(pools),
                narrows=np.array([t.binding for t in self._targets])[target_],
            ),
        )

    def add(self, target: np.ndarray, option: np.ndarray, found: TokenRollout) -> None:
        """Add proposed candidates, and compute the weights of all candidates again."""
        self._rounds.append(found)
        self._target = np.concatenate([self._target, target])
        self._option = np.concatenate([self._option, option])
        log_weight = np.concatenate([np.asarray(r.log_weight, np.float64) for r in self._rounds])
        at = self._target, self._option
        log_weight += _of_options(*at, [t.start.prior for t in self._targets])
        log_weight -= np.log(_of_options(*at, self._expected))
        self._weight = _relative(log_weight, self._target, len(self._targets))

    def lacking(self, open_targets: np.ndarray) -> np.ndarray:
        """The targets that need more candidates; their proposals are improved."""
        left = []
        for t in open_targets:
            target, mine = self._targets[t], self._target == t
            weight = self._weight[mine]
            full = self._count[t] >= self._most * target.wanted
            if full or not target.binding or _enough(weight, target.wanted):
                continue
            left.append(t)
            if target.wanted >= FEW:
                self._proposals[t] = _better_proposal(
                    target.start, self._expected[t], self._option[mine], weight
                )
        return np.array(left, int)

    def select(self, rng: np.random.Generator) -> TokenRollout:
        """The samples of each target, with their remaining weights."""
        rows, kept = [], []
        by_target = np.argsort(self._target, kind="stable")
        uniform = rng.random(len(self._targets))
        for t, mine in enumerate(np.split(by_target, np.cumsum(self._count)[:-1])):
            chosen, weights = _select(self._weight[mine], self._targets[t].wanted, uniform[t])
            rows.append(mine[chosen])
            kept.append(weights / weights[weights > 0].mean() if weights.any() else weights)
        with np.errstate(divide="ignore"):
            log_weight = np.log(np.concatenate(kept)).astype(np.float32)
        candidates = jax.tree.map(lambda *xs: np.concatenate(xs), *self._rounds)
        found: TokenRollout = candidates[np.concatenate(rows)]
        return replace(found, log_weight=log_weight)


def narrow(
    begin: Begun, log_weight: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates that are kept, int [K], and the changes of their log-weights.

    `log_weight` [N]: contribution of sampling and look-ahead to the weights. `uniform`: a random
    number for each pool.
    """
    log_weight = begin.log_weight + log_weight
    weight = _relative(log_weight.astype(np.float64), begin.pool, len(uniform))
    by_pool = np.argsort(begin.pool, kind="stable")
    ends = np.flatnonzero(np.diff(begin.pool[by_pool], append=-1)) + 1
    kept, change = [], []
    for mine in np.split(by_pool, ends[:-1]):
        n = -(-len(mine) // FUNNEL) if begin.narrows[mine[0]] else len(mine)
        chosen, weights = _select(weight[mine], n, uniform[begin.pool[mine[0]]])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(weights > 0, np.log(weights / weight[mine[chosen]]), -np.inf)
        kept.append(mine[chosen])
        change.append(ratio)
    return np.concatenate(kept), np.concatenate(change).astype(np.float32)


def _select(weight: np.ndarray, n: int, uniform: float) -> tuple[np.ndarray, np.ndarray]:
    """Exactly n candidates of [M] and their weights, see `select`.

    If fewer have a positive weight, others with weight 0 are added.
    """
    if n == 1:
        share = np.cumsum(weight)
        at = np.searchsorted(share, uniform * share[-1], side="right")
        return np.array([min(at, len(weight) - 1)]), share[-1:]
    chosen, weights = select(weight, n, uniform)
    if len(chosen) == n:
        return chosen, weights
    rest = np.setdiff1d(np.arange(len(weight)), chosen)[: n - len(chosen)]
    return np.append(chosen, rest), np.append(weights, np.zeros(len(rest)))


def _of_options(target: np.ndarray, option: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
    """[M]: value of the option that each candidate was drawn from."""
    sizes = np.array([len(x) for x in values])
    return np.concatenate(values)[(np.cumsum(sizes) - sizes)[target] + option]


def _enough(weight: np.ndarray, wanted: int) -> bool:
    """Whether candidates with these weights are enough to select the samples."""
    if wanted < FEW:
        return bool(np.count_nonzero(weight) >= wanted)
    return effective_size(kept_weights(weight, wanted)) >= ENOUGH * wanted


def _relative(log_weight: np.ndarray, target: np.ndarray, n_targets: int) -> np.ndarray:
    """float64 [M]: weights, scaled so that the largest of each target is 1 (or all are 0)."""
    largest = np.full(n_targets, -np.inf)
    np.maximum.at(largest, target, log_weight)
    return np.exp(log_weight - np.where(np.isfinite(largest), largest, 0)[target])


def _better_proposal(
    start: Start, expected: np.ndarray, option: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """float64 [M]: probabilities of the starts of further candidates.

    Proportional to the proposal times the root mean square of the observed weights (the allocation
    of smallest variance), with more trust in starts that had more candidates.
    """
    proposal = start.proposal
    square = (weight * expected[option] / proposal[option]) ** 2
    if not square.any():
        return proposal
    n_starts = len(proposal)
    total, n = np.bincount(option, square, n_starts), np.bincount(option, minlength=n_starts)
    found = proposal * np.sqrt((total + square.mean()) / (n + 1))
    return EXPLORE * proposal + (1 - EXPLORE) * found / found.sum()
