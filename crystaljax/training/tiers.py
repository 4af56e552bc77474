"""Preference pairs by tiers of stability, novelty and symmetry (PLaID++, arXiv 2509.07150)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from crystaljax.evaluation.matching import once
from crystaljax.evaluation.stability import Thresholds
from crystaljax.ranges import at_least, check

UNKNOWN, STABLE, METASTABLE, UNSTABLE = -1, 0, 1, 2
"""Tiers. Samples without an energy above hull have no tier, and are in no pair."""

TIERS = {STABLE: "stable", METASTABLE: "metastable", UNSTABLE: "unstable", UNKNOWN: "unknown"}


@dataclass(frozen=True)
class PairConfig:
    """Number of samples that each preferred one is paired with, by kind of pair. 0: no such pairs.

    Those of arXiv 2509.07150, section 4.2 and appendix 7.2, where it gives numbers; it gives none
    for novelty and for matching space groups.
    """

    stable_metastable: int = 1
    """Metastable samples that each stable one is preferred to. 0: no tiers."""
    stable_unstable: int = 2
    """Unstable samples that each stable one is preferred to."""
    metastable_unstable: int = 2
    """Unstable samples that each metastable one is preferred to."""
    novel_known: int = 1
    """Known stable samples that each novel stable one is preferred to."""
    matching_other: int = 1
    """For samples that were asked for a space group and are metastable or stable: samples of other
    space groups that each one of the right group is preferred to."""
    acceptable_unstable: int = 2
    """For samples that were asked for a space group: unstable samples that each metastable (or
    stable) one is preferred to."""

    def __post_init__(self) -> None:
        check(self, **dict.fromkeys(KINDS, at_least(0)))

    def __call__(self, kind: int) -> int:
        """The number of a kind of pairs, by its place in `KINDS`."""
        number: int = getattr(self, KINDS[kind])
        return number


KINDS = tuple(f.name for f in fields(PairConfig))
"""Kinds of pairs, named by the preferred and the rejected samples."""


def tiers_of(e_above_hull: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """int [N]: the tiers of energies above hull [N] (eV/atom; nan is of none).

    Stable up to `thresholds.stable`, metastable up to `thresholds.metastable`, else unstable.
    """
    energy = np.asarray(e_above_hull, np.float64)
    limits = [thresholds.stable, thresholds.metastable]
    tier = np.searchsorted(limits, energy, side="left")
    return np.where(np.isnan(energy), UNKNOWN, tier)


def distinct_tiers(tier: np.ndarray, cluster: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """int [N]: the tiers with those of repeated structures unknown.

    Of the samples of a tier that match each other and were asked for the same space group the first
    keeps it. Samples without a cluster are of no tier.

    Args:
      tier: int [N], as of `tiers_of`.
      cluster: int [N], as of `evaluation.matching.clusters`.
      asked: int [N]: the space group that was asked for, 0 if none.
    """
    what = np.stack([tier, cluster, asked], axis=1)
    same = np.unique(what, axis=0, return_inverse=True)[1].ravel()
    first = once((tier != UNKNOWN) & (cluster >= 0), same)
    return np.where(first, tier, UNKNOWN)


def tiered_pairs(
    tier: np.ndarray,
    novel: np.ndarray,
    asked: np.ndarray,
    matches: np.ndarray,
    prompt: np.ndarray,
    config: PairConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples (chosen, rejected), int [P, 2], and the kind of each pair, int [P] (see `KINDS`).

    Samples not asked for a space group: each stable one is paired with metastable and with unstable
    ones, each metastable one with unstable ones, each novel stable one with stable ones that are
    known. Samples asked for one: each metastable (or stable) one of that group with such of other
    groups, and each metastable (or stable) one, of whatever group, with unstable ones. Both samples
    of a pair are of one prompt. The rejected ones are drawn at random, none twice for the same
    chosen one, as many as `config` says or as there are.

    Args:
      tier: int [N], as of `tiers_of`.
      novel: bool [N]: matches nothing in the training set.
      asked: bool [N]: was asked for a space group.
      matches: bool [N]: has the space group that it was asked for.
      prompt: int [N]: samples of the same prompt have the same number.

    As the paper has it. Its code differs: in the first two iterations each acceptable sample is
    paired with three unstable ones; later samples asked for a space group are paired by novelty as
    well, only stable ones of the right group are preferred to those of others, and only stable ones
    to unstable ones.
    """
    stable, metastable, unstable = (tier == x for x in (STABLE, METASTABLE, UNSTABLE))
    acceptable, free = stable | metastable, ~asked
    sides = {
        "stable_metastable": (free & stable, free & metastable),
        "stable_unstable": (free & stable, free & unstable),
        "metastable_unstable": (free & metastable, free & unstable),
        "novel_known": (free & stable & novel, free & stable & ~novel),
        "matching_other": (asked & acceptable & matches, asked & acceptable & ~matches),
        "acceptable_unstable": (asked & acceptable, asked & unstable),
    }
    pairs, kinds = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    for kind, name in enumerate(KINDS):
        for value in np.unique(prompt):
            chosen, rejected = (np.flatnonzero(side & (prompt == value)) for side in sides[name])
            found = drawn_pairs(chosen, rejected, config(kind), rng)
            pairs.append(found)
            kinds.append(np.full(len(found), kind))
    return np.concatenate(pairs), np.concatenate(kinds)


def drawn_pairs(
    chosen: np.ndarray, rejected: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """int [P, 2]: each of some samples with n others drawn at random, or all if they are fewer."""
    n = min(n, len(rejected))
    drawn = [rng.choice(rejected, n, replace=False) for _ in chosen]
    others = np.concatenate([rejected[:0], *drawn])
    return np.stack([np.repeat(chosen, n), others], axis=1)
