"""A study of RLIP: models and variants, each trained and evaluated in a folder of its own."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from crystaljax.conditions import Condition
from crystaljax.evaluation.policies import (
    assess_crystals,
    by_space_group,
    draw,
    in_space_groups,
)
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
from crystaljax.rewards.guards import DISCOUNTS
from crystaljax.training.rlip import RlipConfig, rlip

if TYPE_CHECKING:
    from crystaljax.rewards.stability import StabilityReward

log = logging.getLogger(__name__)

SAMPLES_FILE, CURVE = "samples.npz", "curve"

MODEL = "model"
"""The folder of a trained model in that of its run."""

ABOUT_FILE = "about.json"
"""What all runs of a model share, in the folder above theirs: notes and tables of resources."""


@dataclass(frozen=True)
class RlipSetup(Setup):
    """Model, data and judge; the number formats of a language model."""

    model: Path = CHECKPOINTS / "text-mp20bt"
    """Folder of the model to start from: a language model or a Wyckoff transformer."""
    bounds: RewardBounds = field(default_factory=lambda: RewardBounds(low=-math.inf, high=math.inf))
    """Bounds of rewards in metrics alone: pairs are made of the energies themselves."""
    guards: tuple[str, ...] = ()
    """Guards of the reward in training, in the order in which they act, as NAME or NAME:NUMBER.
    What they do not believe is in no pair: sparse-hull:12 (systems with fewer hull entries),
    too-good:0.1 (crystals more eV/atom below the hull), pure-elements, and smact (compositions that
    SMACT rejects). Or FILE.py:FUNCTION of your own that returns 0 or 1 for each crystal. Discounts
    (seen-compositions, seen-structures, copies) have no part in pairs and are refused; see
    --rlip.distinct."""

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
        if discounts := [x for x in self.guards if x.partition(":")[0] in DISCOUNTS]:
            raise ValueError(
                f"the guard {discounts[0]} discounts rewards, which has no part in the pairs of"
                " RLIP: leave it out; --rlip.distinct learns from each structure once"
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
    groups: tuple[int, ...] = ()
    """Space groups of RLIP that samples are asked for. Not given: all of RLIP."""
    unseen_groups: tuple[int, ...] = (2, 14, 62, 139, 166, 225)
    """Other space groups that samples are asked for. Those of RLIP are left out."""

    def __post_init__(self) -> None:
        one = at_least(1)
        check(self, n_per_iteration=one, n_per_group=one)
        Condition(space_group=self.every_group or None)  # which checks their numbers

    @property
    def every_group(self) -> tuple[int, ...]:
        """All space groups that samples are asked for."""
        return self.groups + self.unseen_groups

    def of(self, config: RlipConfig) -> ExamConfig:
        """The evaluation with the space groups of a run of RLIP, and others than these.

        ValueError for `groups` in which RLIP draws no samples.
        """
        asked = config.requested_groups
        if others := [group for group in self.groups if group not in asked]:
            raise ValueError(
                f"--exam.groups has {others[0]}, in which RLIP draws no samples: move it to"
                " --exam.unseen-groups"
            )
        unseen = tuple(group for group in self.unseen_groups if group not in asked)
        return replace(self, groups=self.groups or asked, unseen_groups=unseen)


RUNS = "runs"
"""The folder of all runs."""


def _called(model: Path) -> str:
    """Name of a model's folder among the runs."""
    return re.sub(r"[^\w.=-]+", "_", model.name)


def about(model: Path, output: Path) -> dict[str, Any]:
    """What the runs of a model share, "notes" and "resources"; nothing before the first run.

    ValueError if the file is damaged.
    """
    path = output / RUNS / _called(model) / ABOUT_FILE
    return read_result(path) if path.is_file() else {"notes": [], "resources": []}


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
        return f"{_called(self.model)}/{self.variant}-seed{self.seed}"

    @property
    def label(self) -> str:
        """The variant, for tables."""
        return BASE if self.variant == BASE else VARIANTS[self.variant].label  # type: ignore[index]

    def folder(self, output: Path) -> Path:
        """Folder of its files."""
        return output / RUNS / self.name

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

    def work(self, plan: Mapping[Path, Sequence[Arm]]) -> None:
        """Train and evaluate what is not finished of the arms of each model.

        All models are asked for what their arms need before the first one is trained. A fault in a
        run costs that run, not the others. Runs that another process has begun are left to it.

        ValueError for samples that a model cannot be asked for.
        """
        left = {model: arms for model, arms in plan.items() if not self._is_done(model, arms)}
        for model in list(left)[1:]:
            self._check(self._setup(model).load_policy()[0], left[model])
        for model, arms in left.items():
            with Bench(self._setup(model)) as bench:
                self._check(bench.policy, arms)
                bench.record(self.experiment)
                self._describe(bench)
                for arm in arms:
                    do = partial(self._finish, bench, arm)
                    do_run(arm.name, arm.folder(self.output), self.failures, do)

    def _is_done(self, model: Path, arms: Sequence[Arm]) -> bool:
        """Whether a model and its arms have all that the report is made of."""
        finished = all(arm.result(self.output) is not None for arm in arms)
        return finished and (self.output / RUNS / _called(model) / ABOUT_FILE).is_file()

    def _setup(self, model: Path) -> RlipSetup:
        """The set-up of a model."""
        if model == self.setup.model:  # which the tokenization and the templates are of
            return self.setup
        return replace(self.setup, model=model, tokenization="", templates=())

    def _config(self, arm: Arm) -> RlipConfig:
        """The training of an arm that is not the base."""
        return VARIANTS[arm.variant].of(self.config, arm.seed)  # type: ignore[index]

    def _check(self, policy: Policy, arms: Sequence[Arm]) -> None:
        """ValueError if the policy cannot be asked for samples that arms train on, or are
        evaluated by."""
        condition = self.setup.condition
        asked = [condition, *in_space_groups(condition, self.exam.every_group)]
        for arm in arms:
            asked += [] if arm.variant == BASE else self._config(arm).prompts(condition)
        policy.check(list(dict.fromkeys(asked)), self.setup.sampling)

    def _describe(self, bench: Bench) -> None:
        """Write what the runs of a model share: `about`."""
        exam, setup = self.exam, bench.setup
        n_examined = (
            setup.n_samples
            + (self.config.n_iterations - 1) * exam.n_per_iteration
            + len(exam.every_group) * exam.n_per_group
        )
        tables = resources(bench.policy, setup.sampling, setup.n_parts, self.config, n_examined)
        content = {
            "notes": [f"Reward: {bench.rewarded_by}{bench.guarded_by}.", *bench.notes],
            "resources": [kept_table(logged(table)) for table in tables],
        }
        write_result(self.output / RUNS / _called(setup.model) / ABOUT_FILE, content)

    def notes(self) -> list[str]:
        """Where all results come from, and what went wrong."""
        rlip, exam, limits = self.config, self.exam, self.config.thresholds
        return [
            f"Flagship: {rlip.n_iterations} iterations of {rlip.n_unconditional} samples drawn"
            f" freely{_each(rlip.n_per_group, rlip.requested_groups)};"
            f" stable ≤ {limits.stable:g} and metastable ≤ {limits.metastable:g} eV/atom, β ="
            f" {rlip.beta:g}, learning rate {rlip.optimizer.learning_rate:g}.",
            f"Evaluated with {self.setup.n_samples} samples of each model and seed drawn freely,"
            f" {exam.n_per_iteration} after each iteration but the last"
            f"{_each(exam.n_per_group, exam.every_group)}, at temperature"
            f" {self.setup.sampling.temperature:g}.",
            *self.failures,
        ]

    def _finish(self, bench: Bench, arm: Arm) -> None:
        """Do a run if it has no result."""
        if arm.result(self.output) is not None:
            return
        log.info("%s", arm.name)
        is_base = arm.variant == BASE
        params = bench.base if is_base else self._trained(bench, arm, self._config(arm))
        self._examine(bench, arm, params)

    def _trained(self, bench: Bench, arm: Arm, config: RlipConfig) -> Params:
        """The model after RLIP, with a model folder and samples after each iteration."""
        task = bench.task(conditions=config.prompts(self.setup.condition), judge_all=True)
        with self.experiment.run(f"{RUNS}/{arm.name}", arm.variant, config) as run:

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

    def _examine(self, bench: Bench, arm: Arm, params: Params) -> None:
        """Write the result of a run: rates of fresh samples, drawn freely and in given space
        groups."""
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
                    condition=self.setup.condition,
                    sampling=self.setup.sampling,
                )
                result[name] = {key: [x.to_dict() for x in row] for key, row in rates.items()}
        write_result(folder / RESULT_FILE, result)

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


def _each(n: int, groups: Sequence[int]) -> str:
    """Samples in given space groups, in words; nothing without groups."""
    return f" and {n} in each of the space groups {', '.join(map(str, groups))}" if groups else ""


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
