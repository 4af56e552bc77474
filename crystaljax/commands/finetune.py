"""`crystaljax finetune`: train a model further, on crystals of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from crystaljax.commands.learning import Learning
from crystaljax.models.llm.config import LoraConfig

if TYPE_CHECKING:
    from crystaljax.training.optimizer import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class Finetune(Learning):
    """Fine-tune a model on crystals by maximum likelihood, until the validation loss rises."""

    model: Path
    """Folder of a Wyckoff transformer or of a language model, or the name of a language model on
    the Hugging Face hub."""
    tokenization: str = ""
    """Text format to learn, if it is not the one that the model's folder names. A format from a
    file of your own, FILE.py:CLASS, is only run if it is given here."""
    old_share: float = 0.0
    """Wyckoff transformers: share of samples whose space groups and elements are drawn as in the
    model's earlier training set. 0: all are drawn as in the new crystals; 1: none are."""
    lora: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Language models: train new LoRA adapters instead of all weights."""
    adapters: Annotated[LoraConfig, tyro.conf.arg(name="lora")] = field(default_factory=LoraConfig)
    """Size and place of the LoRA adapters."""
    quantized: Literal["no", "int8", "nf4"] = "no"
    """Language models, with --lora: number format of the matrices of the frozen base."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Language models: number format of parameters and computations."""
    n_epochs: int = 50
    learning_rate: float = 2e-4
    patience: int = 5
    output: Path = Path("runs/finetune")

    def _check(self) -> None:
        from crystaljax.ranges import SHARE, check

        super()._check()
        check(self, old_share=SHARE)

    def _writes_texts(self) -> bool:
        from crystaljax.policies.loading import is_wyckoff

        return not is_wyckoff(self.model)

    def _optimizer(self) -> OptimizerConfig:
        from crystaljax.training.optimizer import OptimizerConfig

        return OptimizerConfig(
            self.learning_rate, warmup_steps=20, final_fraction=0.0, weight_decay=0.0, ema_decay=0.0
        )

    def _wyckoff(self) -> None:
        from crystaljax.experiment.learning import prompted_as
        from crystaljax.policies.wyckoff import load_wyckoff

        why = f"is for language models, and {self.model} is a Wyckoff transformer"
        if self.lora or self.adapters != LoraConfig():
            raise ValueError(f"--lora {why}, of which all weights are trained: leave it out")
        self._refuse(why, "quantized", "dtype", "templates", "tokenization", "n_parts")
        data = self._read()
        policy, weights = load_wyckoff(self.model)
        train, validation = self._learnable(policy, data)
        policy = prompted_as(policy, train, self.old_share)
        settings = self._fit(len(train), self._optimizer(), dropout=False, validate_start=True)
        note = (
            f"{self.model} on {len(train)} crystals of {self.train}, validated with"
            f" {len(validation)}; {self.n_epochs} epochs at most."
        )
        start = self.model, weights
        self._learn_crystals("fine-tuning", policy, (train, validation), settings, note, start)

    def _language_model(self) -> None:
        from crystaljax.policies.loading import ADAPTER_FILE, MODEL_FILE, find_base

        self._refuse("is for Wyckoff transformers", "old_share")
        files = (self.model / name for name in (ADAPTER_FILE, MODEL_FILE))
        if self.model.exists() and not any(file.is_file() for file in files):
            raise FileNotFoundError(
                f"no model in {self.model}: it has neither metadata.json (of a Wyckoff transformer)"
                f" nor {MODEL_FILE} or {ADAPTER_FILE} (of a language model)"
            )
        from crystaljax.text.loading import TextModelConfig, load_tokenizer

        if not self.lora:
            self._refuse("goes with --lora", "quantized")
            if self.adapters != LoraConfig():
                raise ValueError("--lora.rank and the like go with --lora: give that, too")
        is_adapter = (self.model / ADAPTER_FILE).is_file()
        if is_adapter and self.lora:
            raise ValueError(f"{self.model} is an adapter, which is trained on: leave --lora out")
        model = TextModelConfig(
            base=find_base(self.model) if is_adapter else str(self.model),
            adapter=str(self.model) if is_adapter else "",
            lora=self.adapters if self.lora else None,
            quantized=self.quantized,
            dtype=self.dtype,
            seed=self.seed,
        )
        load_tokenizer(model)  # tells mistakes before crystals are read
        self._learn_texts("fine-tuning", model, self._optimizer(), validate_start=True)
