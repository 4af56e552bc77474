"""Models of materials' properties behind one interface."""

from __future__ import annotations

from typing import Any

from crystaljax.rewards.properties.base import Predictions, PropertyModel

__all__ = ["Predictions", "PropertyModel", "create_property"]

NAMES = ("band_gap", "formation_energy", "dielectric")


def create_property(name: str, **options: Any) -> PropertyModel:
    """Make the model of a property by its name (`NAMES`) with its options.

    ValueError: no such property; the other errors are those of the model's function.
    """
    if name == "band_gap":
        from crystaljax.rewards.properties.pretrained import band_gap

        return band_gap(**options)
    if name == "formation_energy":
        from crystaljax.rewards.properties.pretrained import formation_energy

        return formation_energy(**options)
    if name == "dielectric":
        from crystaljax.rewards.properties.dielectric import dielectric

        return dielectric(**options)
    raise ValueError(f"no property is named {name!r}: choose one of {', '.join(NAMES)}")
