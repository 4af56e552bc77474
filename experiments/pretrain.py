"""Pretrain a Wyckoff transformer on a dataset of crystals.

    python experiments/pretrain.py --train mp20_bt/train.csv.gz --validation mp20_bt/val.csv.gz

Any file or folder of crystals will do, also a registered name (mp20-train). Run it again with the
same settings to go on after an interruption. The result is in OUTPUT/model, for
`crystaljax sample --model OUTPUT/model --output FILE.zip`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from crystaljax import plots
from crystaljax.data.dataset import load
from crystaljax.evaluation.report import Report
from crystaljax.experiment.curves import first_and_last
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.main import run
from crystaljax.experiment.run_folder import remade
from crystaljax.models.wyckoff.transformer import ModelConfig
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.tracking import TrackingConfig, read_metrics
from crystaljax.training.fit import best_weights
from crystaljax.training.pretrain import PretrainConfig, pretrain


@dataclass(frozen=True)
class Config:
    """Pretrain a Wyckoff transformer."""

    train: str = "prototypes"
    """Training crystals: a file, a folder or a registered dataset."""
    validation: str = "prototypes"
    """Validation crystals."""
    output: Path = Path("runs/pretrain")
    """Folder of the run: metrics, checkpoints, and the model at the end."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network; the default is the published size."""
    training: PretrainConfig = field(default_factory=PretrainConfig)
    """The run."""
    result: Literal["last", "best"] = "best"
    """Weights that are taken: the last, or those of the lowest validation loss."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


def main(config: Config) -> None:
    with Experiment(config, config.output, config.tracking, "pretraining", ".") as experiment:
        train, validation = load(config.train), load(config.validation)
        for name in ("train", "validation"):
            experiment.use(name, getattr(config, name))
        policy = WyckoffPolicy(
            config.model, train.space_group_counts, train.element_counts, train.formula_groups
        )
        fit = experiment.main
        state = pretrain(
            policy,
            train.crystals,
            validation.crystals,
            config.training,
            fit.folder,
            fit.log,
            run_id=fit.run_id,
        )
        model, params, step = experiment.folder / "model", state.averaged, int(state.step)
        if config.result == "best":
            params, step = best_weights(fit.folder, params, policy.identity)
        with remade(model) as made:
            policy.save(made, params)
        metrics = read_metrics(experiment.folder)
        losses = {"training": metrics["train/nll"], "validation": metrics["validation/nll"]}
        label = "−ln p of a crystal (nats)"
        report = Report(
            "Pretraining",
            {},
            experiment.pictures({"loss": (plots.training_curves(losses, label), "Loss")}),
            [first_and_last(label, losses)],
            [
                f"{config.training.n_epochs} epochs of {len(train)} crystals of {config.train}; the"
                f" model has the weights of step {step}."
            ],
        )
        experiment.finish(report, outputs={model: "model"})


if __name__ == "__main__":
    run(main, Config)
