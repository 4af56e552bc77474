"""Sampling of a Wyckoff transformer: the loop over sites, and the selection among candidates.

Under demands (elements, template, formula) sequences are drawn with masks and a look-ahead. This is
not the model's distribution of crystals that meet the demands. So candidates are drawn in rounds,
with importance weights, until samples with nearly equal weights can be selected from them. The
candidates of all demands of a call, and of all their space groups and formula units, are drawn
together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.conditions import Condition
from crystaljax.crystal import Array
from crystaljax.models.wyckoff.candidates import FUNNEL, POOL, Pool, Target, narrow
from crystaljax.models.wyckoff.constraints import Constraints
from crystaljax.models.wyckoff.decoder import Decoder, DecodeState, Graph
from crystaljax.models.wyckoff.decoder_batches import gather, grow, take
from crystaljax.models.wyckoff.demands import TrainingCounts, make_demands, with_groups
from crystaljax.models.wyckoff.lookahead import Begun, Starts
from crystaljax.models.wyckoff.rollout import TokenRollout
from crystaljax.models.wyckoff.token_sampling import Tempering
from crystaljax.models.wyckoff.transformer import Cache
from crystaljax.tokenizations.wyckoff import TOKENS_PER_SITE

if TYPE_CHECKING:
    from crystaljax.policies.base import SamplingConfig

SHRINK = 4
"""A batch is made smaller when this fraction of it, or less, has not ended."""

SMALLEST_BATCH = 16
"""Batches are not made smaller than this."""

ANY = -1
"""Row of group tables that stands for any space group."""

CACHE_SITES = (2, 4, 7, 12)
"""Cache lengths, in sites, before the longest: attention reads no more of it than needed."""


class Sampler:
    """Draws batches of sequences; sample i of a seed depends on the seed, i and the conditions.

    Args:
      graph, params: the network, as `nnx.split` gives it.
      seed, sampling: how to sample.
      training: statistics of the training data.
    """

    def __init__(
        self,
        graph: Graph,
        params: Any,
        seed: int,
        sampling: SamplingConfig,
        training: TrainingCounts,
    ) -> None:
        top_p = jnp.float32(sampling.top_p) if sampling.top_p < 1 else None
        self.decoder = Decoder(graph, params, Tempering(jnp.float32(sampling.temperature), top_p))
        self._base = jax.random.key(seed)
        self._rng = np.random.default_rng(seed)
        self._sampling = sampling
        self._training = training
        self._drawn = 0
        self.dead_ends = 0
        """Candidates that ended without meeting their demand; others were drawn in their place, as
        far as `max_candidates` allows."""

    def sample(self, conditions: Sequence[Condition], repeat: int = 1) -> TokenRollout:
        """`repeat` consecutive samples, of the same space group, for each condition: [N · repeat].

        Arrays are numpy's. Samples (space group, number of formula units if open, crystal) follow
        the model's distribution given that the condition is met. Space groups of formulas follow
        p(space group | formula) instead, if it is known, and the crystal the model's distribution
        given the group. If too few candidates meet the condition, the other samples are not
        `satisfied`. ValueError naming a condition that is impossible.
        """
        size = self.decoder.config.max_sites
        conditions = with_groups(conditions, size, self._training, self._rng)
        distinct = list(dict.fromkeys(conditions))
        number = {condition: i for i, condition in enumerate(distinct)}
        which = np.array([number[condition] for condition in conditions], int)
        every = make_demands(conditions, size, self._training)
        demands = list(dict(zip(conditions, every, strict=True)).values())
        if not any(demand.binding for demand in demands):
            priors = np.stack([demand.prior for demand in demands])
            group = _draw(priors, which, self._rng) + 1
            rows = np.repeat(np.arange(len(which)), repeat)
            known = np.stack([demand.known for demand in demands])[which[rows]]
            constraints = Constraints(known, known)
            return self._decode(group[rows].astype(np.int32), constraints)
        starts = Starts(demands, self.decoder)
        first = self._of_groups(starts, which, np.full(len(which), ANY))
        if repeat == 1:
            return first
        # The other samples have the first one's group, which has the right distribution.
        others = self._of_groups(starts, np.repeat(which, repeat - 1), _repeated(first, repeat - 1))
        rows = np.zeros((len(which), repeat), int)
        rows[:, 0] = np.arange(len(which))
        rows[:, 1:] = len(which) + np.arange(len(others)).reshape(len(which), -1)
        both = jax.tree.map(lambda *xs: np.concatenate(xs), first, others)
        return both[rows.ravel()]

    def _of_groups(self, starts: Starts, which: np.ndarray, group: np.ndarray) -> TokenRollout:
        """A sample for each of the demands `which` int [N], in space group `group` int [N].

        Groups are rows of group tables, or `ANY`. Samples of one demand and group are selected from
        the same candidates.
        """
        pairs = np.stack([which, group], axis=1)
        unique, pair = np.unique(pairs, axis=0, return_inverse=True)
        targets = []
        for (i, at), n in zip(unique.tolist(), np.bincount(pair.ravel()).tolist(), strict=True):
            start = starts.starts[i] if at == ANY else starts.starts[i].of_group(at)
            targets.append(Target(i, start, n, starts.demands[i].binding))
        found = self._choose(starts, targets)
        # Sorted by target; restore the original order.
        return found[np.argsort(np.argsort(pair.ravel(), kind="stable"), kind="stable")]

    def _decode(self, groups: np.ndarray, constraints: Constraints) -> TokenRollout:
        """A new sample for each of N space groups, int32 [N], without demands."""
        result = TokenRollout.empty(groups, self.decoder.config.max_sites)
        size = self._sampling.batch_size
        for first in range(0, len(groups), size):
            rows = np.arange(first, min(first + size, len(groups)))
            padded = np.append(rows, np.zeros(_size(len(rows), size) - len(rows), int))
            state = self.decoder.start(
                self._keys(padded), groups[padded], constraints[padded], None
            )
            for at, found in _decode(self.decoder, state, len(rows)):
                jax.tree.map(partial(_put, rows[at]), result, found)
        self._drawn += len(groups)
        return result

    def _keys(self, rows: np.ndarray) -> Array:
        """Keys of samples, counted from the first that is not drawn yet; compiled by their number,
        so that it should be the size of a batch."""
        return _fold_in(self._base, self._drawn + rows)

    def draw(self, starts: Starts, begun: Begun) -> tuple[np.ndarray, TokenRollout]:
        """Finish one in `FUNNEL` of N candidates; which (int [K]), with their own weights.

        Candidates with larger weights after the second element are more likely to be kept, and the
        weights are corrected for it (rejection control).
        """
        size = self._sampling.batch_size
        most = FUNNEL * max(size, POOL)
        kept: list[np.ndarray] = []
        found: list[TokenRollout] = []
        uniform = self._rng.random(int(begun.pool.max()) + 1)
        for rows in starts.chunks(begun, most):
            begin = begun[rows]
            batches = self._begin(starts, begin, rows)
            place = np.divmod(np.arange(len(begin)), size)
            seen = [jax.device_get(x.rollout.log_weight + x.ahead) for x, _ in batches]
            log_weight = np.concatenate(seen)[: len(begin)]
            chosen, log_weight = narrow(begin, log_weight, uniform)
            length = starts.length(begin)[chosen]
            order = np.lexsort((begin.group[chosen], length))
            result = TokenRollout.empty(begin.group[chosen] + 1, self.decoder.config.max_sites)
            for first in range(0, len(chosen), size):
                at = order[first : first + size]
                padding = np.zeros(_size(len(at), size) - len(at), int)
                mine = gather(batches, *(x[chosen[np.append(at, at[padding])]] for x in place))
                for done, part in _finish(self.decoder, *mine, len(at), 1, has_element=True):
                    jax.tree.map(partial(_put, at[done]), result, part)
            kept.append(rows[chosen])
            found.append(replace(result, log_weight=result.log_weight + log_weight))
        self._drawn += len(begun)
        return np.concatenate(kept), jax.tree.map(lambda *xs: np.concatenate(xs), *found)

    def _begin(
        self, starts: Starts, begin: Begun, numbers: np.ndarray
    ) -> list[tuple[DecodeState, list[Cache]]]:
        """Batches of candidates up to the second element; the last batch may have unused rows.

        `numbers` int [N] count the candidates from the first that has not been drawn.
        """
        constraints, places = starts.constraints(begin)
        group = (begin.group + 1).astype(np.int32)
        batches, size = [], self._sampling.batch_size
        for first in range(0, len(begin), size):
            rows = np.arange(first, min(first + size, len(begin)))
            rows = np.resize(rows, _size(len(rows), size))
            keys = self._keys(numbers[rows])
            state = self.decoder.start(keys, group[rows], constraints[rows], places)
            caches = self.decoder.empty_caches(len(rows), _lengths(self.decoder)[0])
            state, caches = self.decoder.letters(state, caches, 0)
            state, caches = self.decoder.coordinates(self.decoder.species(state, 0), caches, 0)
            state, caches = self.decoder.letters(state, caches, 1)
            batches.append((self.decoder.species(state, 1), caches))
        return batches

    def _choose(self, starts: Starts, targets: list[Target]) -> TokenRollout:
        """Samples of T targets, sorted by target."""
        pool = Pool(targets, self._sampling.max_candidates)
        open_targets = np.arange(len(targets))
        while len(open_targets):
            target, option, begun = pool.propose(open_targets, self._rng)
            kept, found = self.draw(starts, begun)
            pool.add(target[kept], option[kept], found)
            self.dead_ends += int((~found.satisfied).sum())
            open_targets = pool.lacking(open_targets)
        return pool.select(self._rng)


_fold_in = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))


def _repeated(rollout: TokenRollout, n: int) -> np.ndarray:
    """int [N n]: rows of group tables of N samples, n times in a row each."""
    return np.repeat(rollout.tokens.space_group - 1, n)


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


def _put(at: np.ndarray, into: np.ndarray, values: np.ndarray) -> None:
    into[at] = values


def _decode(
    decoder: Decoder, state: DecodeState, n: int
) -> Iterator[tuple[np.ndarray, TokenRollout]]:
    """Decode the first n sequences of an empty batch; yields as `_finish`."""
    caches = decoder.empty_caches(len(state.key), _lengths(decoder)[0])
    state, caches = decoder.letters(state, caches, 0)
    return _finish(decoder, state, caches, n, 0)


def _finish(
    decoder: Decoder,
    state: DecodeState,
    caches: list[Cache],
    n: int,
    site: int,
    has_element: bool = False,
) -> Iterator[tuple[np.ndarray, TokenRollout]]:
    """Finish the first n sequences of a batch, whose last token is the letter or element of a site.

    Yields finished sequences in parts, with their rows.
    """
    first = True
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
        if not (first and has_element):
            state = decoder.species(state, site)
        first = False
        state, caches = decoder.coordinates(state, caches, site)
        site += 1
        state, caches = decoder.letters(state, caches, site)


def _lengths(decoder: Decoder) -> list[int]:
    """Lengths of the growing caches, in tokens."""
    most = decoder.config.max_sites
    return [_length(n) for n in (*CACHE_SITES, most) if n <= most]


def _length(sites: int) -> int:
    """Number of tokens of a number of sites and the end."""
    return sites * TOKENS_PER_SITE + 1


def _size(n: int, largest: int) -> int:
    """The smallest batch size, in steps of `SHRINK` down from `largest`, that holds n samples."""
    size = largest
    while size // SHRINK >= max(n, SMALLEST_BATCH):
        size //= SHRINK
    return size
