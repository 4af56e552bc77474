"""A study of structure prediction: rows, each trained and evaluated in a folder of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from crystaljax.baselines.base import Baseline, Proposals
from crystaljax.baselines.random_search import RandomSearch
from crystaljax.baselines.substitution import Substitution
from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.data.files import locked
from crystaljax.evaluation.attempt_energies import csp_energies
from crystaljax.evaluation.attempts import Attempts, Known
from crystaljax.evaluation.csp import CSPConfig, evaluate_csp
from crystaljax.evaluation.prediction_files import read_known
from crystaljax.evaluation.rates import Metric
from crystaljax.experiment.crystals import second_judge
from crystaljax.experiment.csp.questions import (
    Questions,
    formulas_asked,
    propose,
    read_questions,
    refused,
    write_predictions,
)
from crystaljax.experiment.csp.resources import tuning_memory
from crystaljax.experiment.csp.setup import (
    BASELINES,
    PRETRAINED,
    TRAINED,
    CSPSetup,
    ExamConfig,
    RowName,
    TextRowsConfig,
)
from crystaljax.experiment.csp.texts import teach
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.run_folder import remade
from crystaljax.experiment.run_results import (
    N_REASONS,
    RESULT_FILE,
    do_run,
    kept_table,
    logged,
    read_result,
    write_result,
)
from crystaljax.policies.base import Params, Policy
from crystaljax.rewards.ehull import EnergyAboveHull
from crystaljax.rewards.guards import Guarding, Guards, create_guards
from crystaljax.rewards.prediction import AsAsked, PredictionRewardConfig, prediction_reward
from crystaljax.rewards.stability import StabilityReward
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.reinforce import ReinforceConfig, reinforce

log = logging.getLogger(__name__)

MODEL, PREDICTIONS = "model", "predictions.csv"
"""Files of a run: the folder of a trained model, and the attempts at the test crystals."""

BY_TARGET = "percent_by_test_crystal"
"""Of a result: percentages of each test crystal, [T] by name."""


@dataclass(frozen=True)
class Arm:
    """A row and a seed."""

    row: RowName
    seed: int

    @property
    def name(self) -> str:
        """Its place among all runs."""
        return f"{self.row}-seed{self.seed}"

    def folder(self, output: Path) -> Path:
        """Folder of its files."""
        return output / "runs" / self.name

    def result(self, output: Path) -> dict[str, Any] | None:
        """The result; None if the run is not finished. ValueError if the file is damaged."""
        path = self.folder(output) / RESULT_FILE
        return read_result(path) if path.is_file() else None


def arms_of(rows: Sequence[RowName], seeds: Sequence[int]) -> list[Arm]:
    """All runs; those of a seed together, and baselines of the first seed alone."""
    return [
        Arm(row, seed) for seed in seeds for row in rows if seed == seeds[0] or row not in BASELINES
    ]


class Study:
    """All runs of a study, in the folder of an experiment; use as a context manager.

    Mistakes in guards, in the potential and in the data are told when it is made.
    """

    def __init__(
        self,
        experiment: Experiment,
        setup: CSPSetup,
        texts: TextRowsConfig,
        reward: PredictionRewardConfig,
        rl: ReinforceConfig,
        model_optimizer: OptimizerConfig,
        n_formulas: int,
        exam: ExamConfig,
    ) -> None:
        self.experiment, self.setup, self.texts = experiment, setup, texts
        self.reward_config, self.exam = reward, exam
        self.rl, self._model_optimizer = rl, model_optimizer
        if not (setup.train and setup.test):
            raise ValueError("structure prediction needs --setup.train and --setup.test: give both")
        self.questions: Questions = read_questions(
            setup.test, setup.n_samples, setup.seed, setup.fixed_units
        )
        self.train: Known = read_known(setup.train)
        self.crystals: Crystals = load(setup.train, max_sites=None).crystals
        self.asked: list[Condition] = formulas_asked(
            self.crystals, n_formulas, setup.seed, setup.fixed_units, reward.max_atoms
        )
        self.stability = StabilityReward(setup.stability)
        self.judge, self._about_judge = second_judge(setup)
        self.failures: list[str] = []
        self._loaded: dict[tuple[str, int], tuple[Policy, Params]] = {}
        self._guards()

    @property
    def output(self) -> Path:
        """Its folder."""
        return self.experiment.folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for served in (self.stability, self.judge):
            if served is not None:
                served.close()

    def work(self, arms: Sequence[Arm]) -> None:
        """Train and evaluate what is not finished of some runs; a fault in one costs that one.

        Runs that another process has begun are left to it.
        """
        for arm in arms:
            if arm.row in PRETRAINED and not self.texts.pretrained:
                continue
            folder = arm.folder(self.output)
            do_run(arm.name, folder, self.failures, partial(self._finish, arm))

    def _finish(self, arm: Arm) -> None:
        """Do a run if it has no result: metrics of its attempts, which are kept beside it."""
        if arm.result(self.output) is not None:
            return
        log.info("%s", arm.name)
        folder = arm.folder(self.output)
        folder.mkdir(parents=True, exist_ok=True)
        source, memory, found = self._proposer(arm)
        start = time.perf_counter()
        proposals = found()
        n, lost = len(proposals.reasons), proposals.lost
        seconds = (time.perf_counter() - start) / n
        write_predictions(folder / PREDICTIONS, proposals, self.questions.truth, self.exam.k)
        metrics, context, by_target = self._examined(proposals)
        result = {
            "metrics": [metric.to_dict() for metric in metrics],
            BY_TARGET: {name: values.round(4).tolist() for name, values in by_target.items()},
            "context": context,
            "source": source,
            "n": n,
            "seconds_per_attempt": seconds,
            "lost": lost.total(),
            "reasons": dict(lost.most_common(N_REASONS)),
            "not_asked": proposals.not_asked,
            "dead_ends": proposals.dead_ends,
            "memory": memory,
        }
        write_result(folder / RESULT_FILE, result)

    def _proposer(self, arm: Arm) -> tuple[str, Any, Callable[[], Proposals]]:
        """Source of a run's structures (trained, if the run trains): title, memory, function."""
        conditions, k = self.questions.conditions, self.exam.k
        seed = int(np.random.SeedSequence([self.setup.seed, arm.seed, 6]).generate_state(1)[0] >> 2)
        if arm.row in BASELINES:
            baseline = self._baseline(arm.row)
            return baseline.name, None, lambda: baseline.propose(conditions, k, seed)
        policy, params = self._policy(arm)
        memory = None
        if arm.row in TRAINED:
            memory = self._memory(policy)
            params = self._trained(arm, policy, params)
        sampling = self.setup.sampling
        return arm.row, memory, lambda: propose(policy, params, conditions, k, seed, sampling)

    def _baseline(self, row: RowName) -> Baseline:
        if row == "random":
            return RandomSearch(self.setup.max_atoms or self.questions.max_atoms)
        return Substitution(self.crystals, self.train.name)

    def _policy(self, arm: Arm) -> tuple[Policy, Params]:
        """The model that a row starts from; the last one stays loaded."""
        kind = TRAINED.get(arm.row, arm.row)
        key = kind, arm.seed if kind == "sft" else 0
        if key not in self._loaded:
            self._loaded.clear()
            self._loaded[key] = self._load(kind, arm.seed)
        return self._loaded[key]

    def _load(self, kind: str, seed: int) -> tuple[Policy, Params]:
        texts = self.texts
        if kind == "model":
            self.experiment.use("model", self.setup.model)
            return self.setup.load_policy()
        if kind == "zero-shot":
            self.experiment.use("pretrained", texts.pretrained)
            return self.setup.load(texts.pretrained, texts.written_as, (texts.asked_by,))
        folder = texts.taught or Arm("sft", seed).folder(self.output) / MODEL
        if texts.taught is None:
            with locked(folder):  # both sft and sft-rl start from it
                if not folder.is_dir():
                    self._teach(seed, folder)
        return self.setup.load(folder, texts.format)

    def _teach(self, seed: int, folder: Path) -> None:
        """SFT of a seed, which leaves a model folder."""
        name, texts = Arm("sft", seed).name, self.texts
        with self.experiment.run(f"runs/{name}", "SFT", texts.sft) as run:
            teach(self.setup, texts, seed, run, folder)

    def _memory(self, policy: Policy) -> dict[str, Any] | None:
        """Memory of training a language model, which is logged, too; None of another one."""
        memory = tuning_memory(policy, self.setup, self.rl)
        return None if memory is None else kept_table(logged(memory.table(self.setup.fsdp)))

    def _trained(self, arm: Arm, policy: Policy, base: Params) -> Params:
        """The model after GRPO or PPO, with a model folder."""
        folder = arm.folder(self.output) / MODEL
        if folder.is_dir():
            of_model = arm.row == "model-rl"
            own = self.setup.tokenization if of_model else self.texts.format
            return self.setup.load(folder, own)[1]
        optimizer = self._model_optimizer if arm.row == "model-rl" else self.rl.optimizer
        rl = replace(self.rl, optimizer=optimizer, seed=arm.seed)
        task = self._task(policy, base)
        with self.experiment.run(f"runs/{arm.name}", rl.algorithm.upper(), rl) as run:
            params = reinforce(task, base, rl, run.folder, run.log, run_id=run.run_id)
        with remade(folder) as made:
            policy.save(made, params)
        return params

    def _task(self, policy: Policy, base: Params) -> CrystalTask:
        """Training formulas that the policy can be asked for, rewarded."""
        setup = self.setup
        why = refused(policy, self.asked, setup.sampling)
        conditions = [x for x, reason in zip(self.asked, why, strict=True) if reason is None]
        if not conditions:
            raise ValueError(
                f"the model can be asked for none of {len(self.asked)} training formulas; of the"
                f" first: {why[0]}"
            )
        if lost := len(why) - len(conditions):
            log.warning("%d of %d training formulas cannot be asked for", lost, len(why))
        return CrystalTask(
            policy,
            base,
            self.reward,
            conditions,
            setup.sampling,
            setup.bounds,
            n_parts=setup.n_parts,
            judge_all=True,  # the reward knows what was asked
            guards=self._guards(),
        )

    def _guards(self) -> Guards:
        guarding = Guarding(self.stability.hull, self.reward_config.quantity)
        return create_guards(self.setup.guards, guarding)

    @cached_property
    def reward(self) -> AsAsked:
        """The reward of training."""
        return prediction_reward(self.reward_config, self.stability, self.crystals, self.asked)

    @cached_property
    def energy(self) -> EnergyAboveHull:
        """The judge of the evaluation: another potential than rewards, where there is one."""
        judge = self.judge or self.stability
        return EnergyAboveHull(judge.energy.potential, judge.hull, self.exam.relax_steps)

    def _examined(
        self, proposals: Proposals
    ) -> tuple[list[Metric], list[str], dict[str, np.ndarray]]:
        """Metrics of k attempts at each test crystal: matches of all, energies of the first.

        With them context, and what is compared crystal by crystal: percentages of each.
        """
        truth, k, judged = self.questions.truth, self.exam.k, min(self.exam.judged, self.exam.k)
        target = np.repeat(np.arange(len(truth)), k)
        attempts = Attempts.of(proposals.crystals, target, proposals.reasons)
        config = CSPConfig(at=tuple(sorted({1, k})))
        found = evaluate_csp(truth, attempts, self.train, None, config)
        metrics, context = {m.name: m for m in found.metrics}, list(found.context)
        by_target = {f"match rate @{x}": np.isfinite(found.targets[f"rms_{x}"]) for x in config.at}
        by_target["matching attempts"] = found.targets["matching_attempts"]
        by_target["as asked"] = found.columns["as_asked"].reshape(-1, k).mean(axis=1)
        if judged:
            first = np.flatnonzero(np.arange(len(target)) % k < judged)
            some = Attempts.of(
                proposals.crystals[first], target[first], [proposals.reasons[i] for i in first]
            )
            energies = csp_energies(self.energy, truth, some)
            config = CSPConfig(at=tuple(sorted({1, judged})))
            more = evaluate_csp(truth, some, self.train, energies, config)
            metrics = {m.name: m for m in more.metrics} | metrics
            context += [x for x in more.context if x not in context]
            metastable = more.columns["metastable_as_asked"].reshape(-1, judged)
            by_target["metastable as asked"] = metastable.mean(axis=1)
        return list(metrics.values()), context, {k: 100.0 * x for k, x in by_target.items()}

    def notes(self) -> list[str]:
        """Notes for the report: conditions, rewards, failures."""
        rl, setup = self.rl, self.setup
        units = "" if setup.fixed_units else "not "
        notes = [
            f"{len(self.questions.truth)} test crystals, {self.exam.k} attempts at each, of which"
            f" the first {self.exam.judged} have energies; the number of formula units is {units}"
            f"given; temperature {setup.sampling.temperature:g}.",
            f"RL: {rl.n_steps} {rl.algorithm.upper()} steps of {rl.batch_size} crystals in groups"
            f" of {rl.group_size} from {len(self.asked)} training formulas; reward"
            f" {self.reward_config.words}, energies by {self.stability.potential}; guards"
            f" {', '.join(setup.guards) or 'none'}.",
        ]
        notes += [self._about_judge] if self._about_judge else []
        return [*notes, *self.failures]
