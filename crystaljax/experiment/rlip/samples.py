"""The samples that a model was evaluated by, in a file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.data.files import replacing
from crystaljax.evaluation.matching import once
from crystaljax.evaluation.policies import Assessment
from crystaljax.evaluation.stability import Thresholds


@dataclass(frozen=True)
class Samples:
    """N samples."""

    crystals: Crystals
    """[N], zero where a sample is no crystal."""
    e_above_hull: np.ndarray
    """float64 [N]: eV/atom by the judge, nan where it is not known."""
    sun: np.ndarray
    """bool [N]: metastable, unique and novel."""

    @staticmethod
    def of(found: Assessment) -> Samples:
        """The samples of an assessment."""
        columns = found.evaluation.columns
        with np.errstate(invalid="ignore"):
            metastable = found.e_above_hull <= Thresholds().metastable
        sun = once(metastable & columns["novel"], columns["cluster"])
        return Samples(found.crystals.to_numpy(), found.e_above_hull, sun)

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        arrays = {f.name: getattr(self.crystals, f.name) for f in fields(Crystals)}
        with replacing(path) as temporary:
            np.savez_compressed(temporary, e_above_hull=self.e_above_hull, sun=self.sun, **arrays)

    @staticmethod
    def load(path: Path) -> Samples:
        """What `save` wrote."""
        with np.load(path) as kept:
            crystals = Crystals(**{f.name: kept[f.name] for f in fields(Crystals)})
            return Samples(crystals, kept["e_above_hull"], kept["sun"])
