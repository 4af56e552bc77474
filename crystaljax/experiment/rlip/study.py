"""A study of RLIP: models and variants, each trained and evaluated in a folder of its own."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from crystaljax.conditions import Condition
from crystaljax.evaluation.policies import assess_crystals, by_space_group, draw
from crystaljax.experiment.crystals import CHECKPOINTS, Bench, Setup
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.rlip.resources import resources
from crystaljax.experiment.rlip.samples import Samples
from crystaljax.experiment.rlip.variants import BASE, VARIANTS
from crystaljax.experiment.run_folder import remade
from crystaljax.experiment.run_results import (
    RESULT_FILE,
    do_run,
    kept_table,
    logged,
    read_result,
    result_of_samples,
    write_result,
)
from crystaljax.policies.base import Params, Policy
from crystaljax.policies.loading import check_folder, load_policy
from crystaljax.ranges import at_least, check
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.training.rlip import GROUPS, RlipConfig, rlip

if TYPE_CHECKING:
    from crystaljax.evaluation.report import Table
    from crystaljax.rewards.stability import StabilityReward

log = logging.getLogger(__name__)

SAMPLES_FILE, CURVE = "samples.npz", "curve"

MODEL = "model"
"""The folder of a trained model in that of its run."""


@dataclass(frozen=True)
class RlipSetup(Setup):
    """Model, data and judge; the number formats of a language model."""

    model: Path = CHECKPOINTS / "text-mp20bt"
    """Folder of the model to start from: a language model or a Wyckoff transformer."""
    bounds: RewardBounds = field(default_factory=lambda: RewardBounds(low=-math.inf, high=math.inf))
    """Bounds of rewards in metrics alone: pairs are made of the energies themselves."""

    quantized: Literal["no", "int8", "nf4"] = "no"
    """Format of the matrices of a language model's frozen base, where the model is an adapter."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the parameters and computations of a language model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward:
            raise ValueError(
                f"RLIP is rewarded by energies above hull, and {self.reward} gives none: leave"
                " --setup.reward out"
            )

    def load_policy(self) -> tuple[Policy, Params]:
        """The model, held as configured."""
        if (self.quantized, self.dtype) == ("no", "float32"):
            return super().load_policy()
        from crystaljax.text.loading import TextModelConfig

        held = TextModelConfig(quantized=self.quantized, dtype=self.dtype, remat="all")
        return load_policy(self.model, self.tokenization, self.templates, held)


@dataclass(frozen=True)
class ExamConfig:
    """Evaluation of a model by fresh samples; `Setup.n_samples` of them are drawn freely."""

    n_per_iteration: int = 1000
    """Samples drawn freely after each iteration, for the curve of S.U.N."""
    n_per_group: int = 1000
    """Samples in each space group."""
    groups: tuple[int, ...] = GROUPS
    """Space groups that samples are asked for."""
    unseen_groups: tuple[int, ...] = (2, 14, 62, 139, 166, 225)
    """Space groups that RLIP is not asked for, and samples are."""

    def __post_init__(self) -> None:
        one = at_least(1)
        check(self, n_per_iteration=one, n_per_group=one)
        Condition(space_group=self.every_group or None)  # which checks their numbers

    @property
    def every_group(self) -> tuple[int, ...]:
        """All space groups that samples are asked for."""
        return self.groups + self.unseen_groups


@dataclass(frozen=True)
class Arm:
    """A model, a variant and a seed."""

    model: Path
    variant: str
    """A name of `VARIANTS`, or `BASE`."""
    seed: int

    @property
    def name(self) -> str:
        """Its place among all runs."""
        model = re.sub(r"[^\w.=-]+", "_", self.model.name)
        return f"{model}/{self.variant}-seed{self.seed}"

    @property
    def label(self) -> str:
        """The variant, for tables."""
        return BASE if self.variant == BASE else VARIANTS[self.variant].label  # type: ignore[index]

    def folder(self, output: Path) -> Path:
        """Folder of its files."""
        return output / "runs" / self.name

    def model_folder(self, output: Path) -> Path:
        """Folder of the trained model."""
        return self.folder(output) / MODEL

    def result(self, output: Path) -> dict[str, Any] | None:
        """The result; None if the run is not finished. ValueError if the file is damaged."""
        path = self.folder(output) / RESULT_FILE
        return read_result(path) if path.is_file() else None


@dataclass(frozen=True)
class Study:
    """All runs of a study, in the folder of an experiment."""

    experiment: Experiment
    setup: RlipSetup
    config: RlipConfig
    exam: ExamConfig
    failures: list[str] = field(default_factory=list)
    """Faults of single runs, for the report."""

    @property
    def output(self) -> Path:
        """Its folder."""
        return self.experiment.folder

    def work(self, model: Path, arms: Sequence[Arm]) -> None:
        """Train and evaluate what is not finished of the arms of a model.

        A fault in a run costs that run, not the others. Runs that another process has begun are
        left to it.
        """
        if all(arm.result(self.output) is not None for arm in arms):
            return
        setup = self.setup
        if model != setup.model:  # which the tokenization and the templates are of
            setup = replace(setup, model=model, tokenization="", templates=())
        with Bench(setup) as bench:
            asked = [Condition(space_group=group) for group in self.exam.every_group]
            bench.policy.check(asked, setup.sampling)
            bench.record(self.experiment)
            needed = resources(bench.policy, setup.sampling, setup.n_parts, self.config)
            for table in needed:
                logged(table)
            for arm in arms:
                do = partial(self._finished, bench, arm, needed)
                do_run(arm.name, arm.folder(self.output), self.failures, do)

    def notes(self) -> list[str]:
        """Where all results come from, and what went wrong."""
        rlip, exam = self.config, self.exam
        return [
            f"Flagship: {rlip.n_iterations} iterations of {rlip.n_unconditional} samples drawn"
            f" freely and {rlip.n_per_group} in each of the space groups"
            f" {', '.join(map(str, rlip.groups))}; stable ≤ {rlip.thresholds.stable:g} and"
            f" metastable ≤ {rlip.thresholds.metastable:g} eV/atom, β = {rlip.beta:g}.",
            f"Evaluated with {self.setup.n_samples} samples of each model and seed drawn freely,"
            f" {exam.n_per_iteration} after each iteration but the last, and {exam.n_per_group} in"
            f" each space group, at temperature {self.setup.sampling.temperature:g}.",
            *self.failures,
        ]

    def _finished(self, bench: Bench, arm: Arm, needed: Sequence[Table]) -> dict[str, Any]:
        """The result of a run, which is done if it is not there."""
        if (found := arm.result(self.output)) is not None:
            return found
        log.info("%s", arm.name)
        if arm.variant == BASE:
            params = bench.base
        else:
            variant = VARIANTS[arm.variant]  # type: ignore[index]
            config = variant.of(self.config, arm.seed)
            params = self._trained(bench, arm, config)
        return self._examined(bench, arm, params, needed)

    def _trained(self, bench: Bench, arm: Arm, config: RlipConfig) -> Params:
        """The model after RLIP, with a model folder and samples after each iteration."""
        task = bench.task(conditions=config.prompts(self.setup.condition), judge_all=True)
        with self.experiment.run(f"runs/{arm.name}", arm.variant, config) as run:

            def examine(done: int, params: Params) -> None:
                if done < config.n_iterations:  # the last one is examined at length
                    n, seed = self.exam.n_per_iteration, self._seed(arm, done)
                    result, _ = self._free_samples(bench, params, n, seed)
                    write_result(run.folder / CURVE / f"{done:04d}.json", result)

            params = rlip(
                task, bench.base, config, run.folder, run.log, after=examine, run_id=run.run_id
            )
            with remade(arm.model_folder(self.output)) as made:
                bench.policy.save(made, params)
        return params

    def _examined(
        self, bench: Bench, arm: Arm, params: Params, needed: Sequence[Table]
    ) -> dict[str, Any]:
        """The result of a run: rates of fresh samples, drawn freely and in given space groups."""
        folder = arm.folder(self.output)
        n = self.setup.n_samples
        result, samples = self._free_samples(bench, params, n, self._seed(arm, 0))
        samples.save(folder / SAMPLES_FILE)
        for name in ("groups", "unseen_groups"):
            groups: tuple[int, ...] = getattr(self.exam, name)
            result[name] = {}
            if groups:
                rates = by_space_group(
                    bench.policy,
                    params,
                    judge_of(bench)[0],
                    bench.reference.structures,
                    groups=groups,
                    n=self.exam.n_per_group,
                    seed=self._seed(arm, 0) + 1,
                    sampling=self.setup.sampling,
                )
                result[name] = {key: [x.to_dict() for x in row] for key, row in rates.items()}
        result["notes"] = bench.notes
        result["resources"] = [kept_table(table) for table in needed]
        write_result(folder / RESULT_FILE, result)
        return result

    def _free_samples(
        self, bench: Bench, params: Params, n: int, seed: int
    ) -> tuple[dict[str, Any], Samples]:
        """Rates of n samples that are not asked for a space group, by the judge and the reward."""
        drawn = draw(
            *(bench.policy, params, self.setup.sampling, n, seed, self.setup.condition),
        )
        energy, other = judge_of(bench)
        found = assess_crystals(
            drawn.crystals, energy, bench.reference, other=other, config=bench.evaluation
        )
        return result_of_samples(drawn, found.evaluation), Samples.of(found)

    def _seed(self, arm: Arm, iteration: int) -> int:
        """Seed of fresh samples; those of different iterations and seeds are independent."""
        key = [self.setup.seed, arm.seed, 5, iteration]
        return int(np.random.SeedSequence(key).generate_state(1)[0] >> 2)


def models_of(model: Path, others: Sequence[Path]) -> list[Path]:
    """All models, each once; ValueError if two folders have the same name.

    Other models that are not there are told of at once: see `policies.loading.check_folder`.
    """
    models = list(dict.fromkeys([model, *others]))
    names = [path.name for path in models]
    if twice := [path for path in models if names.count(path.name) > 1]:
        raise ValueError(
            f"{' and '.join(map(str, twice))} have the same name, and runs are called after it:"
            " rename one"
        )
    for other in models[1:]:
        check_folder(other)
    return models


def judge_of(bench: Bench) -> tuple[StabilityReward, StabilityReward | None]:
    """What models are judged by: the judge and what rewarded them, or that alone."""
    if bench.judge is None:
        return bench.stability, None
    return bench.judge, bench.stability
