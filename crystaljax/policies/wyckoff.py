"""The Wyckoff transformer as a policy of crystals."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from crystaljax.checkpoints import Metadata, load_metadata, load_weights, save_weights
from crystaljax.conditions import Condition, unmet
from crystaljax.crystal import Array, Crystals
from crystaljax.models.wyckoff.demands import TrainingCounts, make_demands, with_groups
from crystaljax.models.wyckoff.formula_groups import FormulaGroups
from crystaljax.models.wyckoff.likelihood import LogProb, log_prob
from crystaljax.models.wyckoff.rollout import TokenRollout
from crystaljax.models.wyckoff.sampler import Sampler
from crystaljax.models.wyckoff.transformer import ModelConfig, WyckoffTransformer
from crystaljax.parallel import make_mesh, parts_sharding, replicated
from crystaljax.policies.base import Rollout, SamplingConfig, Typical
from crystaljax.symmetry.tables import N_GROUPS
from crystaljax.tokenizations.packing import PackedTokens, RowPlan, Rows, pack, pad_rows, plan_rows
from crystaljax.tokenizations.wyckoff import WyckoffTokenization, WyckoffTokens
from crystaljax.training.batches import N_PLANNED, even, fixed_batches, place

log = logging.getLogger(__name__)

Params = Any
Packed = tuple[PackedTokens, ...]

SPARE = 1.2
"""Crystals that rows are planned for, over those of a batch: compiling again takes a minute."""

SCORED = 256
"""Crystals that are scored at a time, at most."""


class Sequences(NamedTuple):
    """N sequences of a rollout."""

    tokens: WyckoffTokens
    """[N]"""
    repeat: int
    """Samples in a row of the same prompt."""


class WyckoffPolicy:
    """p(crystal | space group) by a Wyckoff transformer; parameters are passed in.

    A `policies.base.Policy`. Under conditions that the network is not told of, samples are of its
    own distribution given that the conditions are met (see `models.wyckoff.sampler`), while
    log-probabilities stay those of the network: they lack the ln of the probability Z that the
    conditions are met. PPO's ratios leave out how Z changes in the inner steps; the term with the
    gradient of ln Z vanishes as advantages average to zero.

    Args:
      config: size of the network.
      space_group_counts: int [230], how often each group is to be prompted for (relative).
      element_counts: int [119], crystals of the training data with each element: those that it
        lacks are sampled only where they are asked for. All are if this is not known.
      formula_groups: space groups of the training crystals by reduced formula. With it the space
        group of a crystal whose formula is asked is drawn by p(space group | formula)
        (`models.wyckoff.formula_groups`), and the crystal from those of that group. Without it
        both are as the network and the space groups of the training data have them.
    """

    tokenization = "wyckoff"
    frozen = ()

    def __init__(
        self,
        config: ModelConfig,
        space_group_counts: Sequence[int] | np.ndarray,
        element_counts: Sequence[int] | np.ndarray | None = None,
        formula_groups: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.config = config
        self.space_group_counts = np.asarray(space_group_counts)
        self.element_counts = None if element_counts is None else np.asarray(element_counts)
        self.formula_groups = formula_groups
        self.codec = WyckoffTokenization(config.max_sites)
        model = nnx.eval_shape(lambda: WyckoffTransformer(config, nnx.Rngs(0)))
        self.graph, self.param_shapes = nnx.split(model)
        self._score = jax.jit(self.packed_log_prob, static_argnums=2)
        self._plans: dict[tuple[int, int, Typical], RowPlan] = {}

    @cached_property
    def mesh(self) -> Mesh:
        """All devices."""
        return make_mesh()

    @property
    def max_sites(self) -> int:
        """Sites of a crystal at most."""
        return self.config.max_sites

    @property
    def metadata(self) -> Metadata:
        """The content of a checkpoint beside the weights."""
        elements, groups = self.element_counts, self.formula_groups
        return Metadata(
            self.config,
            self.tokenization,
            [int(n) for n in self.space_group_counts],
            None if elements is None else [int(n) for n in elements],
            None if groups is None else {name: list(x) for name, x in groups.items()},
        )

    @cached_property
    def training(self) -> TrainingCounts:
        """Statistics of the training data that samples follow."""
        groups = self.formula_groups
        given = None if groups is None else FormulaGroups(groups, self.space_group_counts)
        return TrainingCounts(self.space_group_counts, self.element_counts, given)

    @property
    def identity(self) -> dict[str, Any]:
        """Network, tokenization and what is known of the training data."""
        described = dataclasses.asdict(self.metadata)
        del described["formula_groups"]  # changes nothing that is trained
        return described.pop("model") | described

    def init(self, seed: int) -> Params:
        """Random parameters."""
        return nnx.state(WyckoffTransformer(self.config, nnx.Rngs(seed)), nnx.Param)

    def model(self, params: Params) -> WyckoffTransformer:
        """The network with these parameters."""
        return nnx.merge(self.graph, params)

    def check(self, conditions: Sequence[Condition], sampling: SamplingConfig) -> None:
        """ValueError naming a condition that cannot be asked or met, and what of it."""
        _check_sampling(sampling)
        kinds, known = list(dict.fromkeys(conditions)), (self.max_sites, self.training)
        make_demands(with_groups(kinds, *known, np.random.default_rng(0)), *known)

    def sample(
        self,
        params: Params,
        conditions: Sequence[Condition],
        seed: int,
        sampling: SamplingConfig | None = None,
        repeat: int = 1,
    ) -> Rollout:
        """`repeat` crystals in a row, of one space group, for each condition.

        Space groups that a condition leaves open are drawn as often as in the training data, those
        of formulas as often as of like formulas there, if that is known.
        """
        sampling = sampling or SamplingConfig()
        _check_sampling(sampling)
        sampler = self._sampler(params, seed, sampling)
        drawn = sampler.sample(conditions, repeat)
        if sampler.dead_ends:
            log.info("%d candidates came to a dead end of their condition", sampler.dead_ends)
        decoded = self.codec.decode(drawn.tokens)
        asked = tuple(x for x in conditions for _ in range(repeat))
        missed = unmet(decoded.crystals, asked)
        reasons = [a or b for a, b in zip(decoded.reasons, missed, strict=True)]
        logp, logp_model, log_weight = (
            np.asarray(x, np.float64) for x in (drawn.logp, drawn.logp_model, drawn.log_weight)
        )
        return Rollout(
            sequences=Sequences(drawn.tokens, repeat),
            conditions=asked,
            crystals=decoded.crystals,
            ok=decoded.ok,
            met=np.array([reason is None for reason in reasons], bool),
            reasons=reasons,
            logp=logp,
            logp_model=logp_model,
            log_weight=log_weight,
            prompt=_prompts(asked, drawn.tokens.space_group),
            dead_ends=sampler.dead_ends,
        )

    def draw(
        self,
        params: Params,
        conditions: Sequence[Condition],
        seed: int,
        sampling: SamplingConfig,
        repeat: int,
    ) -> TokenRollout:
        """The sequences of `sample`, before they are decoded, with their log-probabilities.

        ValueError, before anything is sampled, for a condition that cannot be asked or met.
        """
        return self._sampler(params, seed, sampling).sample(conditions, repeat)

    def _sampler(self, params: Params, seed: int, sampling: SamplingConfig) -> Sampler:
        return Sampler(self.graph, params, seed, sampling, self.training)

    def encode(self, crystals: Crystals, conditions: Sequence[Condition] | None = None) -> Rollout:
        """Crystals as if they had been sampled; without conditions of their own space groups.

        ValueError naming the first crystal that cannot be written.
        """
        batch = crystals.to_numpy()
        too_large = np.flatnonzero(np.asarray(batch.n_sites) > self.max_sites)
        if len(too_large):
            first = int(too_large[0])
            raise ValueError(
                f"crystal {first} has {batch.n_sites[first]} sites, and the model takes"
                f" {self.max_sites} at most"
            )
        tokens = self.codec.encode(batch)
        decoded = self.codec.decode(tokens)
        for row, reason in enumerate(decoded.reasons):
            if reason is not None:
                raise ValueError(f"crystal {row} cannot be written: {reason}")
        if conditions is None:
            asked = tuple(Condition(space_group=int(group)) for group in batch.space_group)
        else:
            asked = tuple(conditions)
        reasons = unmet(batch, asked)
        unknown = np.full(len(batch), np.nan)
        return Rollout(
            sequences=Sequences(tokens, 1),
            conditions=asked,
            crystals=batch,
            ok=decoded.ok,
            met=np.array([reason is None for reason in reasons], bool),
            reasons=reasons,
            logp=unknown,
            logp_model=unknown,
            log_weight=np.zeros(len(batch)),
            prompt=_prompts(asked, tokens.space_group),
        )

    def log_prob(self, params: Params, rollout: Rollout) -> np.ndarray:
        """float64 [N]: ln p of each crystal under the network, given its space group."""
        return np.asarray(self.log_prob_parts(params, rollout.sequences.tokens).total, np.float64)

    def log_prob_parts(
        self, params: Params, tokens: WyckoffTokens, batch_size: int = SCORED
    ) -> LogProb:
        """Log-probabilities (numpy [N] by part) of any number of sequences, in batches."""
        batch_size = min(batch_size, 1 << max(len(tokens) - 1, 0).bit_length())
        batches = fixed_batches(tokens, batch_size, _own_plan(tokens, batch_size))

        def of_batch(packed: Packed, n: int) -> Any:
            found = self._score(params, place(packed, self.mesh), batch_size)
            return jax.tree.map(lambda x: np.asarray(x)[:n], found)

        parts = [of_batch(packed, len(rows)) for packed, rows in batches]
        return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)

    def packed_log_prob(
        self, params: Params, packed: Packed, n_crystals: int, key: Array | None = None
    ) -> LogProb:
        """log p of B = `n_crystals` packed crystals by part; a key switches dropout on."""
        return log_prob(self.model(params), packed, n_crystals, key)

    def place(self, tree: Any) -> Any:
        """A copy on every device."""
        return jax.device_put(tree, replicated(self.mesh))

    def parts(
        self, rollout: Rollout, rows: np.ndarray, n_parts: int = 1, typical: Typical | None = None
    ) -> Packed:
        """Micro-batches of packed rows, of one shape."""
        tokens, repeat = rollout.sequences
        micro = rows.reshape(n_parts, -1)
        size = micro.shape[1]
        if typical is None:
            plan = _own_plan(tokens[rows], size)
        else:
            key = size, repeat, typical
            if key not in self._plans:
                like = typical(len(rows)).sequences.tokens
                self._plans[key] = _plan(np.asarray(like.n_sites), size, repeat, self.max_sites)
            plan = self._plans[key]
        packed = [even(pack(tokens[part], plan), self.mesh) for part in micro]
        longest = [max(len(x.crystal) for x in same) for same in zip(*packed, strict=True)]
        packed = [tuple(map(pad_rows, blocks, longest)) for blocks in packed]
        stacked = jax.tree.map(lambda *xs: np.stack(xs), *packed)
        return jax.device_put(stacked, parts_sharding(self.mesh))

    def log_probs(
        self, params: Params, frozen: Any, part: Packed, n_samples: int
    ) -> tuple[Array, Array]:
        """Log-probabilities of whole crystals [n, 1]: each is one action."""
        del frozen
        logp = self.packed_log_prob(params, part, n_samples).total[:, None]
        return logp, jnp.ones(logp.shape, bool)

    def save(self, folder: str | Path, params: Params) -> None:
        """Write a model folder, which `policies.loading.load_policy` reads."""
        save_weights(folder, params, self.metadata)


def load_wyckoff(folder: str | Path) -> tuple[WyckoffPolicy, Params]:
    """A policy and its parameters from the folder of a released Wyckoff transformer.

    Errors: see `checkpoints.load_metadata` and `load_weights`.
    """
    metadata = load_metadata(folder)
    if metadata.element_counts is None:
        log.warning(
            "%s does not say which elements it was trained on: samples may have any", folder
        )
    policy = WyckoffPolicy(
        metadata.model,
        metadata.space_group_counts,
        metadata.element_counts,
        metadata.formula_groups,
    )
    return policy, load_weights(folder, policy.param_shapes)


def _check_sampling(sampling: SamplingConfig) -> None:
    """ValueError for settings that are of language models."""
    if sampling.grammar or sampling.max_new_tokens:
        raise ValueError(
            "a grammar and a number of new tokens are for language models: the Wyckoff"
            " transformer follows the rules of its sequence anyway, leave them out"
        )


def _prompts(conditions: Sequence[Condition], group: np.ndarray) -> np.ndarray:
    """int [N]: a number for each condition and space group, rising with the group."""
    numbers = {condition: i for i, condition in enumerate(dict.fromkeys(conditions))}
    which = np.array([numbers[condition] for condition in conditions], int)
    return which * (N_GROUPS + 1) + np.asarray(group)


def _plan(n_sites: np.ndarray, batch_size: int, repeat: int, max_sites: int) -> RowPlan:
    """Rows that batches of crystals fit whose numbers of sites are like those given, int [n].

    There is room to spare for the larger crystals that training may move the policy to. Samples
    of one space group, `repeat` in a row, are alike in size: batches of them differ the more.
    """
    rng = np.random.default_rng(0)
    n_drawn = round(SPARE * -(-batch_size // repeat))
    likely = [np.repeat(rng.choice(n_sites, n_drawn), repeat) for _ in range(N_PLANNED)]
    return plan_rows(likely, max_sites)


def _own_plan(tokens: WyckoffTokens, batch_size: int) -> RowPlan:
    """Rows for the batches of just these sequences, of rounded sizes: few shapes serve all."""
    n_sites = np.asarray(tokens.n_sites)
    batches = [n_sites[i : i + batch_size] for i in range(0, len(n_sites), batch_size)]
    widest = tokens.wyckoff.shape[1]
    return tuple(
        Rows(_rounded(rows.n_rows), min(_rounded(rows.sites), widest), _rounded(rows.crystals))
        for rows in plan_rows(batches, widest)
    )


def _rounded(n: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16 ... that is no less than n."""
    power = 1 << max(n - 1, 0).bit_length()
    return power * 3 // 4 if power >= 4 and n <= power * 3 // 4 else power
