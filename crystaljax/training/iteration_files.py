"""The iterations of a run of RLIP in its folder: samples, judgements and pairs of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.data.files import replacing
from crystaljax.evaluation.matching import once
from crystaljax.training.tiers import KINDS, METASTABLE, STABLE, TIERS, UNKNOWN

FOLDER = "iterations"
"""Subfolder of a run's folder for these files."""


@dataclass(frozen=True)
class Iteration:
    """N samples of an iteration, judged and paired."""

    number: int
    """Number of iterations before it."""
    temperature: float
    """Sampling temperature."""
    crystals: Crystals
    """[N], zero where a sample is no crystal."""
    asked: np.ndarray
    """int [N]: the space group that was asked for, 0 if none."""
    found: np.ndarray
    """int [N]: the space group of the full cell, 0 if there is none."""
    prompt: np.ndarray
    """int [N]: samples of the same prompt have the same number."""
    e_above_hull: np.ndarray
    """float64 [N]: eV/atom, nan where it is not known."""
    reasons: np.ndarray
    """str [N]: why a sample could not be judged, empty if it was."""
    tier: np.ndarray
    """int [N], see `tiers.TIERS`."""
    novel: np.ndarray
    """bool [N]: matches nothing in the reference set."""
    cluster: np.ndarray
    """int [N]: as of `matching.clusters`."""
    lessons: np.ndarray
    """int [P, 2]: samples (chosen, rejected); [P, 1] those learnt one by one."""
    kind: np.ndarray
    """int [P]: kinds of the pairs, places in `tiers.KINDS`; empty where there are no pairs."""

    def save(self, run: Path) -> Path:
        """Write a file in the folder of a run."""
        path = run / FOLDER / f"{self.number:04d}.npz"
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "crystals"}
        arrays |= {f"crystals.{f.name}": getattr(self.crystals, f.name) for f in fields(Crystals)}
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **arrays)
        return path

    @staticmethod
    def load(path: Path) -> Iteration:
        """Read a file of `save`."""
        with np.load(path) as kept:
            crystals = Crystals(**{f.name: kept[f"crystals.{f.name}"] for f in fields(Crystals)})
            rest: dict[str, Any] = {
                f.name: kept[f.name] for f in fields(Iteration) if f.name != "crystals"
            }
        rest |= {"number": int(rest["number"]), "temperature": float(rest["temperature"])}
        return Iteration(crystals=crystals, **rest)

    @property
    def pairs_of(self) -> dict[str, int]:
        """Pairs of each kind."""
        counts = np.bincount(self.kind, minlength=len(KINDS))
        return dict(zip(KINDS, counts.tolist(), strict=True))

    @property
    def metrics(self) -> dict[str, float]:
        """Rates of the samples that were not asked for a space group, over all of them; the share
        of the others that have the one they were asked for; numbers of pairs."""
        numbers: dict[str, float] = {}
        free = self.asked == 0
        if free.any():
            stable, acceptable = self.tier == STABLE, np.isin(self.tier, (STABLE, METASTABLE))
            n = int(free.sum())
            sun = once(free & stable & self.novel, self.cluster).sum()
            numbers = {
                "rlip/stable": (stable & free).sum() / n,
                "rlip/metastable": (acceptable & free).sum() / n,
                "rlip/not_judged": (free & (self.tier == UNKNOWN)).sum() / n,
                "rlip/SUN": sun / n,
                "rlip/metastable_SUN": once(free & acceptable & self.novel, self.cluster).sum() / n,
            }
            if (stable & free).any():
                numbers["rlip/SUN_over_stable"] = sun / (stable & free).sum()
        if not free.all():
            numbers["rlip/space_group_met"] = (self.found == self.asked)[~free].mean()
        numbers |= {f"pairs/{kind}": n for kind, n in self.pairs_of.items()}
        return {name: float(x) for name, x in numbers.items()}

    def lacks(self, groups: Sequence[int] = ()) -> Iterator[str]:
        """What is missing, in words.

        Empty tiers of the samples drawn freely and of those asked for a space group, which are in
        different pairs; classes of which nothing could be judged; of `groups` those that no sample
        has that was asked for it.
        """
        free = self.asked == 0
        for rows, how in ((free, "drawn freely"), (~free, "asked for a space group")):
            if rows.any():
                name = f"{rows.sum()} samples {how}"
                yield from self._unjudged_class(rows, name) or self._empty_tiers(rows, name)
        for group in groups:
            rows = self.asked == group
            name = f"{rows.sum()} samples asked for space group {group}"
            if not (self.found[rows] == group).any():
                yield f"none of the {name} has it"
            yield from self._unjudged_class(rows, name)

    @property
    def unjudged(self) -> Counter[str]:
        """Numbers of the samples that could not be judged, by reason."""
        return self._unjudged(np.ones(len(self.tier), bool))

    def _unjudged(self, rows: np.ndarray) -> Counter[str]:
        reasons = self.reasons[rows & (self.tier == UNKNOWN)].tolist()
        return Counter(reason or "no energy" for reason in reasons)

    def _unjudged_class(self, rows: np.ndarray, name: str) -> list[str]:
        """A line if no sample of a class could be judged, with the commonest reason."""
        reasons = self._unjudged(rows)
        if reasons.total() < rows.sum():
            return []
        why = next((reason for reason, _ in reasons.most_common(1)), "none drawn")
        return [f"none of the {name} could be judged ({why})"]

    def _empty_tiers(self, rows: np.ndarray, name: str) -> list[str]:
        """A line for each tier that no sample of a class is in."""
        present = set(self.tier[rows].tolist())
        return [
            f"none of the {name} is {word}"
            for tier, word in TIERS.items()
            if tier != UNKNOWN and tier not in present
        ]


def read_iterations(run: Path) -> list[Iteration]:
    """The iterations of a run that are there, in order."""
    return [Iteration.load(path) for path in sorted((run / FOLDER).glob("*.npz"))]
