"""Crystal structure prediction with GRPO (Hong et al.), for any policy.

    python experiments/csp.py small --setup.train mp20_bt/train.csv.gz \
        --setup.test mp20_bt/test.csv.gz --setup.stability.hull mp_hull.csv.gz

Compared are prototype substitution, random search, a pretrained instruct model with two examples in
its prompt (--texts.pretrained), a text model after SFT, and the model of --setup.model (the Wyckoff
transformer). The models are evaluated as they are, and after GRPO on the energies of their
structures for the formulas of the training set. All are evaluated alike, on all test formulas and
on those that are not in the training set. --reward.terms chooses among total-energy (the paper's),
hull, formation and relative. --reward.ratios free leaves the ratios of elements to the model, as
the paper does. Every run has a folder of its own in OUTPUT/runs. Started again, the script goes on
with unfinished runs, and several processes may share the work: each takes runs that no other has
begun.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from crystaljax.evaluation.report import Report
from crystaljax.experiment.csp.results import all_tables, figures_of, headline, lines_of
from crystaljax.experiment.csp.setup import (
    CSPSetup,
    ExamConfig,
    RowName,
    TextRowsConfig,
)
from crystaljax.experiment.csp.study import PREDICTIONS, Arm, Study, arms_of
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.main import run
from crystaljax.experiment.run_results import check_parts, check_seeds, chosen
from crystaljax.policies.base import SamplingConfig
from crystaljax.rewards.prediction import PredictionRewardConfig
from crystaljax.training.optimizer import OptimizerConfig, fine_tuning
from crystaljax.training.reinforce import ReinforceConfig
from crystaljax.training.sft import SftConfig

VARY = ("only", "seeds")
"""Settings that may differ between processes that share one study."""


@dataclass(frozen=True)
class Config:
    """Rows of a study of structure prediction."""

    setup: CSPSetup = field(default_factory=lambda: CSPSetup(output=Path("runs/csp")))
    """Model, data, judge, folders."""
    rows: tuple[RowName, ...] = (
        "substitution",
        "zero-shot",
        "rl",
        "sft",
        "sft-rl",
        "model",
        "model-rl",
    )
    """What is compared: substitution, random (search), zero-shot, rl (both of the pretrained
    model), sft, sft-rl, model, model-rl (of --setup.model)."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the runs of each row (baselines have one run). The report shows these."""
    only: tuple[RowName, ...] = ()
    """Rows to compute now. Not given: all."""
    texts: TextRowsConfig = field(default_factory=TextRowsConfig)
    """The language model."""
    reward: PredictionRewardConfig = field(
        default_factory=lambda: PredictionRewardConfig(terms=("relative",))
    )
    """The reward."""
    rl: ReinforceConfig = field(
        default_factory=lambda: ReinforceConfig(
            algorithm="grpo",
            n_steps=60,
            batch_size=80,
            group_size=8,
            tau=0.04,
            inner_steps=2,
            optimizer=fine_tuning(3e-4),
        )
    )
    """Learning by reward. Its seed is taken from --seeds."""
    model_optimizer: OptimizerConfig = field(default_factory=fine_tuning)
    """Optimiser of the row model-rl, in place of --rl.optimizer: the densities of the Wyckoff
    transformer are narrow, and rates that suit texts move them too far."""
    n_formulas: int = 2000
    """Training formulas that are asked for in RL, drawn by the seed; 0 takes all."""
    exam: ExamConfig = field(default_factory=ExamConfig)
    """The evaluation."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        check_parts("texts.sft", self.texts.sft.batch_size, self.texts.sft.n_parts)
        check_parts("rl", self.rl.batch_size, self.setup.n_parts, self.rl.n_minibatches)


SMALL = Config(
    setup=CSPSetup(output=Path("runs/csp"), sampling=SamplingConfig(batch_size=100)),
)

GPU = Config(
    setup=CSPSetup(
        output=Path("runs/csp"), n_samples=0, n_parts=4, sampling=SamplingConfig(batch_size=1000)
    ),
    texts=TextRowsConfig(
        max_sites=20,
        sft=SftConfig(
            n_epochs=20,
            batch_size=128,
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=100, ema_decay=0.0),
        ),
    ),
    seeds=(0, 1, 2),
    rl=ReinforceConfig(
        algorithm="grpo",
        n_steps=200,
        batch_size=800,
        group_size=8,
        tau=0.04,
        inner_steps=2,
        optimizer=fine_tuning(3e-5),
    ),
    n_formulas=0,
    exam=ExamConfig(judged=5, relax_steps=100),
)

PAPER = Config(
    setup=CSPSetup(
        train="mp20-train",
        test="mp20-test",
        fixed_units=False,
        dtype="bfloat16",
        fsdp=8,
        n_parts=80,
        n_samples=0,
        sampling=SamplingConfig(max_new_tokens=1024, batch_size=1024),
        output=Path("runs/csp"),
    ),
    rows=("zero-shot", "rl", "sft", "sft-rl"),
    texts=TextRowsConfig(
        pretrained="Qwen/Qwen2.5-7B-Instruct",
        max_sites=20,
        sft=SftConfig(
            n_epochs=3,
            batch_size=128,
            n_parts=8,
            optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=20, ema_decay=0.0),
        ),
    ),
    reward=PredictionRewardConfig(terms=("total-energy",), ratios="free"),
    rl=ReinforceConfig(
        algorithm="grpo",
        n_steps=100,
        batch_size=1024 * 5,
        group_size=5,
        n_minibatches=4,
        inner_steps=1,
        tau=0.001,
        std_floor=1e-6,
        optimizer=fine_tuning(1e-6),
    ),
    n_formulas=0,
    exam=ExamConfig(k=1, relax_steps=100),
)
"""Section 4 and appendix A of Hong et al.: 1,024 formulas a rollout, 5 responses each, mini-batches
of 256 formulas, micro-batches of 8 texts a GPU, low-variance KL 0.001, no entropy bonus, 1,024 new
tokens. Its text says groups of 8: --rl.group-size 8 --rl.batch-size 8192 --setup.n-parts 128.

Not told there, and ours: the number of RL steps, SFT's settings, the penalty of other sets of
elements (that of no crystal). Deviations: CHGNet or SevenNet judge, in place of UMA, against the
hull of --setup.stability.hull; clipping at 0.2 and means by sequence.
"""

PRESETS = {
    "small": ("Two CPU cores, sized for 40 minutes: 300 test formulas, small models.", SMALL),
    "gpu": ("One GPU: all test formulas and three seeds.", GPU),
    "paper": (
        "8 GPUs: Hong et al., all of Qwen2.5-7B-Instruct; deviations at PAPER.",
        PAPER,
    ),
}


def main(config: Config) -> None:
    setup, rows = config.setup, chosen(config.rows, ())
    arms = arms_of(rows, config.seeds)
    now = chosen(rows, config.only)
    with Experiment(config, setup.output, setup.tracking, "CSP", vary=VARY) as experiment:
        for name in ("train", "test"):
            experiment.use(name, getattr(setup, name))
        learning = config.reward, config.rl, config.model_optimizer, config.n_formulas
        with Study(experiment, setup, config.texts, *learning, config.exam) as study:
            study.work([arm for arm in arms if arm.row in now])
            report(config, study, arms, rows)


def report(config: Config, study: Study, arms: list[Arm], rows: list[RowName]) -> None:
    """Tables, pictures and predictions of all results that are there."""
    experiment, k = study.experiment, config.exam.k
    name = config.setup.model.name
    every = lines_of(rows, {"model": name, "model-rl": f"{name} + RL"}, arms, study.output)
    lines = [line for line in every if line.results]
    notes = [*study.notes(), *(x for line in every for x in line.missing)]
    notes += dict.fromkeys(x for line in lines for y in line.results for x in y["context"])
    paths = [arm.folder(study.output) / PREDICTIONS for arm in arms]
    experiment.finish(
        Report(
            "Crystal structure prediction",
            {},
            experiment.pictures(figures_of(lines, k) if lines else {}),
            all_tables(lines, config.exam),
            notes,
            headline(lines, k),
        ),
        outputs={path: "structures" for path in paths if path.is_file()},
    )


if __name__ == "__main__":
    run(main, PRESETS)
