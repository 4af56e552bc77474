"""Pretrain a Wyckoff transformer on a dataset of crystals.

    python experiments/pretrain.py --train mp20_bt/train.csv.gz --validation mp20_bt/val.csv.gz

Any file or folder of crystals will do, also a registered name (mp20-train). Run it again with the
same settings to go on after an interruption. The result is in OUTPUT/model, for
`crystaljax sample --model OUTPUT/model --output FILE.zip`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from crystaljax.data.dataset import load
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.learning import Result, learn_crystals
from crystaljax.experiment.main import run
from crystaljax.models.wyckoff.transformer import ModelConfig
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.tracking import TrackingConfig
from crystaljax.training.pretrain import PretrainConfig


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
    result: Result = "best"
    """Weights of the result: the last ones, or those of the lowest validation loss."""
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
        learn_crystals(
            experiment,
            policy,
            train,
            validation,
            config.training,
            config.result,
            title="Pretraining",
            notes=[f"{config.training.length(len(train), 'crystals')} of {config.train}."],
        )


if __name__ == "__main__":
    run(main, Config)
