"""Reward against divergence from the base model: PPO at several τ, GRPO, DPO and MCMC.

    python experiments/kl_reward.py small

Every method gets the same number of rewarded samples. The report shows mean reward against KL along
each run, and the rates of fresh samples of each final model. Markov chains train no model; their
final states are evaluated. `small` takes about 15 minutes on two cores. Give --setup.stability.hull
and --setup.reference for meaningful numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystaljax import plots
from crystaljax.evaluation.policies import Assessment, assess_crystals
from crystaljax.evaluation.report import Report, Table
from crystaljax.experiment.best import BestStructures, ReportConfig
from crystaljax.experiment.crystals import Bench, Setup
from crystaljax.experiment.experiment import Experiment, TrainingRun, summarize
from crystaljax.experiment.main import run
from crystaljax.experiment.rewarded import best_of, check_reward, rewarded
from crystaljax.mcmc import MCMCConfig, run_chains
from crystaljax.numbers import number_text
from crystaljax.policies.base import Params, SamplingConfig
from crystaljax.ranges import NOT_NEGATIVE, check
from crystaljax.tracking import read_metrics
from crystaljax.training.optimizer import fine_tuning
from crystaljax.training.preference import PreferenceConfig, prefer
from crystaljax.training.reinforce import ReinforceConfig, reinforce


@dataclass(frozen=True)
class Config:
    """The same budget of rewarded samples for every method."""

    setup: Setup = field(default_factory=lambda: Setup(output=Path("runs/kl_reward")))
    """Model, hull, potentials, folders."""
    taus: tuple[float, ...] = (0.03, 0.1, 0.3)
    """τ of the PPO runs, in the reward's unit."""
    ppo: ReinforceConfig = field(default_factory=lambda: ReinforceConfig(n_steps=20))
    """PPO; its τ is taken from --taus."""
    grpo: ReinforceConfig = field(
        default_factory=lambda: ReinforceConfig(algorithm="grpo", n_steps=20, tau=0.04)
    )
    """GRPO."""
    dpo: PreferenceConfig = field(
        default_factory=lambda: PreferenceConfig(n_iterations=4, n_samples=500)
    )
    """Iterated DPO."""
    mcmc: MCMCConfig = field(default_factory=lambda: MCMCConfig(n_chains=100, n_steps=20))
    """Markov chains from the base model's samples."""
    report: ReportConfig = field(default_factory=ReportConfig)
    """The report. Its table of candidates is of the method that ends with the largest reward."""

    def __post_init__(self) -> None:
        check(self, taus=NOT_NEGATIVE)


PRESETS = {
    "small": ("Two CPU cores, 15 minutes.", Config()),
    "paper": (
        "One GPU: PPO with the settings of arXiv 2504.02367, which has no such comparison.",
        Config(
            setup=Setup(
                output=Path("runs/kl_reward"),
                n_samples=1000,
                sampling=SamplingConfig(batch_size=1000),
            ),
            taus=(0.01, 0.03, 0.1, 0.3, 1.0),
            ppo=ReinforceConfig(
                n_steps=200, batch_size=1000, optimizer=fine_tuning(1e-4, b2=0.999)
            ),
            grpo=ReinforceConfig(
                algorithm="grpo",
                n_steps=200,
                batch_size=1000,
                tau=0.04,
                optimizer=fine_tuning(1e-4, b2=0.999),
            ),
            dpo=PreferenceConfig(
                n_iterations=20,
                n_samples=10_000,
                batch_size=100,
            ),
            mcmc=MCMCConfig(n_chains=1000, n_steps=200),
        ),
    ),
}


@dataclass(frozen=True)
class MethodResult:
    """One run and its results."""

    assessment: Assessment
    kl: np.ndarray | None
    """float [n]: KL from the base model along the run, nats; None for Markov chains."""
    reward: np.ndarray
    """float [n]: mean reward along the run."""


def main(config: Config) -> None:
    setup = config.setup
    with (
        Experiment(config, setup.output, setup.tracking, "report") as experiment,
        Bench(setup) as bench,
    ):
        config.report.check(bench.columns)
        bench.record(experiment)
        base = bench.assess(bench.base, 0)
        methods: dict[str, Method] = {
            f"PPO, τ = {tau:g}": Method(reinforce, replace(config.ppo, tau=tau))
            for tau in config.taus
        }
        methods["GRPO"] = Method(reinforce, config.grpo)
        methods["DPO"] = Method(prefer, config.dpo)
        found = {
            label: trained(experiment, bench, method, label, i)
            for i, (label, method) in enumerate(methods.items())
        }
        found["MCMC"] = chains(experiment, bench, config.mcmc)
        mean = f"mean {bench.quantity.label}"
        curves = {label: (x.kl, x.reward) for label, x in found.items() if x.kl is not None}
        reward = {
            label: np.stack([np.linspace(0, 100, len(x.reward)), x.reward], axis=1)
            for label, x in found.items()
        }
        figures = {
            "trade_off": (
                plots.trade_off(curves, "KL from the base model (nats)", mean),
                "Mean reward of the rollouts against KL; a large dot ends each run",
            ),
            "reward": (
                plots.training_curves(reward, mean, "% of the run"),
                "Mean reward along the runs",
            ),
        }
        rows = [["method", "last KL (nats)", f"last {mean}"]]
        for label, x in found.items():
            kl = "–" if x.kl is None else f"{x.kl[-1]:.2f}"
            rows.append([label, kl, number_text(x.reward[-1])])
        words = (
            f"Model {setup.model.name}; {config.ppo.n_steps * config.ppo.batch_size} rewarded"
            f" samples for each method, reward {bench.rewarded_by}{bench.guarded_by}."
        )
        evaluated = {"base": base, **{label: x.assessment for label, x in found.items()}}
        values = rewarded(bench, evaluated)
        if values is not None:
            figures |= values.figures(evaluated)
        first = max(found, key=lambda label: found[label].reward[-1])
        report = Report(
            "Reward against divergence",
            {label: x.evaluation for label, x in evaluated.items()},
            experiment.pictures(figures),
            [Table("The ends of the runs", rows), *([] if values is None else [values.table()])],
            [words, *bench.notes],
        )
        best = best_of(found[first].assessment, first, values, config.report.columns)
        experiment.finish(report, best=best)


class Method(NamedTuple):
    """A way of learning from rewards."""

    train: Callable[..., Params]
    config: ReinforceConfig | PreferenceConfig


def trained(
    experiment: Experiment, bench: Bench, method: Method, label: str, index: int
) -> MethodResult:
    """Train by one method from the base model, and evaluate fresh samples."""
    name = label.lower().replace(", τ = ", "-")
    with experiment.run(name, label.partition(",")[0], method.config) as one:
        params = method.train(
            bench.task(), bench.base, method.config, one.folder, one.log, run_id=one.run_id
        )
        metrics = read_metrics(one.folder)
        kl = metrics["dpo/kl_base" if "dpo/kl_base" in metrics else "rl/kl_base"][:, 1]
        assessment = bench.assess(params, 1 + index)
        finish_run(one, assessment)
    return MethodResult(assessment, kl, metrics["reward/mean"][:, 1])


def chains(experiment: Experiment, bench: Bench, config: MCMCConfig) -> MethodResult:
    """Run Markov chains, and evaluate their final states."""
    with experiment.run("mcmc", "MCMC", config) as one:
        reached = run_chains(bench.task(), bench.base, config, one.folder, one.log)
        metrics = read_metrics(one.folder)
        ends = assess_crystals(
            *(reached, bench.stability, bench.reference),
            other=bench.judge,
            config=bench.evaluation,
        )
        finish_run(one, ends)
    return MethodResult(ends, None, metrics["reward/mean"][:, 1])


def finish_run(one: TrainingRun, found: Assessment) -> None:
    """The samples of a method's end as results of its own run in W&B."""
    summarize(one.tracker, "samples", found.evaluation)
    BestStructures.of(found, "Samples of lowest energy above hull").track(
        one.tracker, one.folder / "structures"
    )


if __name__ == "__main__":
    run(main, PRESETS, check=check_reward)
