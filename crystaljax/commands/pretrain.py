"""`crystaljax pretrain`: a new model, of either kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from crystaljax.commands.learning import Learning
from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.wyckoff.transformer import ModelConfig

WYCKOFF = "wyckoff"
"""Tokenization of the Wyckoff transformer."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(Learning):
    """Train a new model on crystals by maximum likelihood."""

    tokenization: str = WYCKOFF
    """wyckoff: a Wyckoff transformer. A text format (wyckoff-text, plaid, cif ..., or FILE.py:CLASS
    of your own): a language model and its tokenizer."""
    wyckoff: ModelConfig = field(default_factory=ModelConfig)
    """Size of the Wyckoff transformer; the default is the published one."""
    text: Annotated[LlmConfig, tyro.conf.AvoidSubcommands] = field(default_factory=LlmConfig)
    """Size of the language model; the default has a million parameters."""
    n_epochs: int = 100
    learning_rate: float = 1e-3
    patience: int = 0
    output: Path = Path("runs/pretrain")

    def run(self, console: Console) -> None:
        self._check()
        if self.tokenization == WYCKOFF:
            self._wyckoff()
        else:
            self._language_model()
        console.print(f"The model is in {self.output / 'model'}")

    def _wyckoff(self) -> None:
        from crystaljax.experiment.learning import learn_crystals, learnable
        from crystaljax.policies.wyckoff import WyckoffPolicy
        from crystaljax.training.optimizer import OptimizerConfig
        from crystaljax.training.pretrain import PretrainConfig

        self._refuse("is for language models (--tokenization)", "templates", "n_parts", "text")
        data = self._read()
        every = WyckoffPolicy(self.wyckoff, data[0].space_group_counts)
        train = learnable(every, data[0], "learn")
        validation = learnable(every, data[1], "validate with")
        policy = WyckoffPolicy(
            self.wyckoff, train.space_group_counts, train.element_counts, train.formula_groups
        )
        optimizer = OptimizerConfig(learning_rate=self.learning_rate)
        settings = PretrainConfig(**self._fit(len(train), optimizer))
        words = f"{self.n_epochs} epochs of {len(train)} crystals of {self.train} at most."
        with self._experiment("pretraining") as experiment:
            learn_crystals(
                experiment,
                policy,
                train,
                validation,
                settings,
                "best",
                title="Pretraining",
                notes=[words],
            )

    def _language_model(self) -> None:
        from crystaljax.experiment.sft import learn_texts
        from crystaljax.text.loading import TextModelConfig
        from crystaljax.training.optimizer import OptimizerConfig
        from crystaljax.training.sft import SftConfig

        self._refuse("is for Wyckoff transformers", "wyckoff")
        data = self._read()
        model = TextModelConfig(small=self.text, cutting="symbols", seed=self.seed)
        optimizer = OptimizerConfig(self.learning_rate, warmup_steps=30, ema_decay=0.0)
        settings = SftConfig(**self._fit(len(data[0]), optimizer, n_parts=self.n_parts))
        with self._experiment("pretraining") as experiment:
            learn_texts(experiment, self._texts(model, self.tokenization), settings, data=data)
