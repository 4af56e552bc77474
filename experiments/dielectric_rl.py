"""Reinforcement learning towards dielectrics: dielectric constant times band gap, in Fm-3m.

    python experiments/dielectric_rl.py small

The experiment of CrystalFormer-RL (arXiv 2504.02367) on a figure of merit. The reward is
ε_electronic · E_gap by the models of checkpoints/dielectric-mp and of MEGNet (downloaded, or
--band-gap FOLDER); stability is not rewarded, only judged. The report has both properties of the
samples with lines of equal merit, their energies above hull, and the best candidates. `small` takes
some 10 minutes on two cores; give --setup.stability.hull and --setup.reference for numbers that
mean something.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from crystaljax import plots
from crystaljax.conditions import Condition
from crystaljax.data.writers import write
from crystaljax.evaluation.matching import once
from crystaljax.evaluation.policies import Assessment
from crystaljax.evaluation.report import Picture, Report, Table
from crystaljax.experiment.crystals import Bench, Setup
from crystaljax.experiment.run_folder import open_run
from crystaljax.hardware import hardware
from crystaljax.policies.base import SamplingConfig
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.rewards.property import FigureOfMerit, create_figure_of_merit
from crystaljax.rewards.stability import StabilityConfig
from crystaljax.runtime import prepare
from crystaljax.tracking import Tracker, read_metrics
from crystaljax.training.optimizer import fine_tuning
from crystaljax.training.reinforce import ReinforceConfig, reinforce
from crystaljax.training.rollouts import judge


def of_size(n_samples: int, batch_size: int, potential: str = "chgnet") -> Setup:
    """Fm-3m, and rewards without a penalty."""
    return Setup(
        output=Path("runs/dielectric_rl"),
        stability=StabilityConfig(potential=potential),
        n_samples=n_samples,
        bounds=RewardBounds(invalid=0.0, low=0.0, high=math.inf),
        condition=Condition(space_group=225),
        sampling=SamplingConfig(batch_size=batch_size),
    )


@dataclass(frozen=True)
class Config:
    """Figure of merit in one space group, by RL."""

    setup: Setup = field(default_factory=lambda: of_size(200, 100))
    """Model, hull, potentials, folders."""
    dielectric: Path = Path(__file__).parents[1] / "checkpoints" / "dielectric-mp"
    """Folder of the model of the dielectric constant."""
    band_gap: Path | None = None
    """Folder of MEGNet-MP-2019.4.1-BandGap-mfi; downloaded if not given."""
    rl: ReinforceConfig = field(default_factory=lambda: ReinforceConfig(n_steps=50, tau=1.0))
    """Reinforcement learning; τ is in the unit of the figure of merit, eV."""
    max_merit: float = 60.0
    """eV: predictions beyond count as this; the best of the training data have some 30."""
    n_best: int = 15
    """Candidates in the table."""
    max_e_above_hull: float = 0.1
    """eV/atom: candidates are no higher above the hull by any potential that judges."""


PAPER = Config(
    setup=of_size(1000, 1000, "orb:orb-v2"),
    rl=ReinforceConfig(
        n_steps=200, batch_size=1000, tau=2.0, optimizer=fine_tuning(1e-4, b2=0.999)
    ),
    max_merit=math.inf,
    n_best=50,
)
"""Table S1, appendices A, C and D, and section III.B of arXiv 2504.02367.

Deviations. The dielectric model is ours, trained on the same data, as there is no AnisoNet here;
the band gap is by MEGNet, as in the paper. The base model, its data (Alex-20) and its hull
(Alexandria) are too large to ship: give --setup.model, --setup.reference and
--setup.stability.hull. RL takes the longest of the "100-200 steps"; the paper ends a run once its
loss has converged. The paper does not say what samples that cannot be judged get: 0, as a metal.
"""

PRESETS = {
    "small": ("Two CPU cores, some 15 minutes.", Config()),
    "paper": ("The paper's settings, for a GPU; deviations are listed at PAPER.", PAPER),
}


def main(config: Config) -> None:
    start = time.perf_counter()
    if config.setup.reward:
        raise ValueError("--setup.reward: here the figure of merit is the reward")
    open_run(config.setup.output, config)
    merit = create_figure_of_merit(config.dielectric, config.band_gap, config.max_merit)
    with Bench(config.setup) as bench:
        folder, resume_step = bench.run_folder("rl")
        settings = dataclasses.asdict(config)
        with Tracker(bench.output, config.setup.tracking, settings, resume_step) as tracker:
            assessments = {"base": bench.assess(bench.base, 0)}
            learnt = reinforce(
                bench.task(merit), bench.base, config.rl, folder, tracker.log, run_id=tracker.run_id
            )
            assessments["RL"] = bench.assess(learnt, 1)
            merits = {label: merit_of(merit, found) for label, found in assessments.items()}
            bench.policy.save(bench.output / "model", learnt)
            write(assessments["RL"].crystals[merits["RL"].ok], bench.output / "rl.zip")
            page = report(config, bench, assessments, merits, time.perf_counter() - start)
            tracker.log_artifact(bench.output / "model", "model", "model")
    Console().print(f"The report is in [bold]{page}[/bold].")


def merit_of(merit: FigureOfMerit, found: Assessment) -> RewardBatch:
    """Figures of merit of all samples."""
    return judge(merit, found.crystals, found.evaluation.columns["decoded"])


def report(
    config: Config,
    bench: Bench,
    assessments: dict[str, Assessment],
    merits: dict[str, RewardBatch],
    seconds: float,
) -> Path:
    """Write the report with its pictures; returns the page's path."""
    metrics = read_metrics(bench.output)
    points = {
        label: (found.info["band_gap"], found.info["dielectric"]) for label, found in merits.items()
    }
    curves = {"mean": metrics["reward/mean"], "median": metrics["reward/median"]}
    energies = {label: found.e_above_hull for label, found in assessments.items()}
    figures = {
        "merit": (
            plots.merit_scatter(points),
            "Predicted properties of fresh samples, with lines of equal figure of merit",
        ),
        "energies": (plots.e_above_hull_histogram(energies), "Energy above hull, not rewarded"),
        "reward": (plots.training_curves(curves, "figure of merit (eV)"), "Reward during RL"),
        "kl": (
            plots.training_curves({"KL": metrics["rl/kl_base"]}, "KL from the base model (nats)"),
            "Divergence of the policy from the base model",
        ),
    }
    pictures = [
        Picture(plots.save(figure, bench.output / f"{name}.png"), caption)
        for name, (figure, caption) in figures.items()
    ]
    rows = [["model", "mean figure of merit (eV)", "median", "90 % quantile", "predicted"]]
    for label, found in merits.items():
        known = found.value[found.ok]
        low, high = np.quantile(known, [0.5, 0.9])
        error = known.std() / np.sqrt(len(known))
        mean = f"{known.mean():.2f} ± {error:.2f}"
        rows.append([label, mean, f"{low:.2f}", f"{high:.2f}", f"{len(known)} / {len(found)}"])
    groups = ", ".join(map(str, config.setup.condition.space_groups or ("all",)))
    notes = [
        f"Model {config.setup.model.name}, space group {groups}; {config.rl.n_steps}"
        f" {config.rl.algorithm.upper()} steps of {config.rl.batch_size} samples, τ ="
        f" {config.rl.tau:g} eV; stability by {bench.stability.potential};"
        f" {seconds:.0f} s on {hardware()}.",
        *bench.notes,
    ]
    caption = (
        f"The best {config.n_best} unique samples after RL within"
        f" {config.max_e_above_hull:g} eV/atom of the hull"
    )
    best = Table(caption, candidates(assessments["RL"], merits["RL"], config))
    result = Report(
        "Dielectrics by reinforcement learning",
        {label: found.evaluation for label, found in assessments.items()},
        pictures,
        [Table("Figure of merit ε·E_gap of fresh samples", rows), best],
        notes,
        {"seconds": seconds, "hardware": hardware()},
    )
    return result.write(bench.output)


def candidates(found: Assessment, merit: RewardBatch, config: Config) -> list[list[str]]:
    """Header and rows: stable samples of largest figure of merit, one of those that match."""
    columns = found.evaluation.columns
    energies = {k: x for k, x in columns.items() if k.startswith("e_above_hull")}
    stable = np.all([x <= config.max_e_above_hull for x in energies.values()], axis=0)
    rows = np.flatnonzero(merit.ok & stable)
    rows = rows[np.argsort(-merit.value[rows])]
    rows = rows[once(np.ones(len(rows), bool), columns["cluster"][rows])][: config.n_best]
    header = ["formula", "ε", "E_gap (eV)", "ε·E_gap (eV)"]
    header += [name.replace("_", " ") + " (eV/atom)" for name in energies]
    table = [[*header, "novel"]]
    for row in rows:
        table.append(
            [
                str(columns["formula"][row]),
                f"{merit.info['dielectric'][row]:.2f}",
                f"{merit.info['band_gap'][row]:.2f}",
                f"{merit.value[row]:.1f}",
                *(f"{x[row]:.3f}" for x in energies.values()),
                "yes" if columns["novel"][row] else "no",
            ]
        )
    return table


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    prepare()
    main(tyro.extras.overridable_config_cli(PRESETS))
