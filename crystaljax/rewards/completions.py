"""Rewards of texts: answers of a language model, which are decoded and then judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from crystaljax.composition import element_counts, parse_formulas
from crystaljax.crystal import Crystals
from crystaljax.rewards.base import Reasons, RewardBatch
from crystaljax.rewards.bounds import Quantity, RewardBounds
from crystaljax.tokenizations.base import TextFormat
from crystaljax.validity import structure_valid


class Completion(NamedTuple):
    """A completion and its prompt's fields."""

    fields: Mapping[str, str]
    """Values the prompt was made from, such as its formula."""
    text: str
    """The completion."""
    whole: bool
    """Whether it ended by itself, and not at the length limit."""


class TextReward(Protocol):
    """Protocol of rewards of texts; a text that cannot be judged gets ok=False and a reason."""

    def __call__(self, answers: Sequence[Completion], /) -> RewardBatch:
        """Rewards of B answers."""
        ...


class ReadCompletions(NamedTuple):
    """B decoded answers to prompts that ask for a crystal of a formula."""

    crystals: Crystals
    """[B], zero where an answer is no crystal."""
    likeness: np.ndarray
    """float64 [B]: 1 where the composition is the one asked for, smaller the less they share."""
    info: dict[str, np.ndarray]
    """bool [B] each: answers that could be decoded, are valid structures, and are as asked."""
    reasons: Reasons
    """Reason that an answer is no valid structure."""


def read_completions(answers: Sequence[Completion], format: TextFormat) -> ReadCompletions:
    """Read answers to prompts made from a formula (`fields["formula"]`).

    ValueError for a text that is no formula.
    """
    decoded = format.decode([answer.text for answer in answers])
    valid = decoded.ok & structure_valid(decoded.crystals)
    asked = parse_formulas(answer.fields["formula"] for answer in answers)
    likeness = np.where(decoded.ok, composition_likeness(decoded.crystals, asked), 0.0)
    reasons: Reasons = [
        reason or (None if is_valid else "atoms closer than 0.5 Å")
        for reason, is_valid in zip(decoded.reasons, valid, strict=True)
    ]
    info = {"read": decoded.ok, "valid": valid, "as_asked": likeness > 1 - 1e-6}
    return ReadCompletions(decoded.crystals, likeness, info, reasons)


def composition_likeness(crystals: Crystals, asked: np.ndarray) -> np.ndarray:
    """float64 [B]: 1 − ½ Σ |x − y| over atomic fractions x, y of crystals and of `asked` [B, 119].

    1 for the same composition, 0 without a common element.
    """
    counts = np.asarray(element_counts(crystals), float)
    has = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wanted = asked / asked.sum(axis=1, keepdims=True)
    return 1 - np.abs(has - wanted).sum(axis=1) / 2


@dataclass(frozen=True)
class FormulaReward:
    """Reward from 0 to 1 for the similarity of an answer's composition to the one asked for.

    An answer that is no crystal, or has atoms closer than 0.5 Å, is not ok.
    """

    format: TextFormat
    """Text format of crystals."""
    quantity = Quantity("likeness of the composition", bounds=RewardBounds(low=0.0, high=1.0))

    def __call__(self, answers: Sequence[Completion]) -> RewardBatch:
        """Rewards of B answers; `info` says which could be decoded, are valid, and are as asked."""
        found = read_completions(answers, self.format)
        value = np.where(found.info["valid"], found.likeness, np.nan)
        return RewardBatch.from_values(value, found.info, found.reasons)
