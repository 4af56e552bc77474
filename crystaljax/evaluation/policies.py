"""Evaluation of a policy: samples are drawn, given energies, judged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from crystaljax.composition import element_counts
from crystaljax.conditions import Condition, chosen
from crystaljax.crystal import Crystals
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.evaluation.matching import StructureSet, clusters, novel_mask
from crystaljax.evaluation.rates import Measure, Rate
from crystaljax.evaluation.stability import (
    EnergiesAboveHull,
    Thresholds,
    found_space_group,
    stability_metrics,
)
from crystaljax.policies.base import Params, Policy, Rollout, SamplingConfig
from crystaljax.progress import tracked, working
from crystaljax.rewards.cell_energies import relaxation_of
from crystaljax.rewards.ehull import relaxation_state
from crystaljax.rewards.stability import StabilityReward
from crystaljax.training.rollouts import judge

GROUP_RATES = (
    *("S.U.N.", "metastable S.U.N.", "space group met", "S.S.U.N."),
    *("believable metastable S.U.N.", "believable S.S.U.N."),
)
"""Rates that are told of single space groups."""


@dataclass(frozen=True)
class Assessment:
    """N samples of a policy and what was found."""

    crystals: Crystals
    """[N], zero where a sequence is no crystal."""
    e_above_hull: np.ndarray
    """float64 [N]: eV/atom, as sampled or relaxed (`StabilityConfig.relax_steps`); nan where
    unknown."""
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
    """Draw n fresh samples under conditions, which they take in turn, and evaluate them.

    `energy` is that of the reward; `other` is by another potential, whose verdict the
    evaluation then has as well: a model should not be marked by its own teacher alone.
    """
    with working(f"sampling {n} crystals"):
        rollout = policy.sample(params, chosen(conditions, n, seed), seed, sampling)
    found = assess_crystals(rollout.crystals, energy, reference, other=other, config=config)
    evaluation = with_as_asked(found.evaluation, rollout)
    columns = {**evaluation.columns, "log_prob": np.asarray(rollout.logp_model, np.float64)}
    return replace(found, evaluation=replace(evaluation, columns=columns))


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
    """Evaluate N samples; rows that are all zero are no crystals."""
    ok = np.asarray(crystals.n_sites) > 0
    by_teacher = _judged(energy, crystals, ok)
    evaluation = evaluate(
        crystals,
        reference,
        e_above_hull=by_teacher.e_above_hull,
        hull=by_teacher.hull,
        n_known=by_teacher.n_known,
        second=None if other is None else _judged(other, crystals, ok),
        relaxed=by_teacher.relaxed,
        relaxation=by_teacher.hull,
        config=config,
    )
    return Assessment(crystals, by_teacher.e_above_hull, evaluation)


class Drawn(NamedTuple):
    """Samples of a policy, and what they took."""

    crystals: Crystals
    """[n]: all attempts."""
    reasons: Counter[str]
    """Reasons for which some are no crystals."""
    seconds: float
    """A sample; compilation does not count."""
    cpu_seconds: float
    """A sample, of all processors."""
    rollouts: Sequence[Rollout]
    """The samples with their sequences, in order."""


def draw(
    policy: Policy,
    params: Params,
    sampling: SamplingConfig,
    n: int,
    seed: int,
    condition: Condition | None = None,
) -> Drawn:
    """n samples under a condition, of which the second half tells the speed: the first compiles."""
    asked = condition or Condition()
    sizes = [n - n // 2, n // 2] if n > 1 else [n]
    rollouts, seconds, cpu = [], 0.0, 0.0
    for part, size in enumerate(sizes):
        start, cpu_start = time.perf_counter(), time.process_time()
        drawn_seed = int(np.random.SeedSequence([seed, 4, part]).generate_state(1)[0] >> 1)
        rollouts.append(policy.sample(params, [asked] * size, drawn_seed, sampling))
        seconds = (time.perf_counter() - start) / size
        cpu = (time.process_time() - cpu_start) / size
    n_slots = max(rollout.crystals.n_slots for rollout in rollouts)
    crystals = jax.tree.map(
        lambda *xs: np.concatenate(xs),
        *(rollout.crystals.to_numpy().with_slots(n_slots) for rollout in rollouts),
    )
    reasons = Counter(reason for rollout in rollouts for reason in rollout.reasons if reason)
    return Drawn(crystals, reasons, seconds, cpu, rollouts)


def kl_from(policy: Policy, base: Params, drawn: Drawn) -> Measure:
    """Kullback–Leibler divergence of a model from a base, by samples of the model.

    The mean over samples of ln p under the model less ln p under the base, given the prompts. It
    estimates the divergence if the samples were drawn at temperature 1 and without top-p.
    """
    ratios = [x.logp_model - policy.log_prob(base, x) for x in drawn.rollouts]
    about = "ln p of samples under the model less ln p under the base model"
    return Measure.mean("KL", np.concatenate(ratios), "nats", about)


def _judged(energy: StabilityReward, crystals: Crystals, ok: np.ndarray) -> EnergiesAboveHull:
    with working(f"energies of {ok.sum()} crystals by {energy.potential}"):
        found = judge(energy, crystals, ok)
    above: Any = found.info.get("e_above_hull", np.full(len(found), np.nan))
    above = np.where(found.ok, above, np.nan)
    n_known = energy.hull.n_known(element_counts(crystals))
    steps = energy.config.relax_steps
    relaxed = relaxation_of(found) if steps else None
    hull = f"{energy.label}, {relaxation_state(relaxed, steps)}"
    return EnergiesAboveHull(above, hull, energy.potential, n_known, relaxed)


def in_space_groups(condition: Condition, groups: Sequence[int]) -> list[Condition]:
    """The condition with each of some space groups in place of its own."""
    return [replace(condition, space_group=int(group)) for group in groups]


def by_space_group(
    policy: Policy,
    params: Params,
    energy: StabilityReward,
    reference: StructureSet,
    *,
    groups: Sequence[int],
    n: int,
    seed: int,
    condition: Condition | None = None,
    sampling: SamplingConfig | None = None,
    thresholds: Thresholds | None = None,
) -> dict[str, list[Rate]]:
    """Rates of n fresh samples in each of some space groups: {name: [rate of each group]}.

    `condition` is what samples are asked to be beside that, see `in_space_groups`.

    S.U.N. and metastable S.U.N., for which samples said to be of another space group count as
    failed; the share that has the space group asked for, as found of the full cell; and S.S.U.N.,
    metastable S.U.N. of those; the last two with believable energies alone, too.
    """
    asked = in_space_groups(condition or Condition(), groups)
    with working(f"sampling {n} crystals of each of {len(asked)} space groups"):
        rollout = policy.sample(params, asked, seed, sampling, repeat=n)
    judged = _judged(energy, rollout.crystals, rollout.met)
    assert judged.n_known is not None
    found = found_space_group(rollout.crystals)
    rates: dict[str, list[Rate]] = {name: [] for name in GROUP_RATES}
    right = "the full cell has the space group asked for (symprec 0.01 Å)"
    for group, first in zip(groups, tracked(range(0, len(rollout), n), "by group"), strict=True):
        rows = np.arange(first, first + n)
        samples = StructureSet.from_crystals(rollout.crystals[rows], "samples")
        correct = (found[rows] == group) & rollout.met[rows]
        metrics = stability_metrics(
            judged.e_above_hull[rows],
            judged.hull,
            cluster=clusters(samples),
            novel=novel_mask(samples, reference) & rollout.met[rows],
            correct_group=correct,
            n_known=judged.n_known[rows],
            reference=reference.name,
            thresholds=thresholds,
        )
        for metric in [*metrics, Rate.of("space group met", correct, right)]:
            if isinstance(metric, Rate) and metric.name in rates:
                rates[metric.name].append(metric)
    return rates
