"""Reward against divergence from the base model: PPO at several τ, GRPO, DPO and MCMC.

    python experiments/kl_reward.py small

Every method gets the same number of rewarded samples. The report shows mean reward against KL along
each run, and what fresh samples of each final model are worth; Markov chains, which learn nothing,
are judged by where they end. `small` takes some 15 minutes on two cores; give
--setup.stability.hull and --setup.reference for numbers that mean something.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from crystaljax import plots
from crystaljax.evaluation.policies import Assessment, assess_crystals
from crystaljax.evaluation.report import Picture, Report, Table
from crystaljax.experiment.crystals import Bench, Setup
from crystaljax.experiment.run_folder import open_run
from crystaljax.hardware import hardware
from crystaljax.mcmc import MCMCConfig, run_chains
from crystaljax.policies.base import Params, SamplingConfig
from crystaljax.ranges import NOT_NEGATIVE, check
from crystaljax.runtime import prepare
from crystaljax.tracking import Tracker, read_metrics
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
    """PPO, its τ aside."""
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

    def __post_init__(self) -> None:
        check(self, taus=NOT_NEGATIVE)


PRESETS = {
    "small": ("Two CPU cores, some 15 minutes.", Config()),
    "paper": (
        "PPO with the settings of arXiv 2504.02367, which does not compare it; for a GPU.",
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
    """One run and what came of it."""

    assessment: Assessment
    kl: np.ndarray | None
    """float [n]: KL from the base model along the run, nats; None for Markov chains."""
    reward: np.ndarray
    """float [n]: mean reward along the run."""


def main(config: Config) -> None:
    start = time.perf_counter()
    open_run(config.setup.output, config)
    with Bench(config.setup) as bench:
        base = bench.assess(bench.base, 0)
        runs: dict[str, Callable[..., Params]] = {}
        for tau in config.taus:
            with_tau = dataclasses.replace(config.ppo, tau=tau)
            runs[f"PPO, τ = {tau:g}"] = partial(reinforce, config=with_tau)
        runs["GRPO"] = partial(reinforce, config=config.grpo)
        runs["DPO"] = partial(prefer, config=config.dpo)
        outcomes = {
            label: trained(bench, train, label, i) for i, (label, train) in enumerate(runs.items())
        }
        outcomes["MCMC"] = chains(bench, config.mcmc)
        page = report(config, bench, base, outcomes, time.perf_counter() - start)
    Console().print(f"The report is in [bold]{page}[/bold].")


def trained(bench: Bench, train: Callable[..., Params], label: str, index: int) -> MethodResult:
    """One way of learning, from the base model to fresh samples."""
    folder, resume_step = bench.run_folder(label.lower().replace(", τ = ", "-"))
    settings: dict[str, Any] = {"label": label, **dataclasses.asdict(bench.setup)}
    with Tracker(folder, bench.setup.tracking, settings, resume_step) as tracker:
        params = train(bench.task(), bench.base, folder=folder, track=tracker.log)
    metrics = read_metrics(folder)
    kl = metrics["dpo/kl_base" if "dpo/kl_base" in metrics else "rl/kl_base"][:, 1]
    return MethodResult(bench.assess(params, 1 + index), kl, metrics["reward/mean"][:, 1])


def chains(bench: Bench, config: MCMCConfig) -> MethodResult:
    """Markov chains, and where they end."""
    folder, resume_step = bench.run_folder("mcmc")
    with Tracker(folder, bench.setup.tracking, dataclasses.asdict(config), resume_step) as tracker:
        reached = run_chains(bench.task(), bench.base, config, folder, tracker.log)
    metrics = read_metrics(folder)
    ends = assess_crystals(reached, bench.stability, bench.reference, other=bench.judge)
    return MethodResult(ends, None, metrics["reward/mean"][:, 1])


def report(
    config: Config,
    bench: Bench,
    base: Assessment,
    outcomes: dict[str, MethodResult],
    seconds: float,
) -> Path:
    """Write the report with its pictures; returns the page's path."""
    curves = {label: (x.kl, x.reward) for label, x in outcomes.items() if x.kl is not None}
    reward = {
        label: np.stack([np.linspace(0, 1, len(x.reward)), x.reward], axis=1)
        for label, x in outcomes.items()
    }
    mean = f"mean {bench.quantity.label}"
    figures = {
        "trade_off": (
            plots.trade_off(curves, "KL from the base model (nats)", mean),
            "Mean reward of the rollouts against KL; a large dot ends each run",
        ),
        "reward": (
            plots.training_curves(reward, mean, "share of the run"),
            "Mean reward along the runs",
        ),
    }
    pictures = [
        Picture(plots.save(figure, bench.output / f"{name}.png"), caption)
        for name, (figure, caption) in figures.items()
    ]
    rows = [["method", "last KL (nats)", f"last {mean}"]]
    for label, x in outcomes.items():
        kl = "–" if x.kl is None else f"{x.kl[-1]:.2f}"
        rows.append([label, kl, f"{x.reward[-1]:.3f}"])
    notes = [
        f"Model {config.setup.model.name}; {config.ppo.n_steps * config.ppo.batch_size} rewarded"
        f" samples for each method, reward {bench.rewarded_by};"
        f" {seconds:.0f} s on {hardware()}.",
        *bench.notes,
    ]
    evaluations = {"base": base.evaluation}
    evaluations |= {label: x.assessment.evaluation for label, x in outcomes.items()}
    result = Report(
        "Reward against divergence",
        evaluations,
        pictures,
        [Table("The ends of the runs", rows)],
        notes,
        {"seconds": seconds, "hardware": hardware()},
    )
    return result.write(bench.output)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    prepare()
    main(tyro.extras.overridable_config_cli(PRESETS))
