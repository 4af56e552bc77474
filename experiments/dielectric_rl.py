"""Reinforcement learning towards dielectrics: dielectric constant times band gap, in Fm-3m.

    python experiments/dielectric_rl.py small

The experiment of CrystalFormer-RL (arXiv 2504.02367) on a figure of merit. The reward is
ε_electronic · E_gap by the models of checkpoints/dielectric-mp and of MEGNet (downloaded, or
--band-gap FOLDER). Stability is not rewarded, only judged. The report has both properties of the
samples with lines of equal merit, their energies above hull, and the best candidates. `small` takes
about 10 minutes on two cores. Give --setup.stability.hull and --setup.reference for meaningful
numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crystaljax import plots
from crystaljax.conditions import Condition
from crystaljax.data.writers import write
from crystaljax.evaluation.matching import once
from crystaljax.evaluation.policies import Assessment
from crystaljax.evaluation.report import Report, Table
from crystaljax.experiment.best import ENERGY, BestStructures, ReportConfig, Score
from crystaljax.experiment.crystals import Bench, Setup
from crystaljax.experiment.curves import last_kl, rl_figures
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.main import run
from crystaljax.experiment.rewarded import Rewarded, check_reward
from crystaljax.experiment.run_folder import remade
from crystaljax.policies.base import SamplingConfig
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.rewards.property import FigureOfMerit, create_figure_of_merit
from crystaljax.rewards.stability import StabilityConfig
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
        judge="",
        sampling=SamplingConfig(batch_size=batch_size),
    )


PREDICTED = {"reward": "ε·E_gap (eV)", "dielectric": "ε", "band_gap": "E_gap (eV)"}
"""Predicted properties of candidates: names of their columns, and headings."""


@dataclass(frozen=True)
class Config:
    """Figure of merit in one space group, by RL."""

    setup: Setup = field(default_factory=lambda: of_size(200, 100))
    """Model, hull, potentials, folders."""
    dielectric: Path = Path(__file__).parents[1] / "checkpoints" / "dielectric-mp"
    """Folder of the model of the dielectric constant."""
    band_gap: Path | None = None
    """Folder of MEGNet-MP-2019.4.1-BandGap-mfi. Not given: downloaded."""
    rl: ReinforceConfig = field(default_factory=lambda: ReinforceConfig(n_steps=50, tau=1.0))
    """Reinforcement learning. τ has the unit of the figure of merit, eV."""
    max_merit: float = 60.0
    """eV: larger predictions count as this. The best training crystals have about 30."""
    n_best: int = 15
    """Candidates in the table."""
    max_e_above_hull: float = 0.1
    """eV/atom: largest energy above hull of candidates, by every potential that judges."""
    report: ReportConfig = field(default_factory=ReportConfig)
    """The report's table of candidates. Its columns may also be reward (the figure of merit),
    dielectric and band_gap."""


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
    "small": ("Two CPU cores, 10 minutes.", Config()),
    "paper": ("One GPU: the paper's settings; deviations are listed at PAPER.", PAPER),
}


def check_merit(config: Config) -> None:
    """Try the figure of merit on a few samples."""
    check_reward(config, reward_of(config))


def reward_of(config: Config) -> FigureOfMerit:
    """The figure of merit; ValueError if another reward is given."""
    if config.setup.reward:
        raise ValueError("--setup.reward: here the figure of merit is the reward")
    return create_figure_of_merit(config.dielectric, config.band_gap, config.max_merit)


def main(config: Config) -> None:
    setup, merit = config.setup, reward_of(config)
    with (
        Experiment(config, setup.output, setup.tracking, "RL", checkpoints="rl") as experiment,
        Bench(setup) as bench,
    ):
        task = bench.task(merit)
        config.report.check([*bench.columns, *PREDICTED])
        bench.record(experiment)
        experiment.describe(reward="figure of merit ε·E_gap (eV)")
        experiment.use("dielectric", config.dielectric)
        base = bench.assess(bench.base, 0)
        rl = experiment.main
        learnt = reinforce(task, bench.base, config.rl, rl.folder, rl.log, run_id=rl.run_id)
        found = {"base": base, "RL": bench.assess(learnt, 1)}
        merits = {label: merit_of(merit, each) for label, each in found.items()}
        model, samples = experiment.folder / "model", experiment.folder / "rl.zip"
        with remade(model) as made:
            bench.policy.save(made, learnt)
        write(found["RL"].crystals[merits["RL"].ok], samples)
        points = {
            label: (each.info["band_gap"], each.info["dielectric"])
            for label, each in merits.items()
        }
        energies = {label: each.e_above_hull for label, each in found.items()}
        figures = {
            "merit": (
                plots.merit_scatter(points),
                "Predicted properties of fresh samples, with lines of equal figure of merit",
            ),
            "energies": (plots.e_above_hull_histogram(energies), "Energy above hull, not rewarded"),
            **Rewarded(merit.quantity, merits).figures(found),
            **rl_figures(experiment.folder, "figure of merit (eV)"),
        }
        rows = candidates(found["RL"], merits["RL"], config)
        report = Report(
            "Dielectrics by reinforcement learning",
            {label: each.evaluation for label, each in found.items()},
            experiment.pictures(figures),
            [merit_table(merits), candidate_table(found["RL"], merits["RL"], rows, config)],
            [words(config, bench), *bench.notes],
            {"kl_from_base_nats": last_kl(experiment.folder)},
        )
        best = best_candidates(found["RL"], merits["RL"], rows, config.report)
        experiment.finish(report, best=best, outputs={model: "model", samples: "structures"})


def merit_of(merit: FigureOfMerit, found: Assessment) -> RewardBatch:
    """Figures of merit of all samples."""
    return judge(merit, found.crystals, found.evaluation.columns["decoded"])


def words(config: Config, bench: Bench) -> str:
    """The run in a sentence."""
    groups = ", ".join(map(str, config.setup.condition.space_groups or ("all",)))
    return (
        f"Model {config.setup.model.name}, space group {groups}; {config.rl.n_steps}"
        f" {config.rl.algorithm.upper()} steps of {config.rl.batch_size} samples, τ ="
        f" {config.rl.tau:g} eV{bench.guarded_by}; stability by {bench.stability.potential}."
    )


def merit_table(merits: dict[str, RewardBatch]) -> Table:
    """Figures of merit of each model's samples."""
    rows = [["model", "mean figure of merit (eV)", "median", "90 % quantile", "predicted"]]
    for label, found in merits.items():
        known = found.value[found.ok]
        low, high = np.quantile(known, [0.5, 0.9])
        error = known.std() / np.sqrt(len(known))
        mean = f"{known.mean():.2f} ± {error:.2f}"
        rows.append([label, mean, f"{low:.2f}", f"{high:.2f}", f"{len(known)} / {len(found)}"])
    return Table("Figure of merit ε·E_gap of fresh samples", rows)


def energies_of(found: Assessment) -> dict[str, np.ndarray]:
    """Energies above hull by each judge, by the name of their column."""
    columns = found.evaluation.columns
    return {name: x for name, x in columns.items() if name.startswith(ENERGY)}


def candidates(found: Assessment, merit: RewardBatch, config: Config) -> np.ndarray:
    """Rows of stable samples of largest figure of merit, one of those that match."""
    limit = config.max_e_above_hull
    stable = np.all([x <= limit for x in energies_of(found).values()], axis=0)
    rows = np.flatnonzero(merit.ok & stable)
    rows = rows[np.argsort(-merit.value[rows])]
    cluster = found.evaluation.columns["cluster"]
    return rows[once(np.ones(len(rows), bool), cluster[rows])][: config.n_best]


def best_candidates(
    found: Assessment, merit: RewardBatch, rows: np.ndarray, report: ReportConfig
) -> BestStructures:
    """The candidates, with their predicted properties, for the table of structures."""
    score = np.full(len(merit), np.nan)
    score[rows] = merit.value[rows]
    values = {"reward": merit.value, **merit.info}
    scores = {name: Score(PREDICTED[name], values[name]) for name in PREDICTED}
    caption = "Candidates after RL of best merit"
    return BestStructures.of(found, caption, score, scores, report.columns)


def candidate_table(
    found: Assessment, merit: RewardBatch, rows: np.ndarray, config: Config
) -> Table:
    """The candidates, with their properties."""
    columns, energies = found.evaluation.columns, energies_of(found)
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
    caption = (
        f"The best {config.n_best} unique samples after RL within"
        f" {config.max_e_above_hull:g} eV/atom of the hull"
    )
    return Table(caption, table)


if __name__ == "__main__":
    run(main, PRESETS, check=check_merit)
