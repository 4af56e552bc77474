"""Samples of a Wyckoff transformer: the loop over sites, and the choice among candidates.

Under demands (elements, template, formula) sequences are drawn with masks and a look-ahead, which
is not the model's distribution of crystals that meet the demands: its tokens are likelier early,
where nothing is demanded yet. So candidates are drawn in rounds, with importance weights, and
samples are selected from them until their weights are nearly equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array
from crystaljax.models.wyckoff.constraints import Constraints
from crystaljax.models.wyckoff.decoder import Decoder, Graph, Rollout, grow, take
from crystaljax.models.wyckoff.importance import effective_size, kept_weights, select
from crystaljax.models.wyckoff.token_sampling import Tempering
from crystaljax.policies.base import SamplingConfig
from crystaljax.sampling import Demands
from crystaljax.symmetry.tables import N_GROUPS
from crystaljax.tokenizations.wyckoff import TOKENS_PER_SITE

SHRINK = 4
"""A batch is made smaller when this fraction of it, or less, has not ended."""

SMALLEST_BATCH = 16
"""Batches are not made smaller than this."""

CACHE_SITES = (2, 4, 7, 12)
"""Cache lengths, in sites, before the longest: attention reads no more of it than needed."""

ENOUGH = 0.9
"""No more candidates are drawn once the effective size is this share of the samples."""

FEWEST_CANDIDATES = 16
"""Candidates are weighed against at least so many, however few samples are wanted."""

EXPLORE = 0.2
"""Share of later candidates whose space groups are drawn from the prior, not where earlier ones
were found to weigh most."""


class Sampler:
    """Draws batches of sequences; sample i of a seed depends on the seed and i alone.

    Args:
      graph, params: the network, as `nnx.split` gives it.
      demands, config: what samples have to meet, and how they are drawn.
    """

    def __init__(
        self, graph: Graph, params: Any, seed: int, demands: Demands, config: SamplingConfig
    ) -> None:
        top_p = jnp.float32(config.top_p) if config.top_p < 1 else None
        tempering = Tempering(jnp.float32(config.temperature), top_p)
        table = demands.occupations
        fewest = None if table is None else jnp.asarray(table.fewest)
        self._decoder = Decoder(graph, params, tempering, fewest)
        self._base = jax.random.key(seed)
        self._demands, self._config = demands, config
        self._drawn = 0

    def sample(self, prior: np.ndarray, n: int, repeat: int, rng: np.random.Generator) -> Rollout:
        """n samples, as numpy arrays, of space groups each drawn for `repeat` samples in a row.

        `prior` float64 [230]: probabilities of the groups. Under demands, group and crystal are
        distributed as they are given that the demands are met. Samples that do not meet them,
        where too few candidates did, are not `satisfied`.
        """
        n_rows = -(-n // repeat)
        if not self._demands.binding:
            groups = rng.choice(N_GROUPS, n_rows, p=prior).astype(np.int32) + 1
            return self.draw(np.repeat(groups, repeat)[:n])
        first = self._choose(prior[None], np.array([n_rows]), rng)
        if repeat == 1:
            return first
        # The others of a row have the first one's group, which is thus distributed as it should be.
        groups, which = np.unique(first.tokens.space_group, return_inverse=True)
        others = self._choose(np.eye(N_GROUPS)[groups - 1], np.bincount(which) * (repeat - 1), rng)
        rows = np.zeros((n_rows, repeat), int)
        rows[:, 0] = np.arange(n_rows)
        by_group = np.argsort(which, kind="stable")
        rows[by_group, 1:] = n_rows + np.arange(n_rows * (repeat - 1)).reshape(n_rows, -1)
        both = jax.tree.map(lambda *xs: np.concatenate(xs), first, others)
        return both[rows.ravel()[:n]]

    def draw(self, groups: np.ndarray) -> Rollout:
        """The next sample for each of N space groups, int [N], with its own weight."""
        index = self._drawn + np.arange(len(groups))
        self._drawn += len(groups)
        constraints = self._demands.constraints(groups)
        result = Rollout.empty(groups, self._demands.max_sites)
        for first in range(0, len(groups), self._config.batch_size):
            rows = np.arange(first, min(first + self._config.batch_size, len(groups)))
            keys = jax.vmap(jax.random.fold_in, (None, 0))(self._base, index[rows])
            batch = keys, groups[rows], constraints[rows]
            for at, found in _decode(self._decoder, *batch, self._config.batch_size):
                jax.tree.map(partial(_put, rows[at]), result, found)
        return result

    def _choose(self, priors: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> Rollout:
        """Samples of T targets, which differ in their priors float64 [T, 230], target by target.

        `wanted` int [T]: samples of each.
        """
        n_targets = len(wanted)
        expected = np.zeros_like(priors)  # candidates of each target and group
        proposals = priors.copy()
        rounds: list[Rollout] = []
        target = group = np.zeros(0, int)
        open_targets = np.arange(n_targets)
        for _ in range(self._config.max_candidates):
            size = np.maximum(wanted, FEWEST_CANDIDATES)
            drawn = [rng.choice(N_GROUPS, size[t], p=proposals[t]) for t in open_targets]
            expected[open_targets] += size[open_targets, None] * proposals[open_targets]
            target = np.concatenate([target, np.repeat(open_targets, size[open_targets])])
            group = np.concatenate([group, *drawn])
            rounds.append(self.draw(np.concatenate(drawn).astype(np.int32) + 1))
            log_weight = np.concatenate([np.asarray(r.log_weight, np.float64) for r in rounds])
            log_weight += np.log(priors[target, group]) - np.log(expected[target, group])
            weight = _relative(log_weight, target, n_targets)
            for t in open_targets:
                mine = target == t
                proposals[t] = _better_proposal(priors[t], expected[t], group[mine], weight[mine])
            sizes = [
                effective_size(kept_weights(weight[target == t], wanted[t])) for t in open_targets
            ]
            open_targets = open_targets[np.array(sizes) < ENOUGH * wanted[open_targets]]
            if not len(open_targets):
                break
        candidates = jax.tree.map(lambda *xs: np.concatenate(xs), *rounds)
        rows, log_kept = [], []
        for i, n in enumerate(wanted):
            mine = np.flatnonzero(target == i)
            kept, weights = select(weight[mine], int(n), rng)
            rest = np.setdiff1d(np.arange(len(mine)), kept)[: n - len(kept)]
            rows.append(mine[np.concatenate([kept, rest]).astype(int)])
            log_kept += [np.log(weights / weights.mean()), np.full(len(rest), -np.inf)]
        chosen: Rollout = candidates[np.concatenate(rows)]
        return replace(chosen, log_weight=np.concatenate(log_kept).astype(np.float32))


def _relative(log_weight: np.ndarray, target: np.ndarray, n_targets: int) -> np.ndarray:
    """float64 [M]: weights, the largest of each target 1; 0 where none of a target's is any."""
    largest = np.full(n_targets, -np.inf)
    np.maximum.at(largest, target, log_weight)
    return np.exp(log_weight - np.where(np.isfinite(largest), largest, 0)[target])


def _better_proposal(
    prior: np.ndarray, expected: np.ndarray, group: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """float64 [230]: probabilities of the groups of further candidates.

    In proportion to the prior times the root mean square of p(demands met | group) as it was
    found (the allocation of least variance), known the better the more candidates a group had.
    """
    square = (weight * expected[group] / prior[group]) ** 2
    if not square.any():
        return prior
    total, n = np.bincount(group, square, N_GROUPS), np.bincount(group, minlength=N_GROUPS)
    found = prior * np.sqrt((total + square.mean()) / (n + 1))
    return EXPLORE * prior + (1 - EXPLORE) * found / found.sum()


def _put(at: np.ndarray, into: np.ndarray, values: np.ndarray) -> None:
    into[at] = values


def _decode(
    decoder: Decoder, keys: Array, groups: np.ndarray, constraints: Constraints, batch_size: int
) -> Iterator[tuple[np.ndarray, Rollout]]:
    """Decode N samples together; yields some of them, finished, at a time, with their rows."""
    max_sites = decoder.config.max_sites
    lengths = [_length(n) for n in (*CACHE_SITES, max_sites) if n <= max_sites]
    rows = np.arange(len(groups))
    size = _size(len(rows), batch_size)
    padded = np.concatenate([rows, np.zeros(size - len(rows), int)])
    state = decoder.start(keys[padded], groups[padded], constraints[padded])
    caches = decoder.empty_caches(size, lengths[0])
    for site in range(max_sites + 1):
        state, caches = decoder.letters(state, caches, site)
        left = np.flatnonzero(np.asarray(state.alive)[: len(rows)])
        smaller = _size(len(left), size)
        if len(left) == 0 or smaller < size:
            done = np.setdiff1d(np.arange(len(rows)), left)
            yield rows[done], jax.device_get(state.rollout)[done]
        if len(left) == 0:
            return
        if smaller < size:
            rows, size = rows[left], smaller
            padding = np.full(size - len(left), left[0])
            state, caches = take(state, caches, np.concatenate([left, padding]))
        if _length(site + 1) > lengths[0]:
            caches = grow(caches, lengths[1] - lengths[0])
            lengths = lengths[1:]
        state, caches = decoder.sites(state, caches, site)


def _length(sites: int) -> int:
    """Tokens of so many sites and of the end."""
    return sites * TOKENS_PER_SITE + 1


def _size(n: int, largest: int) -> int:
    """The smallest batch size, in steps of `SHRINK` down from `largest`, that holds n samples."""
    size = largest
    while size // SHRINK >= max(n, SMALLEST_BATCH):
        size //= SHRINK
    return size
