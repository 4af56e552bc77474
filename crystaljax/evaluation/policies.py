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
from crystaljax.evaluation.matching import StructureSet, clusters, novel_mask
from crystaljax.evaluation.rates import Rate
from crystaljax.evaluation.stability import EnergiesAboveHull, Thresholds, stability_metrics
from crystaljax.policies.base import Params, Policy, SamplingConfig
from crystaljax.rewards.stability import StabilityReward
from crystaljax.training.progress import tracked, working
from crystaljax.training.rollouts import judge

GROUP_RATES = ("S.U.N.", "metastable S.U.N.", "believable metastable S.U.N.")
"""Rates that are told of single space groups."""


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
    evaluation then has as well: a model should not be marked by its own teacher alone. If anything
    is asked, the share of samples that meet it is among the rates.
    """
    with working(f"sampling {n} crystals"):
        rollout = policy.sample(params, chosen(conditions, n, seed), seed, sampling)
    found = assess_crystals(rollout.crystals, energy, reference, other=other, config=config)
    if not any(condition.asked for condition in conditions):
        return found
    met = Rate.of("condition met", rollout.met, "crystals that are what they were asked to be")
    evaluation = replace(
        found.evaluation,
        metrics=(*found.evaluation.metrics, met),
        columns={**found.evaluation.columns, "condition_met": rollout.met},
    )
    return replace(found, evaluation=evaluation)


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
    """Rates of n fresh samples in each of some space groups, by name: those of `GROUP_RATES`.

    Samples of another space group than asked for count as failed.
    """
    asked = [Condition(space_group=int(group)) for group in groups]
    with working(f"sampling {n} crystals of each of {len(asked)} space groups"):
        rollout = policy.sample(params, asked, seed, sampling, repeat=n)
    judged = _judged(energy, rollout.crystals, rollout.met)
    assert judged.n_known is not None
    rates: dict[str, list[Rate]] = {name: [] for name in GROUP_RATES}
    for first in tracked(range(0, len(rollout), n), "S.U.N. by space group"):
        rows = np.arange(first, first + n)
        samples = StructureSet.from_crystals(rollout.crystals[rows], "samples")
        metrics = stability_metrics(
            judged.e_above_hull[rows],
            judged.hull,
            cluster=clusters(samples),
            novel=novel_mask(samples, reference) & rollout.met[rows],
            n_known=judged.n_known[rows],
            reference=reference.name,
            thresholds=thresholds,
        )
        for metric in metrics:
            if isinstance(metric, Rate) and metric.name in rates:
                rates[metric.name].append(metric)
    return rates
