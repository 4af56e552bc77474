"""The stages of a comparison, run by run. Finished runs are not repeated."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from crystaljax.data.files import locked
from crystaljax.evaluation.evaluate import EvaluationConfig, Reference
from crystaljax.evaluation.nll import Resolution
from crystaljax.evaluation.policies import Drawn, assess_crystals, draw
from crystaljax.evaluation.round_trip import round_trip
from crystaljax.experiment.comparison.budget import BudgetConfig
from crystaljax.experiment.comparison.cores import (
    CoreConfig,
    Cores,
    equal_cores,
    non_embedding,
    total,
)
from crystaljax.experiment.comparison.data import ComparedData, DataConfig, compared_data
from crystaljax.experiment.comparison.learners import (
    Learner,
    flops_per_crystal,
    hybrid_lengths,
    make_learner,
    text_lengths,
)
from crystaljax.experiment.comparison.runs import Run, Stage
from crystaljax.experiment.comparison.variants import Variant
from crystaljax.experiment.experiment import Experiment, summarize
from crystaljax.experiment.run_folder import remade
from crystaljax.experiment.run_results import do_run, result_of_samples
from crystaljax.models.llm.config import LlmConfig
from crystaljax.policies.base import Params, Policy, SamplingConfig
from crystaljax.policies.loading import load_policy
from crystaljax.ranges import POSITIVE, at_least, check
from crystaljax.rewards.stability import StabilityConfig, StabilityReward
from crystaljax.tokenizations.base import Decoded
from crystaljax.tracking import read_metrics

log = logging.getLogger(__name__)

N_ROUND_TRIPS = 300
"""Validation crystals that are encoded and decoded."""

SEARCH_SEED = 0
"""Seed of the short trainings that choose a learning rate."""

MODEL = "model"
"""Name of the trained model's folder, in the folder of its run."""


@dataclass(frozen=True)
class SamplesConfig:
    """Samples, and their evaluation."""

    n: int = 1000
    """Samples of each model: so many drawn freely, and so many under the grammar."""
    temperature: float = 1.0
    """Sampling temperature."""
    batch_size: int = 128
    """Samples made at a time."""
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    """Potential and hull."""
    judge: str = ""
    """A second potential for the evaluation, such as nequix. Empty: none."""
    metrics: tuple[str, ...] = ()
    """Further metrics of your own, each as FILE.py:FUNCTION; see `EvaluationConfig`."""

    def __post_init__(self) -> None:
        check(self, n=at_least(1), temperature=POSITIVE, batch_size=at_least(1))


@dataclass(frozen=True)
class Comparison:
    """A comparison in a folder: its variants, its data, and its stages."""

    experiment: Experiment
    variants: Sequence[Variant]
    core: CoreConfig
    data_config: DataConfig
    resolution: Resolution
    budget: BudgetConfig
    samples: SamplesConfig
    failures: list[str] = field(default_factory=list)
    """Failures of single variants, for the report."""
    _learners: dict[tuple[Variant, int], Learner] = field(default_factory=dict, init=False)

    @property
    def output(self) -> Path:
        """Output folder of the comparison."""
        return self.experiment.folder

    @cached_property
    def data(self) -> ComparedData:
        """The crystals, chosen once for all variants."""
        lengths = {}
        for variant in self.variants:
            if variant.is_text:
                lengths[variant.label] = text_lengths(
                    variant, self.resolution, self.data_config, self._tokenizer(variant)
                )
            else:
                lengths[variant.label] = hybrid_lengths
        return compared_data(self.data_config, self.output, lengths)

    @cached_property
    def cores(self) -> Cores:
        """Networks of equal size."""
        return equal_cores(self.core, self.data_config.max_sites, 2 * self.data_config.max_tokens)

    @cached_property
    def reference(self) -> Reference:
        """Training crystals, which are not novel."""
        return Reference.of(self.data.train, self.data_config.train)

    @cached_property
    def stability(self) -> StabilityReward:
        """The first judge."""
        return StabilityReward(self.samples.stability)

    @cached_property
    def judge(self) -> StabilityReward | None:
        """The second judge."""
        if not self.samples.judge:
            return None
        first = self.samples.stability
        return StabilityReward(
            StabilityConfig(self.samples.judge, first.hull, relax_steps=first.relax_steps)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the judges' workers."""
        for name in ("stability", "judge"):
            judge = self.__dict__.get(name)
            if judge is not None:
                judge.close()

    def do(self, variant: Variant, seed: int, work: Callable[[], object]) -> None:
        """Do the work on a variant and a seed, unless another process has begun it.

        Errors cost this variant and seed, not the others.
        """
        place = self.output / "runs" / variant.folder / f"seed{seed}"
        do_run(f"{variant.label}, seed {seed}", place, self.failures, work, ValueError)

    def check(self, variants: Sequence[Variant], seeds: Sequence[int]) -> None:
        """ValueError, before anything is trained, if the budget is too small for a variant."""
        share = self.budget.search if len(self.budget.learning_rates) > 1 else 1.0
        for variant in variants:
            runs = [Run(variant, "train", seed) for seed in seeds]
            if all(run.result(self.output) is not None for run in runs):
                continue
            cost = flops_per_crystal(self.learner(variant, seeds[0]))
            self.budget.n_steps(cost, variant.label, share)

    def learner(self, variant: Variant, seed: int) -> Learner:
        """A variant with its data, of a seed. The last one is kept, with what it has compiled."""
        if (variant, seed) not in self._learners:
            self._learners.clear()
            self._learners[variant, seed] = make_learner(
                *(variant, self.cores, self.data, self.data_config, self.resolution),
                *(self._tokenizer(variant), seed),
            )
        return self._learners[variant, seed]

    def model_folder(self, variant: Variant, seed: int) -> Path:
        """Folder of a trained model."""
        return Run(variant, "train", seed).folder(self.output) / MODEL

    def load(self, variant: Variant, seed: int) -> tuple[Policy, Params]:
        """A trained model; FileNotFoundError if it is not there."""
        folder = self.model_folder(variant, seed)
        format = variant.tokenization if variant.is_text else ""
        return load_policy(folder, format if ".py" in format else "")

    def _tokenizer(self, variant: Variant) -> Path:
        return self.output / "tokenizers" / f"{variant.folder}"

    # Stages

    def ceiling(self, variant: Variant) -> Mapping[str, Any]:
        """Round trips of validation crystals."""
        run = Run(variant, "ceiling", 0)
        if (found := run.result(self.output)) is not None:
            return found
        crystals = self.data.validation
        crystals = crystals[np.arange(min(len(crystals), N_ROUND_TRIPS))]
        policy = self.learner(variant, 0).policy
        start = time.perf_counter()
        read = policy.encode(crystals)
        seconds = time.perf_counter() - start
        rates = round_trip(crystals, Decoded(read.crystals, read.ok, list(read.reasons)))
        result = {"metrics": [rate.to_dict() for rate in rates], "seconds": seconds}
        return run.finish(self.output, result)

    def chosen_rate(self, variant: Variant) -> float:
        """The learning rate of the lowest validation NLL in short trainings, for all seeds."""
        rates = self.budget.learning_rates
        if len(rates) == 1:
            return rates[0]
        runs = {rate: Run(variant, "search", SEARCH_SEED, rate) for rate in rates}
        with locked(self.output / "runs" / variant.folder / "search"):  # of all seeds
            share = self.budget.search
            found = {rate: self._trained(run, rate, share)["nll"] for rate, run in runs.items()}
        finite = {rate: nll for rate, nll in found.items() if nll is not None}
        if not finite:
            raise FloatingPointError(
                f"{variant.label}: the loss was not finite at any of the learning rates {rates}:"
                " give lower ones"
            )
        return min(finite, key=finite.__getitem__)

    def train(self, variant: Variant, seed: int) -> Mapping[str, Any]:
        """Train at equal cost, with the learning rate that the short runs chose."""
        run = Run(variant, "train", seed)
        found = run.result(self.output)
        if found is not None:
            return found
        return self._trained(run, self.chosen_rate(variant), 1.0)

    def _trained(self, run: Run, learning_rate: float, share: float) -> dict[str, Any]:
        """The result of a training run, which is run first if it is not finished."""
        if (found := run.result(self.output)) is not None:
            return found
        learner = self.learner(run.variant, run.seed)
        cost = flops_per_crystal(learner)
        n_steps = self.budget.n_steps(cost, run.variant.label, share)
        log.info("%s: %d steps at %g", run.name, n_steps, learning_rate)
        budget = self.budget
        if run.stage == "search":  # whose end alone counts
            budget = replace(budget, n_validations=1)
        start = time.perf_counter()
        described = describe(learner) | {
            "learning_rate": learning_rate,
            "n_steps": n_steps,
            "crystals": n_steps * self.budget.batch_size,
            "epochs": n_steps * self.budget.batch_size / len(self.data.train),
            "flops": n_steps * self.budget.batch_size * cost,
        }
        with self.experiment.run(f"runs/{run.name}", run.stage) as training:
            try:
                params, best_step = learner.train(
                    *(budget, learning_rate, n_steps, training.folder, training.log),
                    training.run_id,
                )
            except FloatingPointError as error:
                if run.stage != "search":
                    raise
                log.warning("%s: %s", run.name, error)
                return run.finish(self.output, described | {"nll": None, "failed": str(error)})
            nll = learner.nll(params)
            if run.stage == "train":
                with remade(training.folder / MODEL) as made:
                    learner.policy.save(made, params)
            training.tracker.summarize(
                {"nll_per_crystal": float(nll.mean()), "flops": described["flops"]}
            )
        curve = read_metrics(training.metrics_folder)
        points = curve["validation/nll"] * [self.budget.batch_size, 1.0]
        result = described | {
            "nll": float(nll.mean()),
            "nll_standard_error": float(nll.std(ddof=1) / math.sqrt(len(nll))),
            "best_step": best_step,
            "curve": points.tolist(),
            "crystals_per_second": _speed(curve),
            "seconds": time.perf_counter() - start,
        }
        return run.finish(self.output, result)

    def evaluate(self, variant: Variant, seed: int, stage: Stage) -> Mapping[str, Any] | None:
        """Samples of a trained model, drawn freely or held to the grammar; None without a model."""
        run = Run(variant, stage, seed)
        if (found := run.result(self.output)) is not None:
            return found
        if Run(variant, "train", seed).result(self.output) is None:
            log.warning("%s: there is no trained model yet", run.name)
            return None
        policy, params = self.load(variant, seed)
        drawn = draw(policy, params, self.sampling(stage == "grammar"), self.samples.n, seed)
        return self.judged(run, drawn)

    def sampling(self, grammar: bool) -> SamplingConfig:
        """Settings of sampling."""
        how = self.samples
        return SamplingConfig(
            temperature=how.temperature, batch_size=how.batch_size, grammar=grammar
        )

    def judged(self, run: Run, drawn: Drawn, **more: Any) -> dict[str, Any]:
        """Evaluate the samples of a run and keep the result; `more` is added to it."""
        evaluation = assess_crystals(
            *(drawn.crystals, self.stability, self.reference),
            other=self.judge,
            config=EvaluationConfig(progress=False, metrics=self.samples.metrics),
        ).evaluation
        with self.experiment.run(f"runs/{run.name}", run.stage) as tracked:
            summarize(tracked.tracker, "samples", evaluation)
        return run.finish(self.output, result_of_samples(drawn, evaluation) | more)


def describe(learner: Learner) -> dict[str, Any]:
    """Size and cost of a learner, for tables."""
    network, tokens = learner.network, learner.n_tokens
    return {
        "non_embedding": non_embedding(network),
        "parameters": total(network),
        "vocabulary": network.vocabulary if isinstance(network, LlmConfig) else 0,
        "tokens_mean": float(tokens.mean()),
        "tokens_p95": float(np.percentile(tokens, 95)),
        "flops_per_crystal": flops_per_crystal(learner),
    }


def _speed(metrics: Mapping[str, np.ndarray]) -> float:
    """Crystals per second of training: the median, so that compilation does not count."""
    names = ("train/crystals_per_second", "train/texts_per_second")
    speeds = [metrics[name][:, 1] for name in names if name in metrics]
    return float(np.nanmedian(np.concatenate(speeds)))
