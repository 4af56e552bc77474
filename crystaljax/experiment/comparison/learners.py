"""Learners: a variant's policy with its data. Both kinds of model are trained and scored alike."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flax import nnx

from crystaljax.composition import SYMBOLS, element_counts
from crystaljax.crystal import Crystals
from crystaljax.evaluation.nll import BinnedNll, Resolution, TextNll
from crystaljax.experiment.comparison.budget import BudgetConfig
from crystaljax.experiment.comparison.cores import Cores, training_flops
from crystaljax.experiment.comparison.data import ComparedData, DataConfig, Lengths
from crystaljax.experiment.comparison.variants import Variant, settled
from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.wyckoff.transformer import ModelConfig
from crystaljax.policies.base import Params, Policy
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.text import TextPolicy
from crystaljax.policies.text_metadata import TextMetadata
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.symmetry.tables import N_GROUPS
from crystaljax.text.cutting import make_tokenizer
from crystaljax.text.packing import TokenSequence
from crystaljax.text.prompts import PromptTemplate
from crystaljax.text.tokenizer import Tokenizer
from crystaljax.tokenizations.augmentation import augmented
from crystaljax.tokenizations.base import TextFormat
from crystaljax.tokenizations.registry import format_options, read_specification
from crystaljax.tokenizations.wyckoff import TOKENS_PER_SITE
from crystaljax.training.fit import Track, best_weights
from crystaljax.training.pretrain import PretrainConfig, pretrain
from crystaljax.training.sft import SftConfig, sft

log = logging.getLogger(__name__)

TEMPLATE = PromptTemplate("any crystal", user="", completion="{text}")
"""Prompt of texts: only a line end, so that prompts cost almost nothing."""

MAX_DESCRIPTIONS = 8
"""Random descriptions of each crystal for training on texts; later passes use them again."""

AT_ONCE = 512
"""Crystals that are encoded at a time."""

SCORED = 64
"""Crystals that are scored at a time."""


class Learner(Protocol):
    """A variant with a seed."""

    @property
    def policy(self) -> Policy:
        """Policy that samples."""
        ...

    @property
    def network(self) -> ModelConfig | LlmConfig:
        """Size of the network."""
        ...

    @property
    def n_tokens(self) -> np.ndarray:
        """int [N]: tokens of each training crystal."""
        ...

    def train(
        self,
        budget: BudgetConfig,
        learning_rate: float,
        n_steps: int,
        folder: Path,
        track: Track,
        run_id: str | None = None,
    ) -> tuple[Params, int]:
        """Train for n steps; return the parameters of the lowest validation NLL, and their step.

        Goes on from the folder's last checkpoint.
        """
        ...

    def nll(self, params: Params) -> np.ndarray:
        """float64 [M]: −ln p of each validation crystal at the common resolution, in nats."""
        ...


def flops_per_crystal(learner: Learner) -> float:
    """Mean floating-point operations of training on a crystal."""
    return training_flops(learner.network, learner.n_tokens)


@dataclass(frozen=True)
class HybridLearner:
    """The Wyckoff transformer on the hybrid sequence."""

    variant: Variant
    network: ModelConfig
    data: ComparedData
    resolution: Resolution
    seed: int

    @cached_property
    def policy(self) -> WyckoffPolicy:
        """The policy, with the space groups and elements of the training crystals."""
        groups = np.bincount(self.data.train.space_group, minlength=N_GROUPS + 1)[1:]
        elements = (element_counts(self.data.train) > 0).sum(axis=0)
        return WyckoffPolicy(self.network, groups, elements)

    @property
    def n_tokens(self) -> np.ndarray:
        """int [N]"""
        return hybrid_lengths(self.data.train, np.empty(0))

    @cached_property
    def nll(self) -> Callable[[Params], np.ndarray]:
        """As of `Learner.nll`: densities integrated over bins, plus −ln p of the space group."""
        return BinnedNll(self.policy, self.data.validation, self.resolution, SCORED)

    def train(
        self,
        budget: BudgetConfig,
        learning_rate: float,
        n_steps: int,
        folder: Path,
        track: Track,
        run_id: str | None = None,
    ) -> tuple[Params, int]:
        """By `pretrain`."""
        config = PretrainConfig(
            n_steps=n_steps,
            optimizer=budget.optimizer(learning_rate, n_steps),
            seed=self.seed,
            batch_size=budget.batch_size,
            augment=self.variant.order == "augmented",
            dropout=False,
            **_intervals(budget, n_steps),
        )
        train, validation = self.data.train, self.data.validation
        state = pretrain(
            *(self.policy, train, validation, config, folder, track),
            run_id=run_id,
            validate=lambda params: {"nll": float(self.nll(params).mean())},
        )
        best, step = best_weights(folder, state.averaged, self.policy.identity)
        return self.policy.place(best), step


@dataclass(frozen=True)
class TextLearner:
    """A language model on a text format."""

    variant: Variant
    core: LlmConfig
    data: ComparedData
    texts: VariantTexts
    seed: int

    @property
    def network(self) -> LlmConfig:
        """Size of the network, with the tokenizer's vocabulary."""
        return self.policy.texts.config

    @cached_property
    def policy(self) -> CrystalTextPolicy:
        """The untrained policy of this seed."""
        tokenizer, format = self.texts.tokenizer, self.texts.format
        config = dataclasses.replace(self.core, vocabulary=tokenizer.n_vocabulary())
        texts = TextPolicy(LanguageModel(config, nnx.Rngs(self.seed)), tokenizer)
        name, _ = read_specification(self.variant.tokenization)
        metadata = TextMetadata(name, (TEMPLATE,), format_options(format))
        longest = max(len(x.tokens) - x.n_prompt for x in self._train)
        metadata = metadata.describing(self.data.train, [{}] * len(self.data.train), longest)
        return CrystalTextPolicy(texts, metadata, format)

    @property
    def n_tokens(self) -> np.ndarray:
        """int [N]: of prompt and completion."""
        return np.array([len(x.tokens) for x in self._train])

    @cached_property
    def _train(self) -> list[TokenSequence]:
        return self.texts.sequences(self.data.train)

    @cached_property
    def _validation(self) -> list[TokenSequence]:
        return self.texts.sequences(self.data.validation)

    @cached_property
    def nll(self) -> Callable[[Params], np.ndarray]:
        """As of `Learner.nll`: −ln p of the completions."""
        return TextNll(self.policy.texts, self._validation, SCORED)

    def train(
        self,
        budget: BudgetConfig,
        learning_rate: float,
        n_steps: int,
        folder: Path,
        track: Track,
        run_id: str | None = None,
    ) -> tuple[Params, int]:
        """By `sft`."""
        config = SftConfig(
            n_steps=n_steps,
            optimizer=budget.optimizer(learning_rate, n_steps),
            seed=self.seed,
            batch_size=budget.batch_size,
            **_intervals(budget, n_steps),
        )
        train = self._train
        if self.variant.order == "augmented":
            n_passes = math.ceil(n_steps * budget.batch_size / len(train))
            rng = np.random.default_rng([self.seed, 2])
            n = min(n_passes, MAX_DESCRIPTIONS)
            train = [x for _ in range(n) for x in self.texts.sequences(self.data.train, rng)]
        state = sft(
            *(self.policy.texts, train, self._validation, config, folder, track),
            run_id=run_id,
            validate=lambda params: {"nll": float(self.nll(params).mean())},
        )
        best, step = best_weights(folder, state.averaged, self.policy.texts.identity)
        return self.policy.place(best), step


@dataclass(frozen=True)
class VariantTexts:
    """A text format at the common resolution with a tokenizer."""

    format: TextFormat
    tokenizer: Tokenizer

    def sequences(
        self, crystals: Crystals, rng: np.random.Generator | None = None
    ) -> list[TokenSequence]:
        """Prompts and texts of N crystals, in random descriptions if there is a generator."""
        if rng is None:
            texts = self.format.encode(crystals)
        else:
            texts = augmented(self.format, crystals, rng)
        return self.tokenizer.sequences([TEMPLATE.prompt({})] * len(texts), texts)

    def lengths(self, crystals: Crystals, is_train: np.ndarray) -> np.ndarray:
        """int [N]: tokens of each crystal, 0 where it cannot be written. See `data.Lengths`."""
        del is_train
        return _each(crystals, lambda part: [len(x.tokens) for x in self.sequences(part)])


def hybrid_lengths(crystals: Crystals, is_train: np.ndarray) -> np.ndarray:
    """int [N]: tokens of the hybrid sequences. See `data.Lengths`."""
    del is_train
    found: np.ndarray = TOKENS_PER_SITE * np.asarray(crystals.n_sites) + 1
    return found


def variant_format(variant: Variant, resolution: Resolution, data: DataConfig) -> TextFormat:
    """The text format of a variant at the common resolution."""
    return resolution.format(variant.tokenization, max_length=data.max_length)


def text_lengths(
    variant: Variant, resolution: Resolution, data: DataConfig, folder: Path
) -> Lengths:
    """Lengths of a variant's texts; makes its tokenizer, too, and keeps it in a folder."""

    def lengths(crystals: Crystals, is_train: np.ndarray) -> np.ndarray:
        format = variant_format(variant, resolution, data)
        texts = [TEMPLATE.prompt({}), " ".join(SYMBOLS)]  # every element can be written

        def write(part: Crystals) -> list[int]:
            texts.extend(format.encode(part))
            return [1] * len(part)

        _each(crystals[np.flatnonzero(is_train)], write)
        cutting = settled(variant, format).cutting
        assert cutting is not None
        tokenizer = make_tokenizer(cutting, texts, format)
        tokenizer.save(folder)
        return VariantTexts(format, tokenizer).lengths(crystals, is_train)

    return lengths


def variant_texts(
    variant: Variant, resolution: Resolution, data: DataConfig, folder: Path
) -> VariantTexts:
    """The format and tokenizer that `text_lengths` made."""
    return VariantTexts(variant_format(variant, resolution, data), Tokenizer.load(folder))


def make_learner(
    variant: Variant,
    cores: Cores,
    data: ComparedData,
    config: DataConfig,
    resolution: Resolution,
    folder: Path,
    seed: int,
) -> Learner:
    """The learner of a variant; `folder` has the tokenizer that `text_lengths` made."""
    if not variant.is_text:
        return HybridLearner(variant, cores.wyckoff, data, resolution, seed)
    texts = variant_texts(variant, resolution, config, folder)
    return TextLearner(variant, cores.text, data, texts, seed)


def _intervals(budget: BudgetConfig, n_steps: int) -> dict[str, Any]:
    """Steps between metrics, validations and checkpoints."""
    every = max(1, n_steps // budget.n_validations)
    return {"log_every": max(1, every // 4), "validate_every": every, "save_every": every}


def _each(crystals: Crystals, function: Callable[[Crystals], list[int]]) -> np.ndarray:
    """int [N]: result of each crystal, 0 if it raises. They are tried together, then one by one."""
    found = np.zeros(len(crystals), int)
    for start in range(0, len(crystals), AT_ONCE):
        part = crystals[np.arange(start, min(start + AT_ONCE, len(crystals)))]
        try:
            found[start : start + len(part)] = function(part)
        except ValueError:
            for i in range(len(part)):
                try:
                    found[start + i] = function(part[i : i + 1])[0]
                except ValueError as error:
                    log.info("left out: %s", error)
    return found
