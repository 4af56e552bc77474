"""Data augmentation: texts of the same crystals in random equivalent descriptions."""

from __future__ import annotations

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.symmetry.equivalence import random_equivalent
from crystaljax.tokenizations.base import TextFormat


def augmented(format: TextFormat, crystals: Crystals, rng: np.random.Generator) -> list[str]:
    """A text of each of B crystals in a random equivalent description.

    A format with an `augment` method uses it: formats of all atoms (P1) choose a random order of
    atoms and a random origin. Other formats write another description in the same space group
    (origin, axes, representatives), with the sites in their standard order, as in the pretraining
    of the Wyckoff transformer.
    """
    own = getattr(format, "augment", None)
    if own is not None:
        texts: list[str] = own(crystals, rng)
        return texts
    return format.encode(random_equivalent(rng, crystals))
