"""Interface of models of a property."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.rewards.base import Reasons


class Predictions(NamedTuple):
    """A property of B items."""

    value: np.ndarray
    """float64 [B]: in the model's unit; nan where there is a reason."""
    reasons: Reasons
    """[B]: why the model could not take an item; None where it could."""


class PropertyModel(Protocol):
    """A model of one property; an item it cannot take costs that item, never the batch."""

    def predict(self, crystals: Crystals) -> Predictions:
        """The property of B crystals as they stand."""
        ...
