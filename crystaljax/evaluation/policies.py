"""Evaluation of a policy: samples are drawn, given energies, judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crystaljax.composition import element_counts
from crystaljax.conditions import Condition, chosen
from crystaljax.crystal import Crystals
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.evaluation.matching import StructureSet, clusters, novel_mask, once
from crystaljax.evaluation.rates import Rate
from crystaljax.evaluation.stability import EnergiesAboveHull, Thresholds
from crystaljax.policies.base import Params, Policy, Rollout, SamplingConfig
from crystaljax.rewards.stability import StabilityReward
from crystaljax.training.progress import tracked, working
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
    policy: Policy,
    params: Params,
    energy: StabilityReward,
    reference: Reference,
    *,
    n: int,
    seed: int,
    conditions: Sequence[Condition] = (Condition(),),
    other: StabilityReward | None = None,
    sampling: SamplingConfig | None = None,
    config: EvaluationConfig | None = None,
) -> Assessment:
    """Draw n fresh samples under conditions, which they take in turn, and evaluate them, unrelaxed.

    `energy` is that of the reward; `other` is by another potential, whose verdict the
    evaluation then has as well: a model should not be marked by its own teacher alone.
    """
    with working(f"sampling {n} crystals"):
        rollout = policy.sample(params, chosen(conditions, n, seed), seed, sampling)
    found = assess_crystals(rollout.crystals, energy, reference, other=other, config=config)
    return replace(found, evaluation=with_as_asked(found.evaluation, rollout))


def with_as_asked(evaluation: Evaluation, rollout: Rollout) -> Evaluation:
    """The evaluation of a rollout, with the share that is as asked if anything was asked."""
    if not any(condition.asked for condition in rollout.conditions):
        return evaluation
    good = rollout.met & evaluation.columns["valid_structure"]
    description = "a valid structure that is what it was asked to be, such as of that composition"
    rate = Rate.of("as asked", good, description)
    columns = {**evaluation.columns, "as_asked": good}
    return replace(evaluation, metrics=(rate, *evaluation.metrics), columns=columns)


def assess_crystals(
    crystals: Crystals,
    energy: StabilityReward,
    reference: Reference,
    *,
    other: StabilityReward | None = None,
    config: EvaluationConfig | None = None,
) -> Assessment:
    """Evaluate N samples, unrelaxed; rows that are all zero are no crystals."""
    ok = np.asarray(crystals.n_sites) > 0
    by_teacher = _judged(energy, crystals, ok)
    evaluation = evaluate(
        crystals,
        reference,
        e_above_hull=by_teacher.e_above_hull,
        hull=by_teacher.hull,
        n_known=by_teacher.n_known,
        second=None if other is None else _judged(other, crystals, ok),
        config=config,
    )
    return Assessment(crystals, by_teacher.e_above_hull, evaluation)


def _judged(energy: StabilityReward, crystals: Crystals, ok: np.ndarray) -> EnergiesAboveHull:
    with working(f"energies of {ok.sum()} crystals by {energy.potential}"):
        found = judge(energy, crystals, ok)
    above: Any = found.info.get("e_above_hull", np.full(len(found), np.nan))
    above = np.where(found.ok, above, np.nan)
    n_known = energy.hull.n_known(element_counts(crystals))
    return EnergiesAboveHull(above, f"{energy.label}, unrelaxed", energy.potential, n_known)


def by_space_group(
    policy: Policy,
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
    """S.U.N. and metastable S.U.N. of n fresh samples in each of some space groups, by name.

    Samples of another space group than asked for count as failed.
    """
    limits = thresholds or Thresholds()
    asked = [Condition(space_group=int(group)) for group in groups]
    with working(f"sampling {n} crystals of each of {len(asked)} space groups"):
        rollout = policy.sample(params, asked, seed, sampling, repeat=n)
    above = _judged(energy, rollout.crystals, rollout.met).e_above_hull
    rates: dict[str, list[Rate]] = {"S.U.N.": [], "metastable S.U.N.": []}
    for first in tracked(range(0, len(rollout), n), "S.U.N. by space group"):
        rows = np.arange(first, first + n)
        samples = StructureSet.from_crystals(rollout.crystals[rows], "samples")
        cluster, novel = clusters(samples), novel_mask(samples, reference) & rollout.met[rows]
        for (name, found), limit in zip(
            rates.items(), (limits.stable, limits.metastable), strict=True
        ):
            text = f"energy above hull ≤ {limit:g} eV/atom, unique and novel"
            with np.errstate(invalid="ignore"):
                good = once(novel & (above[rows] <= limit), cluster)
            found.append(Rate.of(name, good, text))
    return rates
