"""Evaluation of a policy: samples are drawn, decoded, given energies, judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.evaluation.matching import StructureSet, clusters, novel_mask, once
from crystaljax.evaluation.rates import Rate
from crystaljax.evaluation.stability import EnergiesAboveHull, Thresholds
from crystaljax.policies.wyckoff import Params, WyckoffPolicy
from crystaljax.rewards.stability import StabilityReward
from crystaljax.sampling import SamplingConfig
from crystaljax.tokenizations.base import Decoded
from crystaljax.tokenizations.wyckoff import WyckoffTokens
from crystaljax.training.rollouts import judge


@dataclass(frozen=True)
class Assessment:
    """N samples of a policy and what was found."""

    crystals: Crystals
    """[N], zero where a sequence is no crystal."""
    e_above_hull: np.ndarray
    """float64 [N]: eV/atom, as sampled (not relaxed); nan where unknown."""
    evaluation: Evaluation


def assess(
    policy: WyckoffPolicy,
    params: Params,
    energy: StabilityReward,
    reference: Reference,
    *,
    n: int,
    seed: int,
    other: StabilityReward | None = None,
    sampling: SamplingConfig | None = None,
    config: EvaluationConfig | None = None,
) -> Assessment:
    """Draw n fresh samples and evaluate them, unrelaxed.

    `energy` is that of the reward; `other` is by another potential, whose verdict the
    evaluation then has as well: a model should not be marked by its own teacher alone.
    """
    rollout = policy.sample(params, n, seed, sampling)
    return evaluate_tokens(policy, rollout.tokens, energy, reference, other=other, config=config)


def evaluate_tokens(
    policy: WyckoffPolicy,
    tokens: WyckoffTokens,
    energy: StabilityReward,
    reference: Reference,
    *,
    other: StabilityReward | None = None,
    config: EvaluationConfig | None = None,
) -> Assessment:
    """Evaluate N sequences, unrelaxed, as `assess` does its samples."""
    decoded = policy.tokenization.decode(tokens)
    by_teacher = _judged(energy, decoded)
    evaluation = evaluate(
        decoded.crystals,
        reference,
        e_above_hull=by_teacher.e_above_hull,
        hull=by_teacher.hull,
        second=None if other is None else _judged(other, decoded),
        config=config,
    )
    return Assessment(decoded.crystals, by_teacher.e_above_hull, evaluation)


def _judged(energy: StabilityReward, decoded: Decoded) -> EnergiesAboveHull:
    found = judge(energy, decoded.crystals, decoded.ok)
    above: Any = found.info.get("e_above_hull", np.full(len(found), np.nan))
    above = np.where(found.ok, above, np.nan)
    return EnergiesAboveHull(above, f"{energy.label}, unrelaxed", energy.potential)


def by_space_group(
    policy: WyckoffPolicy,
    params: Params,
    energy: StabilityReward,
    reference: StructureSet,
    *,
    groups: Sequence[int],
    n: int,
    seed: int,
    sampling: SamplingConfig | None = None,
    thresholds: Thresholds | None = None,
) -> dict[str, list[Rate]]:
    """S.U.N. and metastable S.U.N. of n fresh samples in each of some space groups, by name."""
    limits = thresholds or Thresholds()
    rates: dict[str, list[Rate]] = {"S.U.N.": [], "metastable S.U.N.": []}
    for group in groups:
        asked = replace(sampling or SamplingConfig(), space_groups=(group,))
        decoded = policy.tokenization.decode(policy.sample(params, n, seed, asked).tokens)
        above = _judged(energy, decoded).e_above_hull
        samples = StructureSet.from_crystals(decoded.crystals, "samples")
        cluster, novel = clusters(samples), novel_mask(samples, reference) & decoded.ok
        for (name, found), limit in zip(
            rates.items(), (limits.stable, limits.metastable), strict=True
        ):
            text = f"energy above hull ≤ {limit:g} eV/atom, unique and novel"
            with np.errstate(invalid="ignore"):
                found.append(Rate.of(name, once(novel & (above <= limit), cluster), text))
    return rates
