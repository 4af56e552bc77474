"""Reinforcement learning from interatomic potentials (RLIP) of PLaID++ (arXiv 2509.07150).

Each iteration draws crystals freely and in given space groups, judges them by their energy above
hull, and pairs them by tiers of stability, by novelty and by the space group found (`tiers`). DPO
learns from all pairs together, with the policy that drew them as the reference. The sampling
temperature rises from iteration to iteration. Any policy of crystals can be trained.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from crystaljax.conditions import Condition
from crystaljax.evaluation.stability import Thresholds, found_space_group
from crystaljax.policies.base import Params, Rollout, SamplingConfig
from crystaljax.ranges import FINITE, POSITIVE, at_least, check
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.iteration import (
    IterationConfig,
    Lessons,
    Method,
    iterate,
    likelihood_loss,
)
from crystaljax.training.iteration_files import Iteration
from crystaljax.training.optimizer import OptimizerConfig, fine_tuning
from crystaljax.training.preference import DpoConfig, pair_loss
from crystaljax.training.tasks import RewardedSamples
from crystaljax.training.tiers import (
    METASTABLE,
    STABLE,
    PairConfig,
    distinct_tiers,
    tiered_pairs,
    tiers_of,
)

log = logging.getLogger(__name__)

GROUPS = (1, 15, 38, 119, 143, 194, 216)
"""Space groups of arXiv 2509.07150, one of each crystal system."""

ENERGY = "e_above_hull"
"""Key of the energy in the info of rewards, eV/atom, by which tiers are defined."""


@dataclass(frozen=True)
class RlipConfig(IterationConfig, DpoConfig):
    """A run of RLIP; the defaults are those of arXiv 2509.07150, appendix 7.2."""

    n_iterations: int = 7
    """Iterations. In each one, samples are drawn and judged, and the model is trained on them."""
    epochs: int = 1
    """Passes over the pairs of an iteration."""
    batch_size: int = 16
    """Pairs (or samples, with --learn sft) in an update."""
    optimizer: OptimizerConfig = field(default_factory=lambda: fine_tuning(1e-6))
    """The optimiser. Its state is kept from iteration to iteration."""
    n_unconditional: int = 10_000
    """Samples in an iteration without a given space group."""
    n_per_group: int = 1000
    """Samples in an iteration in each of the space groups."""
    groups: tuple[int, ...] = GROUPS
    """Space groups that samples are asked for."""
    group_size: int = 10
    """Samples drawn in a row for one prompt. Pairs have the same prompt, and each prompt of a
    Wyckoff transformer has a space group that it draws: with more samples in a row, more can be
    paired."""
    thresholds: Thresholds = field(default_factory=lambda: Thresholds(0.0, 0.08))
    """Energies above hull up to which samples are stable and metastable."""
    symprec: float = 0.01
    """Å: tolerance of the search for the space groups of samples."""
    pairs: PairConfig = field(default_factory=PairConfig)
    """Kinds of pairs, and the number of samples that each preferred one is paired with."""
    distinct: bool = False
    """Learn from each structure once: of the samples of an iteration that match each other (and
    were asked for the same space group), one is used. The paper uses all; a model that repeats
    itself then learns to repeat itself more often."""
    learn: Literal["dpo", "sft"] = "dpo"
    """dpo: learn from pairs. sft: fine-tune by likelihood on metastable (and stable) samples with
    the space group that they were asked for."""
    reference: Literal["previous", "base"] = "previous"
    """Reference of DPO: the policy that drew the samples, or the base model."""
    temperature_step: float = 0.2
    """Added to the sampling temperature, every --rlip.temperature-every iterations."""
    temperature_every: int = 2
    """Iterations between two steps of the temperature."""

    def __post_init__(self) -> None:
        IterationConfig.__post_init__(self)
        DpoConfig.__post_init__(self)
        none, one = at_least(0), at_least(1)
        check(self, n_unconditional=none, n_per_group=none, group_size=one, temperature_every=one)
        check(self, symprec=POSITIVE, temperature_step=FINITE)
        Condition(space_group=self.groups or None)  # which checks their numbers
        check(self.thresholds, stable=FINITE, metastable=FINITE)
        if self.thresholds.stable > self.thresholds.metastable:
            raise ValueError(
                f"stable up to {self.thresholds.stable:g} eV/atom and metastable up to"
                f" {self.thresholds.metastable:g}: the first must not be above the second"
            )
        for name in ("n_unconditional", "n_per_group"):
            if getattr(self, name) % self.group_size:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: give a multiple of group_size,"
                    f" {self.group_size}"
                )
        if not self.n_samples:
            raise ValueError("no samples: raise n_unconditional, or n_per_group and groups")

    @property
    def requested_groups(self) -> tuple[int, ...]:
        """Space groups in which samples are drawn."""
        return self.groups if self.n_per_group else ()

    @property
    def n_samples(self) -> int:
        """Samples of an iteration."""
        return self.n_unconditional + self.n_per_group * len(self.groups)

    def temperature_offset(self, iteration: int) -> float:
        """What is added to the sampling temperature in an iteration, the first of which is 0."""
        return iteration // self.temperature_every * self.temperature_step

    def check_with(self, condition: Condition, sampling: SamplingConfig) -> None:
        """ValueError if samples could not be drawn so in some iteration.

        Args:
          condition: what all samples are asked to be.
          sampling: of the first iteration.
        """
        self.prompts(condition)
        for iteration in range(self.n_iterations):
            temperature = sampling.temperature + self.temperature_offset(iteration)
            if not POSITIVE.holds(temperature):
                raise ValueError(
                    f"iteration {iteration + 1} would sample at temperature {temperature:g}, which"
                    " must be above 0: raise the sampling temperature or temperature_step"
                )

    def prompts(self, condition: Condition | None = None) -> list[Condition]:
        """Conditions of an iteration's samples, of which `group_size` in a row have each.

        condition: what all of them are asked to be. ValueError if that has a space group, and
        samples of given ones are drawn.
        """
        condition = condition or Condition()
        free, each = self.n_unconditional // self.group_size, self.n_per_group // self.group_size
        groups = self.requested_groups
        if groups and condition.space_groups is not None:
            raise ValueError(
                f"samples are asked for space group {condition.space_group} already: leave it out,"
                " or draw none in given groups (n_per_group 0)"
            )
        asked = [dataclasses.replace(condition, space_group=group) for group in groups]
        return [condition] * free + [x for x in asked for _ in range(each)]

    def groups_asked(self, conditions: Sequence[Condition]) -> np.ndarray:
        """int [N]: the space group that each sample of `prompts` was asked for, 0 if none.

        A space group that all samples are asked to have is none of these.
        """
        if not self.requested_groups:
            return np.zeros(len(conditions), int)
        groups = [x.space_groups for x in conditions]
        return np.array([0 if group is None else group[0] for group in groups], int)


def rlip(
    task: CrystalTask,
    base: Params,
    config: RlipConfig,
    folder: Path,
    track: Callable[[dict[str, Any], int], None],
    *,
    after: Callable[[int, Params], None] = lambda _, __: None,
    run_id: str | None = None,
) -> Params:
    """Fine-tune from `base` by RLIP, going on from the folder's last checkpoint.

    Samples, judgements and pairs of each iteration are kept in `folder`, see `Iteration`. All
    follow from the seed and the checkpoint before, so that a run that was killed and goes on has
    the same ones. What an iteration lacks (stable samples, a space group, a source of pairs) is
    logged.

    Args:
      task: with the conditions of `config.prompts`, of which it judges all samples (`judge_all`),
        and a reference set; its reward has "e_above_hull" (eV/atom) in its info. What its guards do
        not believe is of no tier and in no pair; a guard that discounts is an error.
      after: called with the number of iterations that are done and the parameters, before they are
        saved.

    Other arguments and errors as of `preference.prefer`; ValueError for a task that is not as
    above. Returns the last parameters.
    """
    if len(task.conditions) * config.group_size != config.n_samples or not task.judge_all:
        raise ValueError("the task is not RLIP's: give it config.prompts(...) and judge_all")
    if task.reference is None:
        raise ValueError("RLIP prefers novel crystals: give the task a reference set")
    task = copy(task)  # the caller's keeps its guards
    task.guards = task.guards.all_or_nothing

    def lessons(number: int, rollout: RewardedSamples, rng: np.random.Generator) -> Lessons:
        found = iteration_of(number, rollout, config, rng)
        if jax.process_index() == 0:
            found.save(folder)
        for lack in found.lacks(config.requested_groups):
            log.warning("iteration %d: %s", number + 1, lack)
        return Lessons(found.lessons, found.metrics)

    by_pairs = config.learn == "dpo"
    method = Method(
        config.learn,
        pair_loss(config) if by_pairs else likelihood_loss,
        size=2 if by_pairs else 1,
        n_samples=config.n_samples,
        most_lessons=config.n_samples,
        lessons=lessons,
        temperature_offset=config.temperature_offset,
        group_size=config.group_size,
        fixed_reference=config.reference == "base",
        after=after,
    )
    return iterate(task, base, config, method, folder, track, run_id=run_id)


def iteration_of(
    number: int, rollout: RewardedSamples, config: RlipConfig, rng: np.random.Generator
) -> Iteration:
    """The samples of an iteration (the first is 0), judged and paired.

    ValueError if the reward does not tell energies above hull.
    """
    samples: Rollout = rollout.samples
    judged, n = rollout.judged, len(rollout.prompt)
    if judged.ok.any() and ENERGY not in judged.info:
        raise ValueError(
            f"the reward does not tell energies above hull ({ENERGY} in its info): RLIP needs them"
        )
    above = np.asarray(judged.info.get(ENERGY, np.full(n, np.nan)), np.float64)
    above = np.where(judged.ok, above, np.nan)
    asked = config.groups_asked(samples.conditions[:n])
    found = found_space_group(samples.crystals[:n], config.symprec)
    tier = tiers_of(above, config.thresholds)
    cluster = rollout.columns["cluster"]
    learnt = distinct_tiers(tier, cluster, asked) if config.distinct else tier
    has_group, matches = asked > 0, found == asked
    if config.learn == "sft":
        accepted = np.isin(learnt, (STABLE, METASTABLE)) & (matches | ~has_group)
        lessons, kind = np.flatnonzero(accepted)[:, None], np.zeros(0, np.int64)
    else:
        lessons, kind = tiered_pairs(
            *(learnt, rollout.columns["novel"], has_group, matches, rollout.prompt),
            *(config.pairs, rng),
        )
    return Iteration(
        number=number,
        temperature=rollout.metrics["samples/temperature"],
        crystals=samples.crystals[:n].to_numpy(),
        asked=asked,
        found=found,
        prompt=rollout.prompt,
        e_above_hull=above,
        reasons=np.array([reason or "" for reason in judged.reasons]),
        tier=tier,
        novel=rollout.columns["novel"],
        cluster=cluster,
        lessons=lessons,
        kind=kind,
    )
