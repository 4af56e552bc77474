"""The whole cycle on a fresh machine: sample, evaluate, fine-tune with PPO, evaluate again.

    python experiments/quickstart.py

It needs no network, no account and no GPU. The report comes to runs/quickstart/report.html,
with the same numbers in report.json.
"""

from __future__ import annotations

if __name__ == "__main__":
    print("Loading JAX and crystaljax ...", flush=True)

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crystaljax import plots
from crystaljax.data.writers import write
from crystaljax.evaluation.report import Report
from crystaljax.experiment.best import ReportConfig
from crystaljax.experiment.crystals import Bench, Setup
from crystaljax.experiment.curves import last_kl, rl_figures
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.main import run
from crystaljax.experiment.rewarded import best_of, check_reward, rewarded
from crystaljax.experiment.run_folder import remade
from crystaljax.training.reinforce import ReinforceConfig, reinforce


@dataclass(frozen=True)
class Config:
    """Sample, evaluate, fine-tune with PPO against energy above hull, evaluate again."""

    setup: Setup = field(default_factory=lambda: Setup(output=Path("runs/quickstart"), judge=""))
    """Model, hull, potentials, folders."""
    rl: ReinforceConfig = field(default_factory=lambda: ReinforceConfig(n_steps=25))
    """The fine-tuning."""
    report: ReportConfig = field(default_factory=ReportConfig)
    """The report's table of candidates."""


def main(config: Config) -> None:
    setup = config.setup
    with (
        Experiment(config, setup.output, setup.tracking, "RL", checkpoints="rl") as experiment,
        Bench(setup) as bench,
    ):
        config.report.check(bench.columns)
        bench.record(experiment)
        before = bench.assess(bench.base, 0)
        ppo = experiment.main
        tuned = reinforce(
            bench.task(), bench.base, config.rl, ppo.folder, ppo.log, run_id=ppo.run_id
        )
        after = bench.assess(tuned, 1)
        model, samples = experiment.folder / "model", experiment.folder / "after.zip"
        with remade(model) as made:
            bench.policy.save(made, tuned)
        write(after.crystals[np.isfinite(after.e_above_hull)], samples)
        found = {"before PPO": before, "after PPO": after}
        values = rewarded(bench, found)
        best = best_of(after, "after PPO", values, config.report.columns)
        energies = {label: each.e_above_hull for label, each in found.items()}
        figures = {
            "energies": (
                plots.e_above_hull_histogram(energies),
                "Energy above hull of fresh samples, as generated",
            ),
            "structures": (best.figure(), best.caption),
            **rl_figures(experiment.folder, bench.quantity.label),
        }
        if values is not None:
            figures |= values.figures(found)
        report = Report(
            f"{bench.aim} by PPO",
            {label: each.evaluation for label, each in found.items()},
            experiment.pictures(figures),
            [] if values is None else [values.table()],
            notes=[bench.words(config.rl), *bench.notes],
            extra={"kl_from_base_nats": last_kl(experiment.folder)},
        )
        experiment.finish(report, best=best, outputs={model: "model", samples: "structures"})


if __name__ == "__main__":
    run(main, Config, check=check_reward)
