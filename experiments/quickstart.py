"""The whole cycle on a fresh machine: sample, evaluate, fine-tune with PPO, evaluate again.

    python experiments/quickstart.py

It needs no network, no account and no GPU. The report comes to runs/quickstart/report.html,
with the same numbers in report.json.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from crystaljax import plots
from crystaljax.data.writers import write
from crystaljax.evaluation.policies import Assessment
from crystaljax.evaluation.report import Picture, Report
from crystaljax.experiment.crystals import Bench, Setup
from crystaljax.experiment.run_folder import open_run
from crystaljax.hardware import hardware
from crystaljax.runtime import prepare
from crystaljax.tracking import Tracker, read_metrics
from crystaljax.training.reinforce import ReinforceConfig, reinforce


@dataclass(frozen=True)
class Config:
    """Sample, evaluate, fine-tune with PPO against energy above hull, evaluate again."""

    setup: Setup = field(default_factory=lambda: Setup(output=Path("runs/quickstart")))
    """Model, hull, potentials, folders."""
    rl: ReinforceConfig = field(default_factory=lambda: ReinforceConfig(n_steps=25))
    """The fine-tuning."""


def main(config: Config) -> None:
    start = time.perf_counter()
    open_run(config.setup.output, config)
    with Bench(config.setup) as bench:
        folder, resume_step = bench.run_folder("rl")
        settings = dataclasses.asdict(config)
        with Tracker(bench.output, config.setup.tracking, settings, resume_step) as tracker:
            before = bench.assess(bench.base, 0)
            tuned = reinforce(
                bench.task(), bench.base, config.rl, folder, tracker.log, run_id=tracker.run_id
            )
            after = bench.assess(tuned, 1)
            bench.policy.save(bench.output / "model", tuned)
            write(after.crystals[np.isfinite(after.e_above_hull)], bench.output / "after.zip")
            page = report(config, bench, before, after, time.perf_counter() - start)
            tracker.log_artifact(bench.output / "after.zip", "after", "structures")
    model = bench.output / "model"
    Console().print(f"The report is in [bold]{page}[/bold], the tuned model in {model}.")


def report(
    config: Config, bench: Bench, before: Assessment, after: Assessment, seconds: float
) -> Path:
    """Write the report, its pictures and report.json; returns the page's path."""
    shown = np.argsort(np.where(np.isfinite(after.e_above_hull), after.e_above_hull, np.inf))[:8]
    captions = [f"{x:.3f} eV/atom above hull" for x in after.e_above_hull[shown]]
    metrics = read_metrics(bench.output)
    energies = {"before PPO": before.e_above_hull, "after PPO": after.e_above_hull}
    curves = {"mean": metrics["reward/mean"], "median": metrics["reward/median"]}
    figures = {
        "energies": (
            plots.e_above_hull_histogram(energies),
            "Energy above hull of fresh samples, as generated",
        ),
        "structures": (
            plots.structure_grid(after.crystals[shown], captions),
            "Samples after PPO of lowest energy above hull",
        ),
        "reward": (plots.training_curves(curves, bench.quantity.label), "Reward during PPO"),
        "kl": (
            plots.training_curves({"KL": metrics["rl/kl_base"]}, "KL from the base model (nats)"),
            "Divergence of the policy from the model it started from",
        ),
    }
    pictures = [
        Picture(plots.save(figure, bench.output / f"{name}.png"), caption)
        for name, (figure, caption) in figures.items()
    ]
    notes = [
        f"Model {config.setup.model.name}; {config.rl.n_steps} {config.rl.algorithm.upper()} steps"
        f" of {config.rl.batch_size} samples, τ = {bench.quantity.of(config.rl.tau)}, reward"
        f" {bench.rewarded_by}; {seconds:.0f} s on {hardware()}.",
        *bench.notes,
    ]
    kl = float(metrics["rl/kl_base"][-1, 1])
    extra = {"seconds": seconds, "hardware": hardware(), "kl_from_base_nats": kl}
    result = Report(
        "Stability by PPO",
        {"before PPO": before.evaluation, "after PPO": after.evaluation},
        pictures,
        notes=notes,
        extra=extra,
    )
    return result.write(bench.output)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    prepare()
    main(tyro.cli(Config))
