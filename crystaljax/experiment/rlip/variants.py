"""Variants of RLIP.

Most are those of arXiv 2509.07150: its tables 1 and 2, figures 3, 6 and 7. `distinct` is ours. The
fixed reference of its figure 6 is of a run without tiers; ours changes nothing else of the
flagship, which has tiers and pairs by novelty.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from crystaljax.conditions import Condition
from crystaljax.policies.base import SamplingConfig
from crystaljax.training.rlip import RlipConfig

VariantName = Literal[
    "joint",
    "conditional",
    "unconditional",
    "sft",
    "fixed-reference",
    "no-tiers",
    "no-novelty",
    "constant-temperature",
    "temperature-0.1",
    "temperature-0.2",
    "ratio-1",
    "ratio-10",
    "distinct",
]

BASE = "base"
"""The model that all start from, among the variants."""

FLAGSHIP: VariantName = "joint"
"""RLIP as configured."""


@dataclass(frozen=True)
class Variant:
    """RLIP with something changed."""

    label: str
    """For tables."""
    panel: str
    """The figure that it is in, beside the flagship."""
    changes: dict[str, Any]
    """Settings of `RlipConfig`; those of its pairs after "pairs."."""

    def of(self, config: RlipConfig, seed: int) -> RlipConfig:
        """The configuration with the changes."""
        pairs = {k[6:]: x for k, x in self.changes.items() if k.startswith("pairs.")}
        others = {k: x for k, x in self.changes.items() if not k.startswith("pairs.")}
        return replace(config, pairs=replace(config.pairs, **pairs), seed=seed, **others)


def _against_unstable(n: int) -> dict[str, int]:
    names = ("stable_unstable", "metastable_unstable", "acceptable_unstable")
    return {f"pairs.{name}": n for name in names}


def _temperature(step: float) -> dict[str, Any]:
    return {"temperature_step": step, "temperature_every": 1}


VARIANTS: dict[VariantName, Variant] = {
    "joint": Variant("joint", "training", {}),
    "conditional": Variant("conditional pairs only", "training", {"n_unconditional": 0}),
    "unconditional": Variant("unconditional pairs only", "training", {"n_per_group": 0}),
    "sft": Variant("iterated SFT", "training", {"learn": "sft"}),
    "fixed-reference": Variant("fixed reference", "training", {"reference": "base"}),
    "no-tiers": Variant(
        "stability, no tiers",
        "pairs",
        {"pairs.stable_metastable": 0, "pairs.novel_known": 0},
    ),
    "no-novelty": Variant("tiered stability", "pairs", {"pairs.novel_known": 0}),
    "ratio-1": Variant("1:1", "pairs", _against_unstable(1)),
    "ratio-10": Variant("1:10", "pairs", _against_unstable(10)),
    "distinct": Variant("each structure once", "pairs", {"distinct": True}),
    "constant-temperature": Variant(
        "constant temperature", "temperature", {"temperature_step": 0.0}
    ),
    "temperature-0.1": Variant("+0.1 each iteration", "temperature", _temperature(0.1)),
    "temperature-0.2": Variant("+0.2 each iteration", "temperature", _temperature(0.2)),
}

PANELS = {
    "training": "Joint training, its parts alone, and other ways of learning",
    "pairs": "Pairs that are learnt from",
    "temperature": "Schedules of the sampling temperature",
}


def check_variants(
    names: Iterable[VariantName], config: RlipConfig, condition: Condition, sampling: SamplingConfig
) -> None:
    """ValueError for a variant that cannot be trained with these settings.

    See `RlipConfig.check_with`.
    """
    for name in names:
        try:
            VARIANTS[name].of(config, seed=0).check_with(condition, sampling)
        except ValueError as error:
            raise ValueError(
                f"the variant {name} cannot be trained: {error}. Change the settings, or leave it"
                " out of --variants"
            ) from error
