"""Training data for models that propose alloys: pairs of phases, written as texts.

After appendix A.2 of arXiv 2511.12036: candidates for BCC and B2 are made on a `grid`, kept if an
engine finds a single phase (`curation`), and paired, each pair with several B2 volumes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from crystaljax.alloys.composition import (
    Candidate,
    write_formula,
    write_percentages,
    write_volume,
)
from crystaljax.text.examples import Chat, Example
from crystaljax.text.prompts import PromptTemplate

NORMAL_MEAN = 0.45
"""Mean of normally distributed B2 volume fractions."""


@dataclass(frozen=True)
class PairsConfig:
    """Settings of pairing phases. ValueError for numbers out of range."""

    volumes: Literal["normal", "uniform"] = "normal"
    """Distribution of B2 volumes: N(0.45, `spread`) clipped to the range, or uniform in the range.
    The paper has both."""
    spread: float = 0.1
    """Standard deviation of the normal distribution; the paper does not give it."""
    volume_range: tuple[float, float] = (0.20, 0.70)
    """Least and largest B2 volume fraction."""
    volumes_of_pair: int = 3
    """Number of candidates of each pair of phases."""
    decimals: int = 1
    """Decimals of the B2 volumes in per cent; up to two in the paper's examples."""
    validation: float = 0.1
    """Share of the pairs of phases that is kept for validation."""
    seed: int = 0
    """Random seed for the volumes and the split."""

    def __post_init__(self) -> None:
        low, high = self.volume_range
        least = 10.0**-self.decimals / 100  # a volume must not round to zero
        wrong = {
            f"volume_range {self.volume_range}: it must lie between 0 and 1": not (
                least <= low <= high <= 1 - least
            ),
            f"spread {self.spread}: it must be positive": not 0 < self.spread < np.inf,
            f"volumes_of_pair {self.volumes_of_pair}: one at least": self.volumes_of_pair < 1,
            f"decimals {self.decimals}: it must not be negative": self.decimals < 0,
            f"validation {self.validation}: a share below 1": not 0 <= self.validation < 1,
        }
        for message in (message for message, is_wrong in wrong.items() if is_wrong):
            raise ValueError(message)


def candidates(
    bcc: Sequence[Mapping[str, float]],
    b2: Sequence[Mapping[str, float]],
    config: PairsConfig = PairsConfig(),
) -> tuple[list[Candidate], list[Candidate]]:
    """Candidates of all pairs of phases and volumes, for training and for validation.

    All volumes of a pair are in the same part of the split.
    """
    random = np.random.default_rng(config.seed)
    pairs = list(product(bcc, b2))
    n = config.volumes_of_pair
    low, high = config.volume_range
    if config.volumes == "normal":
        drawn = random.normal(NORMAL_MEAN, config.spread, (len(pairs), n)).clip(low, high)
    else:
        drawn = random.uniform(low, high, (len(pairs), n))
    volumes = np.round(100 * drawn, config.decimals)
    held = set(random.permutation(len(pairs))[: round(config.validation * len(pairs))].tolist())
    sides: tuple[list[Candidate], list[Candidate]] = ([], [])
    for place, (matrix, precipitate) in enumerate(pairs):
        sides[place in held].extend(
            Candidate(matrix, precipitate, float(volume)) for volume in volumes[place]
        )
    return sides


def all_pairs(
    bcc: Sequence[Mapping[str, float]], b2: Sequence[Mapping[str, float]]
) -> list[Candidate]:
    """Every pair of phases once, at the mean B2 volume, to measure coverage of the whole space.

    18,216 in arXiv 2511.12036, which does not say at which volume: 45 %, the mean of its data.
    """
    return [Candidate(a, b, 100 * NORMAL_MEAN) for a, b in product(bcc, b2)]


def alloy_fields(candidate: Candidate) -> dict[str, str]:
    """Fields of a candidate in templates of alloys: "bcc" (in per cent), "b2" and "volume"."""
    return {
        "bcc": write_percentages(candidate.bcc),
        "b2": write_formula(candidate.b2),
        "volume": write_volume(candidate.b2_volume, decimals=1),
    }


def alloy_prompt_fields(elements: Collection[str]) -> dict[str, str]:
    """Fields of a prompt in templates of alloys: "elements", from which to choose."""
    return {"elements": ", ".join(elements)}


def alloy_examples(
    candidates: Sequence[Candidate],
    template: PromptTemplate,
    elements: Collection[str],
    *,
    chat: bool = False,
) -> list[Example | Chat]:
    """Training examples, or chats for chat models, one for each candidate.

    `elements`: the elements that the prompt allows. ValueError if the template needs another field.
    """
    asked = alloy_prompt_fields(elements)
    make = template.chat if chat else template.example
    return [make(asked | alloy_fields(candidate)) for candidate in candidates]
