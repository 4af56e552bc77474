"""Samples of a Wyckoff transformer: the loop over sites, and the choice among candidates.

Under demands (elements, template, formula) sequences are drawn with masks and a look-ahead, which
is not the model's distribution of crystals that meet the demands. So candidates are drawn in
rounds, with importance weights, and samples are selected from them until their weights are nearly
equal. Candidates of all demands of a call, and of all their space groups and formula units, are
drawn together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.conditions import Condition
from crystaljax.crystal import Array
from crystaljax.models.wyckoff.constraints import Constraints
from crystaljax.models.wyckoff.decoder import (
    Decoder,
    DecodeState,
    Graph,
    TokenRollout,
    grow,
    take,
)
from crystaljax.models.wyckoff.demands import make_demands
from crystaljax.models.wyckoff.importance import effective_size, kept_weights, select
from crystaljax.models.wyckoff.lookahead import Begun, Start, Starts
from crystaljax.models.wyckoff.token_sampling import Tempering
from crystaljax.models.wyckoff.transformer import Cache
from crystaljax.tokenizations.wyckoff import TOKENS_PER_SITE

if TYPE_CHECKING:
    from crystaljax.policies.base import SamplingConfig

SHRINK = 4
"""A batch is made smaller when this fraction of it, or less, has not ended."""

SMALLEST_BATCH = 16
"""Batches are not made smaller than this."""

CACHE_SITES = (2, 4, 7, 12)
"""Cache lengths, in sites, before the longest: attention reads no more of it than needed."""

ENOUGH = 0.9
"""No more candidates are drawn once the effective size is this share of the samples."""

FEW = 8
"""Fewer samples than this are chosen from candidates of a larger effective size ..."""

FEW_FACTOR = 1.5
"""... by this factor."""

FUNNEL = 3
"""First sites that are sampled for each candidate that is finished."""

POOL = 32
"""Candidates that are finished of a common pool of first sites, at most."""

EXPLORE = 0.2
"""Share of later candidates that start as the first ones did, not where these were found to weigh
most."""


@dataclass(frozen=True, eq=False)
class _Target:
    """Samples that are wanted of one demand."""

    demand: int
    start: Start
    wanted: int
    """How many."""
    binding: bool
    """Candidates do not all have the same weight."""

    @property
    def first_round(self) -> int:
        """Candidates of the first round."""
        return 2 * self.wanted if self.binding and self.wanted < FEW else self.wanted


class Sampler:
    """Draws batches of sequences; sample i of a seed depends on the seed, i and the conditions.

    Args:
      graph, params: the network, as `nnx.split` gives it.
      seed, sampling: how to sample.
      space_group_counts, element_counts: of the training data, see `make_demands`.
    """

    def __init__(
        self,
        graph: Graph,
        params: Any,
        seed: int,
        sampling: SamplingConfig,
        space_group_counts: np.ndarray,
        element_counts: np.ndarray | None = None,
    ) -> None:
        top_p = jnp.float32(sampling.top_p) if sampling.top_p < 1 else None
        self.decoder = Decoder(graph, params, Tempering(jnp.float32(sampling.temperature), top_p))
        self._base = jax.random.key(seed)
        self._rng = np.random.default_rng(seed)
        self._sampling = sampling
        self._counts = space_group_counts, element_counts
        self._drawn = 0

    def sample(self, conditions: Sequence[Condition], repeat: int = 1) -> TokenRollout:
        """`repeat` samples in a row, of the same space group, for each condition: [N · repeat].

        Arrays are numpy's. Space group (and formula units, where they are open) and crystal are
        distributed as they are given that the condition is met. Samples that do not meet it,
        where too few candidates did, are not `satisfied`. ValueError naming the condition that
        cannot be asked.
        """
        distinct = list(dict.fromkeys(conditions))
        number = {condition: i for i, condition in enumerate(distinct)}
        which = np.array([number[condition] for condition in conditions], int)
        demands = make_demands(conditions, self.decoder.config.max_sites, *self._counts)
        demands = [demands[conditions.index(c)] for c in distinct]
        if not any(demand.binding for demand in demands):
            priors = np.stack([demand.prior for demand in demands])
            group = _draw(priors, which, self._rng) + 1
            rows = np.repeat(np.arange(len(which)), repeat)
            known = np.stack([demand.known for demand in demands])[which[rows]]
            constraints = Constraints(known, known)
            return self._decode(group[rows].astype(np.int32), constraints)
        starts = Starts(demands, self.decoder)
        n = np.bincount(which, minlength=len(distinct))
        targets = [
            _Target(i, starts.starts[i], int(n[i]), demand.binding)
            for i, demand in enumerate(demands)
        ]
        first = self._choose(starts, targets)
        # Target by target; back to the order that was asked for.
        first = first[np.argsort(np.argsort(which, kind="stable"), kind="stable")]
        if repeat == 1:
            return first
        # The others of a row have the first one's group, which is thus distributed as it should be.
        pairs = np.stack([which, first.tokens.space_group - 1], axis=1)
        unique, pair = np.unique(pairs, axis=0, return_inverse=True)
        n = np.bincount(pair.ravel()) * (repeat - 1)
        others = self._choose(
            starts,
            [
                _Target(i, starts.starts[i].of_group(group), int(k), demands[i].binding)
                for (i, group), k in zip(unique.tolist(), n, strict=True)
            ],
        )
        rows = np.zeros((len(which), repeat), int)
        rows[:, 0] = np.arange(len(which))
        by_pair = np.argsort(pair.ravel(), kind="stable")
        rows[by_pair, 1:] = len(which) + np.arange(len(which) * (repeat - 1)).reshape(
            len(which), -1
        )
        both = jax.tree.map(lambda *xs: np.concatenate(xs), first, others)
        return both[rows.ravel()]

    def _decode(self, groups: np.ndarray, constraints: Constraints) -> TokenRollout:
        """The next sample for each of N space groups, int32 [N], without demands."""
        result = TokenRollout.empty(groups, self.decoder.config.max_sites)
        size = self._sampling.batch_size
        for first in range(0, len(groups), size):
            rows = np.arange(first, min(first + size, len(groups)))
            keys = self._keys(rows)
            for at, found in _decode(self.decoder, keys, groups[rows], constraints[rows], size):
                jax.tree.map(partial(_put, rows[at]), result, found)
        self._drawn += len(groups)
        return result

    def _keys(self, rows: np.ndarray) -> Array:
        return jax.vmap(jax.random.fold_in, (None, 0))(self._base, self._drawn + rows)

    def draw(self, starts: Starts, begun: Begun) -> tuple[np.ndarray, TokenRollout]:
        """Finish one in `FUNNEL` of N candidates; which (int [K]), with their own weights.

        Of each pool those that look best after the first site are likelier to be kept, with
        weights that make up for it (rejection control).
        """
        size = self._sampling.batch_size
        most = FUNNEL * max(size, POOL)
        kept: list[np.ndarray] = []
        found: list[TokenRollout] = []
        for rows in starts.chunks(begun, most):
            begin = begun[rows]
            state, caches = self._first_site(starts, begin, self._keys(rows), most)
            chosen, log_weight = self._keep(begin, jax.device_get((state.rollout, state.ahead)))
            length = starts.length(begin)[chosen]
            order = np.lexsort((begin.group[chosen], length))
            result = TokenRollout.empty(begin.group[chosen] + 1, self.decoder.config.max_sites)
            for first in range(0, len(chosen), size):
                at = order[first : first + size]
                padding = np.zeros(_size(len(at), size) - len(at), int)
                mine = take(state, caches, np.concatenate([chosen[at], chosen[at[padding]]]))
                for done, part in _finish(self.decoder, *mine, len(at), 1):
                    jax.tree.map(partial(_put, at[done]), result, part)
            kept.append(rows[chosen])
            found.append(replace(result, log_weight=result.log_weight + log_weight))
        self._drawn += len(begun)
        return np.concatenate(kept), jax.tree.map(lambda *xs: np.concatenate(xs), *found)

    def _first_site(
        self, starts: Starts, begin: Begun, keys: Array, most: int
    ) -> tuple[DecodeState, list[Cache]]:
        """Candidates up to the second letter."""
        n = len(begin)
        padding = np.zeros(_size(n, most) - n, int)
        rows = np.concatenate([np.arange(n), padding])
        constraints, places = starts.constraints(begin[rows])
        group = (begin.group[rows] + 1).astype(np.int32)
        state = self.decoder.start(keys[rows], group, constraints, places)
        caches = self.decoder.empty_caches(len(rows), _lengths(self.decoder)[0])
        state, caches = self.decoder.letters(state, caches, 0)
        state, caches = self.decoder.sites(state, caches, 0)
        return self.decoder.letters(state, caches, 1)

    def _keep(
        self, begin: Begun, found: tuple[TokenRollout, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Candidates that are kept, int [K], and what their log-weights change by."""
        rollout, ahead = (jax.tree.map(lambda x: x[: len(begin)], part) for part in found)
        log_weight = begin.log_weight + rollout.log_weight + ahead
        weight = _relative(log_weight.astype(np.float64), begin.pool, int(begin.pool.max()) + 1)
        kept, change = [], []
        for pool in np.unique(begin.pool):
            mine = np.flatnonzero(begin.pool == pool)
            n = len(mine) if not begin.narrows[mine[0]] else -(-len(mine) // FUNNEL)
            chosen, weights = select(weight[mine], n, self._rng)
            # Where fewer can meet the demand, others stand for them, that do not count.
            rest = np.setdiff1d(np.arange(len(mine)), chosen)[: n - len(chosen)]
            kept += [mine[chosen], mine[rest]]
            change += [np.log(weights / weight[mine[chosen]]), np.full(len(rest), -np.inf)]
        return np.concatenate(kept), np.concatenate(change).astype(np.float32)

    def _choose(self, starts: Starts, targets: list[_Target]) -> TokenRollout:
        """Samples of T targets, target by target."""
        pool = _Pool(targets, self._sampling.max_candidates)
        open_targets = np.arange(len(targets))
        while len(open_targets):
            target, option, begun = pool.propose(open_targets, self._rng)
            kept, found = self.draw(starts, begun)
            pool.add(target[kept], option[kept], found)
            open_targets = pool.lacking(open_targets)
        return pool.select(self._rng)


class _Pool:
    """Weighted candidates of T targets, M in all.

    Args:
      most: candidates for each sample that is wanted, at most.
    """

    def __init__(self, targets: list[_Target], most: int) -> None:
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
        """Targets and starts of new candidates, `FUNNEL` for each that will be finished."""
        sizes, options, pools, n_pools = [], [], [], 0
        for t in open_targets:
            target, proposal = self._targets[t], self._proposals[t]
            size = target.first_round
            if self._count[t]:
                size = self._count[t] if target.wanted < FEW else target.wanted
            size = min(size, self._most * target.wanted - self._count[t])
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
        """Candidates that were proposed; all are weighed anew."""
        self._rounds.append(found)
        self._target = np.concatenate([self._target, target])
        self._option = np.concatenate([self._option, option])
        log_weight = np.concatenate([np.asarray(r.log_weight, np.float64) for r in self._rounds])
        at = self._target, self._option
        log_weight += _of_options(*at, [t.start.prior for t in self._targets])
        log_weight -= np.log(_of_options(*at, self._expected))
        self._weight = _relative(log_weight, self._target, len(self._targets))

    def lacking(self, open_targets: np.ndarray) -> np.ndarray:
        """Those of some targets that need more candidates; proposals for these are improved."""
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
        """The samples of each target, with the weights that are left."""
        rows, log_weights = [], []
        by_target = np.argsort(self._target, kind="stable")
        ends = np.cumsum(self._count)
        for target, start, end in zip(self._targets, ends - self._count, ends, strict=True):
            mine = by_target[start:end]
            kept, weights = select(self._weight[mine], target.wanted, rng)
            rest = np.setdiff1d(np.arange(len(mine)), kept)[: target.wanted - len(kept)]
            rows.append(mine[np.concatenate([kept, rest]).astype(int)])
            log_weights += [
                np.log(weights / weights.mean() if len(kept) else weights),
                np.full(len(rest), -np.inf),
            ]
        candidates = jax.tree.map(lambda *xs: np.concatenate(xs), *self._rounds)
        chosen: TokenRollout = candidates[np.concatenate(rows)]
        return replace(chosen, log_weight=np.concatenate(log_weights).astype(np.float32))


def _draw(priors: np.ndarray, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int [N]: a column for each sample by row `which` [N] of probabilities [D, n].

    As `Generator.choice` draws from one row.
    """
    cumulative = np.cumsum(priors, axis=1)
    cumulative /= cumulative[:, -1:]
    uniform = rng.random(len(which))
    drawn = np.zeros(len(which), int)
    for row in np.unique(which):
        mine = which == row
        drawn[mine] = np.searchsorted(cumulative[row], uniform[mine], side="right")
    return drawn


def _of_options(target: np.ndarray, option: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
    """[M]: values of the options of each target that candidates were drawn from."""
    sizes = np.array([len(x) for x in values])
    return np.concatenate(values)[(np.cumsum(sizes) - sizes)[target] + option]


def _enough(weight: np.ndarray, wanted: int) -> bool:
    """Candidates of these weights are enough to choose samples from."""
    if wanted < FEW:
        return effective_size(weight) >= FEW_FACTOR * wanted
    return effective_size(kept_weights(weight, wanted)) >= ENOUGH * wanted


def _relative(log_weight: np.ndarray, target: np.ndarray, n_targets: int) -> np.ndarray:
    """float64 [M]: weights, the largest of each target 1; 0 where none of a target's is any."""
    largest = np.full(n_targets, -np.inf)
    np.maximum.at(largest, target, log_weight)
    return np.exp(log_weight - np.where(np.isfinite(largest), largest, 0)[target])


def _better_proposal(
    start: Start, expected: np.ndarray, option: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """float64 [M]: probabilities of the starts of further candidates.

    In proportion to the proposal times the root mean square of the weight as it was found (the
    allocation of least variance), known the better the more candidates a start had.
    """
    proposal = start.proposal
    square = (weight * expected[option] / proposal[option]) ** 2
    if not square.any():
        return proposal
    n_starts = len(proposal)
    total, n = np.bincount(option, square, n_starts), np.bincount(option, minlength=n_starts)
    found = proposal * np.sqrt((total + square.mean()) / (n + 1))
    return EXPLORE * proposal + (1 - EXPLORE) * found / found.sum()


def _put(at: np.ndarray, into: np.ndarray, values: np.ndarray) -> None:
    into[at] = values


def _decode(
    decoder: Decoder, keys: Array, groups: np.ndarray, constraints: Constraints, batch_size: int
) -> Iterator[tuple[np.ndarray, TokenRollout]]:
    """Decode N samples together; yields some of them, finished, at a time, with their rows."""
    rows = np.arange(len(groups))
    size = _size(len(rows), batch_size)
    padded = np.concatenate([rows, np.zeros(size - len(rows), int)])
    state = decoder.start(keys[padded], groups[padded], constraints[padded], None)
    caches = decoder.empty_caches(size, _lengths(decoder)[0])
    state, caches = decoder.letters(state, caches, 0)
    return _finish(decoder, state, caches, len(rows), 0)


def _finish(
    decoder: Decoder, state: DecodeState, caches: list[Cache], n: int, site: int
) -> Iterator[tuple[np.ndarray, TokenRollout]]:
    """The first n sequences of a batch from their `site`-th letter on; yields as `_decode`."""
    rows, size = np.arange(n), len(state.key)
    lengths = [length for length in _lengths(decoder) if length >= caches[0].key.shape[2]]
    while True:
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
        site += 1
        state, caches = decoder.letters(state, caches, site)


def _lengths(decoder: Decoder) -> list[int]:
    """Tokens that caches have room for, as they grow."""
    most = decoder.config.max_sites
    return [_length(n) for n in (*CACHE_SITES, most) if n <= most]


def _length(sites: int) -> int:
    """Tokens of so many sites and of the end."""
    return sites * TOKENS_PER_SITE + 1


def _size(n: int, largest: int) -> int:
    """The smallest batch size, in steps of `SHRINK` down from `largest`, that holds n samples."""
    size = largest
    while size // SHRINK >= max(n, SMALLEST_BATCH):
        size //= SHRINK
    return size
