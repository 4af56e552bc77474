"""Predictors of the properties that crystals are asked for, by configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.evaluation.adherence import Predict
from crystaljax.rewards.properties import create_property
from crystaljax.rewards.stability import StabilityConfig, StabilityReward

ENERGIES = {"e_above_hull": "e_above_hull", "formation_energy_per_atom": "formation_energy"}
"""Properties of data sets, and what `EnergyAboveHull` calls them."""


@dataclass(frozen=True)
class PredictorsConfig:
    """Predictors of properties in prompts; a property that has none is not judged."""

    potential: str = ""
    """Interatomic potential for energies above hull and formation energies, such as chgnet."""
    hull: str = "demonstration"
    """Hull for these: the demonstration hull, or a file of formulas and energies."""
    band_gap: str = ""
    """MEGNet for band gaps: the folder of its files, or `download`."""


@contextmanager
def predicting(config: PredictorsConfig) -> Iterator[Predict | None]:
    """The predictors as one function, None if there are none.

    Errors: those of `StabilityReward` and `properties.pretrained.band_gap`.
    """
    folder = None if config.band_gap == "download" else config.band_gap
    gaps = create_property("band_gap", folder=folder) if config.band_gap else None
    if not config.potential:
        yield None if gaps is None else lambda crystals: {"band_gap": gaps.predict(crystals).value}
        return
    with StabilityReward(StabilityConfig(config.potential, config.hull)) as energy:

        def predict(crystals: Crystals) -> dict[str, np.ndarray]:
            judged = energy(crystals)
            none = np.full(len(crystals), np.nan)
            found = {
                name: np.where(judged.ok, judged.info.get(called, none), np.nan)
                for name, called in ENERGIES.items()
            }
            return found if gaps is None else found | {"band_gap": gaps.predict(crystals).value}

        yield predict
