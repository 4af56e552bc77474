"""Reinforcement learning towards stable crystals, against fine-tuning on stable ones.

    python experiments/stability_rl.py small

The experiment of CrystalFormer-RL (arXiv 2504.02367) on energy above hull. The base model is
compared with two others: one fine-tuned by likelihood (SFT) on its own samples that were stable
once relaxed, and one fine-tuned by reinforcement learning (RL) on the energy of unrelaxed samples.
The report has the training curve, energies before, relaxed and after RL, and the S.U.N. rates of
14 space groups. `small` takes some 20 minutes on two cores, `paper` hours on a GPU; give
--setup.stability.hull and --setup.reference for numbers that mean something.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from rich.console import Console
from setup import Bench, Setup

from crystaljax import plots
from crystaljax.assessment import Assessment, by_space_group
from crystaljax.composition import element_counts
from crystaljax.crystal import Crystals
from crystaljax.data.writers import write
from crystaljax.evaluation.rates import Rate
from crystaljax.evaluation.report import Picture, Report, Table
from crystaljax.hardware import hardware
from crystaljax.policies import Params
from crystaljax.runtime import prepare
from crystaljax.sampling import SamplingConfig
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.tracking import Tracker, read_metrics
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.pretrain import PretrainConfig, pretrain
from crystaljax.training.reinforce import ReinforceConfig, reinforce

GROUPS = (1, 2, 5, 12, 15, 31, 38, 62, 99, 139, 166, 194, 216, 225)


@dataclass(frozen=True)
class RelaxConfig:
    """Samples of the base model that are relaxed, to be learnt from."""

    n: int = 100
    """Samples to relax, of those assessed."""
    fmax: float = 0.05
    """eV/Å: largest force of a relaxed structure."""
    max_steps: int = 60
    """Steps at most."""
    threshold: float = 0.1
    """eV/atom above hull up to which a relaxed sample is learnt from."""


@dataclass(frozen=True)
class Config:
    """Base model, SFT on relaxed stable samples, and RL, side by side."""

    setup: Setup = field(default_factory=lambda: Setup(output=Path("runs/stability_rl")))
    """Model, hull, potentials, folders."""
    relax: RelaxConfig = field(default_factory=RelaxConfig)
    """What SFT learns from."""
    sft: PretrainConfig = field(
        default_factory=lambda: PretrainConfig(
            n_epochs=10,
            batch_size=10,
            optimizer=OptimizerConfig(learning_rate=3e-5, warmup_steps=5, ema_decay=0.0),
        )
    )
    """Fine-tuning by likelihood."""
    rl: ReinforceConfig = field(default_factory=lambda: ReinforceConfig(n_steps=50))
    """Reinforcement learning."""
    groups: tuple[int, ...] = GROUPS
    """Space groups whose S.U.N. rates are compared."""
    n_per_group: int = 20
    """Samples of each of them, of each model."""


PRESETS = {
    "small": ("Two CPU cores, some 20 minutes.", Config()),
    "paper": (
        "The paper's sizes, for a GPU.",
        Config(
            setup=Setup(
                output=Path("runs/stability_rl"),
                n_samples=1000,
                sampling=SamplingConfig(batch_size=1000),
            ),
            relax=RelaxConfig(n=5000, fmax=0.02, max_steps=500),
            sft=PretrainConfig(
                batch_size=100, n_epochs=20, optimizer=OptimizerConfig(learning_rate=3e-5)
            ),
            rl=ReinforceConfig(n_steps=500, batch_size=1000),
            n_per_group=1000,
        ),
    ),
}


class Stable(NamedTuple):
    """Samples of the base model that were relaxed."""

    e_above_hull: np.ndarray
    """float64 [n]: eV/atom after relaxation, nan where it failed."""
    crystals: Crystals
    """Those below the threshold, with the symmetry that they have relaxed."""
    words: str
    """How it went."""


def main(config: Config) -> None:
    start = time.perf_counter()
    with Bench(config.setup) as bench:
        folder, resume_step = bench.run_folder("rl")
        settings = dataclasses.asdict(config)
        with Tracker(bench.output, config.setup.tracking, settings, resume_step) as tracker:
            base = bench.assess(bench.base, 0, max(config.setup.n_samples, config.relax.n))
            stable = relaxed_samples(bench, base, config.relax)
            tuned = fine_tuned(bench, stable, config)
            learnt = reinforce(
                bench.task(), bench.base, config.rl, folder, tracker.log, run_id=tracker.run_id
            )
            assessments = {"base": base, "SFT": bench.assess(tuned, 1)}
            assessments["RL"] = bench.assess(learnt, 2)
            models = {"base": bench.base, "RL": learnt}
            rates = {label: group_rates(bench, model, config) for label, model in models.items()}
            bench.policy.save(bench.output / "model", learnt)
            last = assessments["RL"]
            write(last.crystals[np.isfinite(last.e_above_hull)], bench.output / "rl.zip")
            seconds = time.perf_counter() - start
            page = report(config, bench, assessments, stable, rates, seconds)
            tracker.log_artifact(bench.output / "model", "model", "model")
    Console().print(f"The report is in [bold]{page}[/bold].")


def relaxed_samples(bench: Bench, base: Assessment, config: RelaxConfig) -> Stable:
    """Relax samples and keep those that end below the threshold."""
    rows = np.flatnonzero(base.evaluation.columns["decoded"])[: config.n]
    energy = bench.stability.energy
    crystals = base.crystals[rows]
    relaxed = energy.potential.relax(crystals, fmax=config.fmax, max_steps=config.max_steps)
    counts = element_counts(crystals)
    above = energy.above(counts, relaxed.energy, relaxed.cells).e_above_hull
    kept = [
        cell
        for cell, e in zip(relaxed.cells, above, strict=True)
        if cell is not None and e <= config.threshold
    ]
    if not kept:
        raise ValueError(
            f"none of {len(rows)} relaxed samples is within {config.threshold} eV/atom of the hull:"
            " relax more of them, or raise the threshold"
        )
    found, _ = symmetrize(kept, symprec=0.1)
    sites = np.asarray(found.n_sites)
    found = found[(sites > 0) & (sites <= bench.policy.config.max_sites)]
    words = (
        f"{len(rows)} of {len(base.crystals)} base samples were relaxed"
        f" (FIRE to {config.fmax:g} eV/Å within {config.max_steps} steps):"
        f" {relaxed.converged.sum()} converged, {len(kept)} ended within"
        f" {config.threshold:g} eV/atom of the hull, SFT learnt from {len(found)}."
    )
    return Stable(above, found, words)


def fine_tuned(bench: Bench, stable: Stable, config: Config) -> Params:
    """The base model after fine-tuning by likelihood."""
    folder, _ = bench.run_folder("sft")
    n = len(stable.crystals)
    training = dataclasses.replace(config.sft, batch_size=min(config.sft.batch_size, n))
    with Tracker(folder, config.setup.tracking, dataclasses.asdict(config)) as tracker:
        state = pretrain(
            bench.policy,
            stable.crystals,
            stable.crystals,
            training,
            folder,
            tracker.log,
            start=bench.base,
        )
    return state.averaged


def group_rates(bench: Bench, params: Params, config: Config) -> dict[str, list[Rate]]:
    """S.U.N. rates of the space groups."""
    return by_space_group(
        bench.policy,
        params,
        bench.stability,
        bench.reference.structures,
        groups=config.groups,
        n=config.n_per_group,
        seed=config.setup.seed + 2_000_001,
        sampling=config.setup.sampling,
    )


def report(
    config: Config,
    bench: Bench,
    assessments: dict[str, Assessment],
    stable: Stable,
    rates: dict[str, dict[str, list[Rate]]],
    seconds: float,
) -> Path:
    """Write the report with its pictures; returns the page's path."""
    metrics = read_metrics(bench.output)
    reward = {"mean": metrics["reward/mean"], "median": metrics["reward/median"]}
    energies = {
        "base": assessments["base"].e_above_hull,
        "base, relaxed": stable.e_above_hull,
        "RL": assessments["RL"].e_above_hull,
    }
    last = assessments["RL"]
    best = np.argsort(last.e_above_hull)[:8]
    by_group = {label: found["metastable S.U.N."] for label, found in rates.items()}
    figures = {
        "energies": (plots.e_above_hull_histogram(energies), "Energy above hull of samples"),
        "groups": (
            plots.rates_by_group(by_group, config.groups),
            f"Metastable S.U.N. rates, {config.n_per_group} samples of each space group",
        ),
        "reward": (plots.training_curves(reward, bench.quantity.label), "Reward during RL"),
        "kl": (
            plots.training_curves({"KL": metrics["rl/kl_base"]}, "KL from the base model (nats)"),
            "Divergence of the policy from the base model",
        ),
        "structures": (
            plots.structure_grid(
                last.crystals[best], [f"{x:.3f} eV/atom" for x in last.e_above_hull[best]]
            ),
            "Samples after RL of lowest energy above hull",
        ),
    }
    pictures = [
        Picture(plots.save(figure, bench.output / f"{name}.png"), caption)
        for name, (figure, caption) in figures.items()
    ]
    header = ["space group"]
    header += [f"{label}, {name}" for name in rates["base"] for label in rates]
    columns = [rates[label][name] for name in rates["base"] for label in rates]
    rows = [
        [str(group), *(column[i].text for column in columns)]
        for i, group in enumerate(config.groups)
    ]
    notes = [
        f"Model {config.setup.model.name}; {config.rl.n_steps} {config.rl.algorithm.upper()} steps"
        f" of {config.rl.batch_size} samples, τ = {config.rl.tau:g}, reward {bench.rewarded_by};"
        f" {seconds:.0f} s on {hardware()}.",
        stable.words,
        *bench.notes,
    ]
    caption = f"S.U.N. by space group, {config.n_per_group} samples of each model"
    result = Report(
        "Stability by reinforcement learning",
        {label: found.evaluation for label, found in assessments.items()},
        pictures,
        [Table(caption, [header, *rows])],
        notes,
        {
            "seconds": seconds,
            "hardware": hardware(),
            "kl_from_base_nats": float(metrics["rl/kl_base"][-1, 1]),
        },
    )
    return result.write(bench.output)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    prepare()
    main(tyro.extras.overridable_config_cli(PRESETS))
