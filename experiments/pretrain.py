"""Pretrain a Wyckoff transformer on a dataset of crystals.

    python experiments/pretrain.py --train mp20_bt/train.csv.gz --validation mp20_bt/val.csv.gz

Any file or folder of crystals will do, also a registered name (mp20-train). Run it again with the
same settings to go on after an interruption. The result is in OUTPUT/model, for
`crystaljax sample --model OUTPUT/model --output FILE.zip`.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from crystaljax.checkpoints import latest_step
from crystaljax.data.dataset import load
from crystaljax.experiment.run_folder import open_run
from crystaljax.models.wyckoff.transformer import ModelConfig
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.runtime import prepare
from crystaljax.tracking import Tracker, TrackingConfig
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
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


def main(config: Config) -> None:
    open_run(config.output, config)
    train, validation = load(config.train), load(config.validation)
    policy = WyckoffPolicy(config.model, train.space_group_counts, train.element_counts)
    resume_step = latest_step(config.output)
    with Tracker(
        config.output, config.tracking, dataclasses.asdict(config), resume_step
    ) as tracker:
        state = pretrain(
            policy,
            train.crystals,
            validation.crystals,
            config.training,
            config.output,
            tracker.log,
            run_id=tracker.run_id,
        )
        policy.save(config.output / "model", state.averaged)
        tracker.log_artifact(config.output / "model", "model", "model")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare()
    main(tyro.cli(Config))
