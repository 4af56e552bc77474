"""Tokenizations of crystals compared on equal terms.

    python experiments/tokenizations.py small --data.train mp20_bt/train.csv.gz \
        --data.validation mp20_bt/val.csv.gz --samples.stability.hull mp_hull.csv.gz

In each tokenization, a transformer core with the same number of non-embedding parameters learns the
same crystals, at equal cost in floating-point operations, with the best of the same learning rates.
The report has the validation NLL in nats per crystal at one resolution, rates of samples drawn
freely and under the grammar, distances from the data, and speeds. `small` takes 40 minutes on one
CPU core. Every run has a folder of its own in OUTPUT/runs. Started again, the script goes on with
unfinished runs, and several processes may share the work: each takes runs that no other has begun.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from crystaljax.evaluation.nll import Resolution
from crystaljax.evaluation.report import Report
from crystaljax.experiment.comparison import tables
from crystaljax.experiment.comparison.budget import BudgetConfig
from crystaljax.experiment.comparison.cores import CoreConfig
from crystaljax.experiment.comparison.data import DataConfig
from crystaljax.experiment.comparison.reward_learning import (
    Method,
    RewardLearningConfig,
    check_learning,
    curves_figure,
    end_table,
    learn,
)
from crystaljax.experiment.comparison.stages import Comparison, SamplesConfig
from crystaljax.experiment.comparison.variants import Order, Variant, selected, variants_of
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.main import run
from crystaljax.experiment.run_results import check_seeds
from crystaljax.text.cutting import Cutting
from crystaljax.tokenizations.registry import tokenization_names
from crystaljax.tracking import TrackingConfig
from crystaljax.training.optimizer import fine_tuning
from crystaljax.training.preference import PreferenceConfig
from crystaljax.training.reinforce import ReinforceConfig

StageName = Literal["train", "evaluate", "rl"]

METHODS: tuple[Method, ...] = ("dpo", "grpo")

VARY = ("only", "seeds", "stages")
"""Settings that may differ between processes that share one comparison."""


@dataclass(frozen=True)
class Config:
    """Tokenizations to compare, their data and their cost."""

    tokenizations: tuple[str, ...] = tokenization_names()
    """Tokenizations by name, with options after a colon, or as FILE.py:CLASS."""
    cuttings: tuple[Cutting, ...] = ("own",)
    """Ways of cutting texts: own words (symbols where a format has none), symbols, bpe."""
    orders: tuple[Order, ...] = ("canonical",)
    """Crystals in canonical descriptions, or in random equivalent ones."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the training runs of each variant. The report shows these."""
    only: tuple[str, ...] = ()
    """Labels of variants to compute now, as in the tables ("cif", "cif, bpe, augmented"). Not
    given: all."""
    stages: tuple[StageName, ...] = ("train", "evaluate")
    """Stages to compute now: training, its evaluation, and learning by reward from the trained
    models."""
    core: CoreConfig = field(default_factory=CoreConfig)
    """The transformer."""
    data: DataConfig = field(default_factory=DataConfig)
    """The crystals."""
    resolution: Resolution = field(default_factory=Resolution)
    """Decimals, or bins, of all tokenizations."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """The trainings."""
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    """The evaluation."""
    rl: RewardLearningConfig = field(default_factory=RewardLearningConfig)
    """Learning by reward, with the stage rl."""
    output: Path = Path("runs/tokenizations")
    """Folder of the comparison."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)


PRESETS = {
    "small": (
        "One seed of a small core; 40 minutes on one CPU core.",
        Config(
            core=CoreConfig(n_layers=3, n_heads=2, head_size=32),
            data=DataConfig(max_sites=6, max_tokens=512, n_validation=256),
            budget=BudgetConfig(
                flops=2e12, learning_rates=(1e-3, 3e-3, 1e-2, 3e-2), n_validations=6
            ),
            samples=SamplesConfig(n=200),
            rl=RewardLearningConfig(
                dpo=PreferenceConfig(
                    n_iterations=4, n_samples=200, batch_size=20, optimizer=fine_tuning(1e-4)
                ),
                grpo=ReinforceConfig(
                    algorithm="grpo",
                    n_steps=20,
                    batch_size=40,
                    tau=0.04,
                    optimizer=fine_tuning(1e-4),
                ),
            ),
        ),
    ),
    "gpu": (
        "One seed, for 8 minutes of an H100.",
        Config(
            core=CoreConfig(n_layers=6, n_heads=6, head_size=32),
            data=DataConfig(max_sites=20, max_tokens=1024),
            budget=BudgetConfig(flops=3e14, batch_size=128),
            samples=SamplesConfig(batch_size=512),
        ),
    ),
    "paper": (
        "Three seeds, all cuttings and orders; 20 minutes of one core or more for each training.",
        Config(
            cuttings=("own", "bpe"),
            orders=("canonical", "augmented"),
            seeds=(0, 1, 2),
            core=CoreConfig(n_layers=3, n_heads=3, head_size=32),
            data=DataConfig(max_sites=20, max_tokens=1024),
            budget=BudgetConfig(flops=1.5e13, search=0.05),
        ),
    ),
}


def main(config: Config) -> None:
    variants = variants_of(config.tokenizations, config.cuttings, config.orders)
    chosen = selected(variants, config.only)
    with Experiment(config, config.output, config.tracking, "comparison", vary=VARY) as experiment:
        for name in ("train", "validation"):
            experiment.use(name, getattr(config.data, name))
        comparison = Comparison(
            *(experiment, variants, config.core, config.data),
            *(config.resolution, config.budget, config.samples),
        )
        with comparison:
            if "rl" in config.stages:
                check_learning(comparison, config.rl)
            if "train" in config.stages:
                comparison.check(chosen, config.seeds)
            for seed in config.seeds:
                for variant in chosen:
                    do = partial(work, config, comparison, variant, seed)
                    comparison.do(variant, seed, do)
        report(config, comparison, experiment)


def work(config: Config, comparison: Comparison, variant: Variant, seed: int) -> None:
    """Do all unfinished work on a variant and a seed."""
    if "train" in config.stages:
        comparison.ceiling(variant)
        comparison.train(variant, seed)
    if "evaluate" in config.stages:
        comparison.evaluate(variant, seed, "free")
        if variant.is_text:
            comparison.evaluate(variant, seed, "grammar")
    if "rl" in config.stages:
        for method in METHODS:
            learn(comparison, config.rl, variant, seed, method)


def report(config: Config, comparison: Comparison, experiment: Experiment) -> None:
    """Tables, pictures and CSV of all results that are there."""
    results = tables.Results.read(comparison.output, comparison.variants, config.seeds)
    csv = comparison.output / "comparison.csv"
    tables.write_csv(results, csv)
    seed = config.seeds[0]
    learnt = {method: curves_figure(results, method, seed) for method in METHODS}
    pictures = experiment.pictures(
        {
            "trade_off": (
                tables.trade_off(results),
                "Likelihood and discoveries at equal cost, against the length of sequences",
            ),
            "curves": (
                tables.learning_curves(results, seed),
                f"Validation NLL during training, seed {seed}",
            ),
        }
        | {
            method: (figure, f"Learning by reward, {method.upper()}, seed {seed}")
            for method, figure in learnt.items()
            if figure is not None
        }
    )
    found = [
        tables.training_table(results),
        *(tables.samples_table(results, x) for x in ("free", "grammar")),
        *([end_table(results, config.rl)] if any(learnt.values()) else []),
    ]
    notes = [
        comparison.data.words,
        *comparison.failures,
        *tables.notes(results, config.budget, config.resolution),
    ]
    title, headline = "Tokenizations compared", results.headline
    experiment.finish(Report(title, {}, pictures, found, notes, headline), outputs={csv: "table"})


if __name__ == "__main__":
    run(main, PRESETS)
