"""Reinforcement learning from interatomic potentials (RLIP) of PLaID++, for any policy.

    python experiments/plaid.py small --setup.reference mp20_bt/train.csv.gz \
        --setup.stability.hull mp_hull.csv.gz

arXiv 2509.07150: iterated DPO on pairs by tiers of stability, by novelty and by space group.
Samples are drawn freely and in given space groups, at a rising temperature. The report has rates of
fresh samples of the base model and of its variants, by another potential than the one that rewards.
It also has the share of stable, unique and novel samples (S.U.N.) over the iterations, the share by
space group of those that have the space group asked for (S.S.U.N.), and distributions of space
groups and compositions. `small` is sized for 40 minutes on two cores; give --setup.model for
another model of either kind. Every run has a folder of its own in OUTPUT/runs. Started again, the
script goes on with unfinished runs, and several processes may share the work: each takes runs that
no other has begun.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from crystaljax.data.dataset import load
from crystaljax.evaluation.report import Report
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.main import run
from crystaljax.experiment.rlip import tables
from crystaljax.experiment.rlip.figures import figures_of
from crystaljax.experiment.rlip.results import lines_of
from crystaljax.experiment.rlip.study import Arm, ExamConfig, RlipSetup, Study, models_of
from crystaljax.experiment.rlip.variants import BASE, FLAGSHIP, VariantName, check_variants
from crystaljax.experiment.run_results import check_parts, check_seeds, chosen
from crystaljax.policies.base import SamplingConfig
from crystaljax.rewards.stability import StabilityConfig
from crystaljax.training.optimizer import fine_tuning
from crystaljax.training.rlip import RlipConfig

VARY = ("only", "seeds")
"""Settings that may differ between processes that share one study."""


@dataclass(frozen=True)
class Config:
    """RLIP and variants of it, from one model or several."""

    setup: RlipSetup = field(default_factory=lambda: RlipSetup(output=Path("runs/plaid")))
    """Model, hull, potentials, folders; `sampling` has the temperature of the first iteration and
    of all evaluations."""
    rlip: RlipConfig = field(default_factory=RlipConfig)
    """RLIP on all pairs (the variant joint). Its seed is taken from --seeds."""
    variants: tuple[VariantName, ...] = ("conditional", "joint")
    """Variants to compare with the base model: joint, or joint with one change."""
    other_models: tuple[Path, ...] = ()
    """Folders of further models that joint also starts from, such as one that writes
    coordinates."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the runs of each variant. The report shows these."""
    only: tuple[str, ...] = ()
    """Variants (or base) to compute now. Not given: all."""
    exam: ExamConfig = field(default_factory=ExamConfig)
    """The evaluation."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        setup = self.setup
        trained = [*self.variants, *([FLAGSHIP] if self.other_models else [])]
        check_variants(trained, self.rlip, setup.condition, setup.sampling)
        check_parts("rlip", self.rlip.batch_size, setup.n_parts)
        self.exam.of(self.rlip)


SMALL = Config(
    setup=RlipSetup(
        output=Path("runs/plaid"),
        n_samples=1000,
        sampling=SamplingConfig(temperature=0.7, batch_size=100),
    ),
    rlip=RlipConfig(n_unconditional=1000, n_per_group=80, optimizer=fine_tuning(1e-4)),
    exam=ExamConfig(n_per_iteration=200, n_per_group=40),
)

PAPER = Config(
    setup=RlipSetup(
        model=Path("runs/llm_sft/model"),
        quantized="nf4",
        dtype="bfloat16",
        n_parts=16,
        reference="mp20-train",
        stability=StabilityConfig(potential="orb:orb-v2", relax_steps=500),
        judge="sevennet",
        sampling=SamplingConfig(temperature=0.7, top_p=0.9, max_new_tokens=500, batch_size=256),
        n_samples=10_000,
        output=Path("runs/plaid"),
    ),
    exam=ExamConfig(n_per_iteration=10_000),
)
"""Section 4.2 and appendix 7.2 of arXiv 2509.07150; temperatures, top-p and tokens of its code.

The model is an adapter of Qwen2.5-7B, trained first (rank 8, α 32). Deviations: Orb rewards and
SevenNet judges, in place of eqV2 and eSEN; Adam goes on from iteration to iteration, at one rate.
Give --setup.stability.hull.
"""

PRESETS = {
    "small": ("Two CPU cores, sized for 40 minutes.", SMALL),
    "ablations": (
        "Two CPU cores: all variants at the size of `small`, one after the other.",
        replace(SMALL, variants=get_args(VariantName)),
    ),
    "gpu": (
        "One GPU: a tenth of the paper's samples.",
        Config(
            setup=RlipSetup(
                output=Path("runs/plaid"),
                n_samples=2000,
                sampling=SamplingConfig(temperature=0.7, batch_size=500),
            ),
            rlip=RlipConfig(n_unconditional=1000, n_per_group=100, optimizer=fine_tuning(3e-5)),
            exam=ExamConfig(n_per_iteration=1000, n_per_group=100),
        ),
    ),
    "paper": ("One GPU: the paper's settings; deviations are listed at PAPER.", PAPER),
}


def main(config: Config) -> None:
    config = replace(config, exam=config.exam.of(config.rlip))
    setup = config.setup
    models = models_of(setup.model, config.other_models)
    variants = {
        model: (BASE, *(config.variants if model == setup.model else (FLAGSHIP,)))
        for model in models
    }
    now = chosen([name for names in variants.values() for name in names], config.only)
    with Experiment(config, setup.output, setup.tracking, "RLIP", vary=VARY) as experiment:
        study = Study(experiment, setup, config.rlip, config.exam)
        study.work(
            {
                model: [
                    Arm(model, name, seed) for seed in config.seeds for name in names if name in now
                ]
                for model, names in variants.items()
            }
        )
        report(config, study, models, variants)


def report(
    config: Config, study: Study, models: list[Path], variants: dict[Path, tuple[str, ...]]
) -> None:
    """Tables and pictures of all results that are there."""
    exam, experiment = config.exam, study.experiment
    every = lines_of(models, variants, config.seeds, study.output)
    lines = [line for line in every if line.results]
    reference = load(config.setup.reference).crystals
    figures = figures_of(lines, reference, exam.groups, exam.unseen_groups)
    found = tables.all_tables(lines, exam) if lines else []
    notes = [*study.notes(), *(x for line in every for x in (*line.lacks(), *line.unfinished))]
    notes += dict.fromkeys(x for line in lines for x in line.origins)
    model = Arm(models[0], FLAGSHIP, config.seeds[0]).model_folder(study.output)
    experiment.finish(
        Report(
            "Reinforcement learning from interatomic potentials",
            {},
            experiment.pictures(figures),
            found,
            notes,
            tables.headline(lines),
        ),
        outputs={model: "model"} if model.is_dir() else {},
    )


if __name__ == "__main__":
    run(main, PRESETS)
