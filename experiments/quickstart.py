"""The whole cycle on a fresh machine: sample, evaluate, fine-tune with PPO, evaluate again.

    python experiments/quickstart.py

It needs no network, no account and no GPU. The report comes to runs/quickstart/report.html,
with the same numbers in report.json.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from crystaljax import plots
from crystaljax.assessment import Assessment, assess
from crystaljax.checkpoints import RunCheckpoints
from crystaljax.data.dataset import load
from crystaljax.data.writers import write
from crystaljax.evaluation.evaluate import Reference
from crystaljax.evaluation.limits import writable_folder
from crystaljax.evaluation.report import Picture, Report
from crystaljax.hardware import hardware
from crystaljax.policies import load_policy
from crystaljax.rewards.ehull import EnergyAboveHull, load_hull
from crystaljax.rewards.potentials import create_potential
from crystaljax.runtime import prepare
from crystaljax.sampling import SamplingConfig
from crystaljax.tracking import Tracker, TrackingConfig, read_metrics
from crystaljax.training.reinforce import ReinforceConfig, reinforce


@dataclass(frozen=True)
class Config:
    """Sample, evaluate, fine-tune with PPO against energy above hull, evaluate again."""

    model: Path = Path(__file__).parents[1] / "checkpoints" / "wyckoff-mp20bt"
    """Folder of the model to start from."""
    reference: str = "prototypes"
    """Crystals that do not count as new: a file, a folder or a registered dataset."""
    hull: str = "demonstration"
    """Hull to measure against: the demonstration hull, or a file of formulas and energies."""
    n_samples: int = 200
    """Fresh samples evaluated before and after."""
    output: Path = Path("runs/quickstart")
    """Folder of the report and the run."""
    resume: bool = False
    """Go on with an interrupted run in the output folder, in place of starting anew."""
    seed: int = 0
    """Of the samples."""
    ppo: ReinforceConfig = field(
        default_factory=lambda: ReinforceConfig(n_steps=25, sampling=SamplingConfig(batch_size=100))
    )
    """The fine-tuning."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


def main(config: Config) -> None:
    start = time.perf_counter()
    output = writable_folder(config.output)
    if not config.resume:
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
    policy, base = load_policy(config.model)
    energy = EnergyAboveHull(create_potential("chgnet"), load_hull(config.hull))
    reference = Reference.of(load(config.reference).crystals, config.reference)

    def fresh(params: object, seed: int) -> Assessment:
        return assess(
            policy,
            params,
            energy,
            reference,
            n=config.n_samples,
            seed=seed,
            sampling=config.ppo.sampling,
        )

    with RunCheckpoints(output / "checkpoints") as checkpoints:
        resume_step = checkpoints.latest
    with Tracker(output, config.tracking, dataclasses.asdict(config), resume_step) as tracker:
        before = fresh(base, config.seed + 1_000_001)
        tuned = reinforce(
            policy,
            base,
            energy,
            config.ppo,
            output,
            tracker.log,
            reference=reference.structures,
            run_id=tracker.run_id,
        )
        after = fresh(tuned, config.seed + 1_000_002)
        policy.save(output / "model", tuned)
        write(after.crystals[np.isfinite(after.e_above_hull)], output / "after.zip")
        page = report(config, before, after, output, time.perf_counter() - start)
        tracker.log_artifact(output / "after.zip", "after", "structures")
    Console().print(f"The report is in [bold]{page}[/bold], the tuned model in {output / 'model'}.")


def report(
    config: Config, before: Assessment, after: Assessment, output: Path, seconds: float
) -> Path:
    """Write the report, its pictures and report.json; returns the page's path."""
    shown = np.argsort(np.where(np.isfinite(after.e_above_hull), after.e_above_hull, np.inf))[:8]
    captions = [f"{x:.3f} eV/atom above hull" for x in after.e_above_hull[shown]]
    metrics = read_metrics(output)
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
        "reward": (plots.training_curves(curves, "reward (eV/atom)"), "Reward during PPO"),
        "kl": (
            plots.training_curves({"KL": metrics["rl/kl_base"]}, "KL from the base model (nats)"),
            "Divergence of the policy from the model it started from",
        ),
    }
    pictures = [
        Picture(plots.save(figure, output / f"{name}.png"), caption)
        for name, (figure, caption) in figures.items()
    ]
    notes = [
        f"Model {config.model.name}; {config.ppo.n_steps} PPO steps of {config.ppo.batch_size} "
        f"samples, τ = {config.ppo.tau:g} eV/atom; {seconds:.0f} s on {hardware()}.",
    ]
    if config.hull == "demonstration":
        notes.append(
            "Energies are against the demonstration hull, which knows few compounds: most crystals "
            "look more stable than they are. Give a real hull with --hull."
        )
    kl = float(metrics["rl/kl_base"][-1, 1])
    extra = {"seconds": seconds, "hardware": hardware(), "kl_from_base_nats": kl}
    result = Report(
        "Stability by PPO",
        {"before PPO": before.evaluation, "after PPO": after.evaluation},
        pictures,
        notes,
        extra,
    )
    return result.write(output)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    prepare()
    main(tyro.cli(Config))
