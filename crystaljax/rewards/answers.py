"""Rewards of texts: answers of a language model, read and then judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from crystaljax.composition import element_counts, parse_formulas
from crystaljax.crystal import Crystals
from crystaljax.evaluation.validity import structure_valid
from crystaljax.rewards.base import Reasons, Reward, RewardBatch
from crystaljax.tokenizations.text import WyckoffText


class Answer(NamedTuple):
    """A completion and what it answers."""

    fields: Mapping[str, str]
    """What the prompt was made from, such as its formula."""
    text: str
    """The completion."""
    whole: bool
    """It ended by itself, not for its length."""


class TextReward(Protocol):
    """What judges texts; one that it cannot judge gets ok=False and a reason, no exception."""

    def __call__(self, answers: Sequence[Answer], /) -> RewardBatch:
        """Rewards of B answers."""
        ...


@dataclass(frozen=True)
class CrystalAnswers:
    """Judges answers that should be the Wyckoff text of a crystal of the formula asked for.

    An answer that is no crystal, has atoms closer than 0.5 Å or another composition, is not ok.
    """

    reward: Reward | None = None
    """Judges the crystals; without it every crystal of the right formula is worth 1."""
    format: WyckoffText = field(default_factory=WyckoffText)
    """How crystals are written."""

    def __call__(self, answers: Sequence[Answer]) -> RewardBatch:
        """Rewards of B answers; `info` has what share could be read, is valid, and as asked."""
        decoded = self.format.decode([answer.text for answer in answers])
        crystals = decoded.crystals
        valid = decoded.ok & structure_valid(crystals)
        asked = [answer.fields["formula"] for answer in answers]
        as_asked = decoded.ok & same_formula(crystals, asked)
        reasons: Reasons = [
            decoded.reasons[i]
            or (None if valid[i] else "atoms closer than 0.5 Å")
            or (None if as_asked[i] else "another composition than asked for")
            for i in range(len(answers))
        ]
        info = {"read": decoded.ok, "valid": valid, "as_asked": as_asked}
        value = np.full(len(answers), np.nan)
        good = np.flatnonzero(valid & as_asked)
        value[good] = 1.0
        if self.reward is not None and len(good):
            judged = self.reward(crystals[good])
            value[good] = judged.value
            for row, reason in zip(good, judged.reasons, strict=True):
                reasons[row] = reason
        return RewardBatch.from_values(value, info, reasons)


def same_formula(crystals: Crystals, formulas: Sequence[str]) -> np.ndarray:
    """bool [B]: each crystal has the composition of its formula, up to a common factor.

    ValueError for a formula that is none.
    """
    counts = np.asarray(element_counts(crystals), float)
    asked = parse_formulas(formulas)
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.abs(counts / totals - asked / asked.sum(axis=1, keepdims=True)).max(axis=1) < 1e-6
