"""`crystaljax pretrain`: a new model, of either kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

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

    def _writes_texts(self) -> bool:
        return self.tokenization != WYCKOFF

    def _wyckoff(self) -> None:
        from crystaljax.policies.wyckoff import WyckoffPolicy
        from crystaljax.training.optimizer import OptimizerConfig

        self._refuse("is for language models (--tokenization)", "templates", "n_parts", "text")
        data = self._read()
        every = WyckoffPolicy(self.wyckoff, data[0].space_group_counts)
        train, validation = self._learnable(every, data)
        policy = WyckoffPolicy(
            self.wyckoff, train.space_group_counts, train.element_counts, train.formula_groups
        )
        settings = self._fit(len(train), OptimizerConfig(learning_rate=self.learning_rate))
        note = f"{self.n_epochs} epochs of {len(train)} crystals of {self.train} at most."
        self._learn_crystals("pretraining", policy, (train, validation), settings, note)

    def _language_model(self) -> None:
        from crystaljax.text.loading import TextModelConfig
        from crystaljax.training.optimizer import OptimizerConfig

        self._refuse("is for Wyckoff transformers", "wyckoff")
        model = TextModelConfig(small=self.text, cutting="symbols", seed=self.seed)
        optimizer = OptimizerConfig(self.learning_rate, warmup_steps=30, ema_decay=0.0)
        self._learn_texts("pretraining", model, optimizer)
