"""Common options and functions of the commands that train on crystals."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from crystaljax.commands.base import Command, check_seed
from crystaljax.tracking import TrackingConfig

if TYPE_CHECKING:
    from crystaljax.data.rows import Dataset
    from crystaljax.experiment.experiment import Experiment
    from crystaljax.policies.base import Params
    from crystaljax.policies.wyckoff import WyckoffPolicy
    from crystaljax.text.loading import TextModelConfig
    from crystaljax.training.optimizer import OptimizerConfig

BATCH_SIZE = 32
"""Crystals in a training step, if their number is not given."""


@dataclass(frozen=True, kw_only=True)
class Learning(Command):
    """Options of training by maximum likelihood."""

    train: str
    """Training crystals: a file, a folder or a registered dataset."""
    validation: str = "0.1"
    """Validation crystals: a file, a folder or a registered dataset; or the share of the training
    crystals that is held out."""
    tokenization: str
    """Format that crystals are written in."""
    templates: tuple[str, ...] = ()
    """Language models: prompt templates to learn, by name (formula, unconditional, space_group,
    formula_space_group, properties, infilling) or file. Each crystal gets one of them at random."""
    n_epochs: int
    """Largest number of passes through the crystals."""
    learning_rate: float
    """Peak learning rate, after a warm-up."""
    batch_size: int = 0
    """Crystals in a training step. 0: 32, or all if there are fewer."""
    n_parts: int = 1
    """Language models: number of micro-batches that a step is split into, to save memory."""
    patience: int
    """The run ends after this number of passes without a lower validation loss. 0: never."""
    seed: int = 0
    """Random seed for the share held out, the order of the crystals, new weights and dropout."""
    output: Path
    """Folder of the run: metrics, checkpoints, report, and the trained model. Give the same command
    again to go on after an interruption."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""

    def run(self, console: Console) -> None:
        self._check()
        if self._writes_texts():
            self._language_model()
        else:
            self._wyckoff()
        console.print(_losses(self.output))
        console.print(f"The model is in {self.output / 'model'}")

    def _writes_texts(self) -> bool:
        """Whether the model is a language model."""
        raise NotImplementedError

    def _language_model(self) -> None:
        """Train a language model."""
        raise NotImplementedError

    def _wyckoff(self) -> None:
        """Train a Wyckoff transformer."""
        raise NotImplementedError

    def _check(self) -> None:
        """ValueError for numbers out of range."""
        from crystaljax.ranges import POSITIVE, at_least, check

        none, one = at_least(0), at_least(1)
        check(self, n_epochs=one, n_parts=one, batch_size=none, patience=none)
        check(self, learning_rate=POSITIVE)
        check_seed(self.seed)

    def _fit(self, n: int, optimizer: OptimizerConfig, **more: Any) -> dict[str, Any]:
        """Settings of a run on n crystals (`training.fit.FitConfig`), validated once an epoch."""
        batch_size = self.batch_size or min(BATCH_SIZE, n)
        n_steps = self.n_epochs * (n // batch_size)
        warmup_steps = min(optimizer.warmup_steps, n_steps // 10)
        return {
            "n_epochs": self.n_epochs,
            "batch_size": batch_size,
            "optimizer": dataclasses.replace(optimizer, warmup_steps=warmup_steps),
            "seed": self.seed,
            "patience": self.patience,
            "validate_every": 0,
            "log_every": max(1, min(20, n // batch_size)),
            **more,
        }

    def _read(self) -> tuple[Dataset, Dataset]:
        """The training and the validation crystals."""
        from crystaljax.experiment.learning import read_data

        return read_data(self.train, self.validation, self.seed)

    def _learnable(
        self, policy: WyckoffPolicy, data: tuple[Dataset, Dataset]
    ) -> tuple[Dataset, Dataset]:
        """Those of the crystals that a Wyckoff transformer can take."""
        from crystaljax.experiment.learning import learnable

        return learnable(policy, data[0], "learn"), learnable(policy, data[1], "validate with")

    def _experiment(self, kind: str) -> Experiment:
        """The run's folder; the sources of crystals are recorded."""
        from crystaljax.experiment.experiment import Experiment

        begun = Experiment(self, self.output, self.tracking, kind, ".", vary=("debug",))
        for name in ("train", "validation"):
            begun.use(name, getattr(self, name))
        return begun

    def _learn_crystals(
        self,
        kind: str,
        policy: WyckoffPolicy,
        data: tuple[Dataset, Dataset],
        settings: dict[str, Any],
        note: str,
        start: tuple[Path, Params] | None = None,
    ) -> None:
        """Train a Wyckoff transformer; the weights of the lowest validation loss are kept.

        Args:
          kind: of the run, such as "pretraining".
          data: crystals that the policy can take (`_learnable`).
          start: model folder, and its weights to start from; random ones if not given.
        """
        from crystaljax.experiment.learning import learn_crystals
        from crystaljax.training.pretrain import PretrainConfig

        config = PretrainConfig(**settings)
        with self._experiment(kind) as experiment:
            if start is not None:
                experiment.use("model", start[0])
            learn_crystals(
                *(experiment, policy, *data, config, "best"),
                title=kind.capitalize(),
                start=None if start is None else start[1],
                notes=[note],
            )

    def _learn_texts(
        self,
        kind: str,
        model: TextModelConfig,
        optimizer: OptimizerConfig,
        validate_start: bool = False,
    ) -> None:
        """Train a language model on texts of crystals; the weights of the lowest validation loss
        are kept."""
        from crystaljax.experiment.llm_setup import LlmSetup, TextsConfig
        from crystaljax.experiment.sft import learn_texts
        from crystaljax.training.sft import SftConfig

        data = self._read()
        settings = self._fit(len(data[0]), optimizer, n_parts=self.n_parts)
        texts = TextsConfig(
            crystals=self.train, format=self.tokenization, templates=self.templates, seed=self.seed
        )
        setup = LlmSetup(
            texts=texts,
            model=model,
            n_samples=0,
            result="best",
            output=self.output,
            seed=self.seed,
            tracking=self.tracking,
        )
        config = SftConfig(**settings, validate_start=validate_start)
        with self._experiment(kind) as experiment:
            learn_texts(experiment, setup, config, data=data)

    def _refuse(self, why: str, *names: str) -> None:
        """ValueError if one of the options `names`, for the other kind of model, is given."""
        for option in dataclasses.fields(self):
            usual: Any = option.default
            if option.default_factory is not dataclasses.MISSING:
                usual = option.default_factory()
            if option.name in names and getattr(self, option.name) != usual:
                raise ValueError(f"--{option.name.replace('_', '-')} {why}: leave it out")


def _losses(folder: Path) -> str:
    """The validation losses of a run in words."""
    from crystaljax.tracking import read_metrics

    losses = read_metrics(folder)["validation/nll"]
    step, lowest = losses[losses[:, 1].argmin()]
    return (
        f"Validation loss: {losses[0, 1]:.3f} nats at step {losses[0, 0]:.0f}, at its lowest"
        f" {lowest:.3f} at step {step:.0f} of {losses[-1, 0]:.0f}, whose weights the model has"
    )
