"""Interatomic potentials behind one interface."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from crystaljax.rewards.potentials.base import Corrections, Energies, Potential, Relaxed

__all__ = ["Corrections", "Energies", "Potential", "Relaxed", "create_potential"]

POTENTIALS = {
    "chgnet": "CHGNetPotential",
    "matgl": "MatGLPotential",
    "nequix": "NequixPotential",
    "orb": "OrbPotential",
}
"""The class of each potential, in the module of the potential's name."""


def create_potential(name: str, **options: Any) -> Potential:
    """Make the potential called `name` ("chgnet", "matgl", "nequix", "orb") with its options.

    ValueError: no such potential. ImportError: its package is not installed, with the extra to
    install.
    """
    if name not in POTENTIALS:
        raise ValueError(f"no potential is named {name!r}: choose one of {', '.join(POTENTIALS)}")
    module = import_module(f"{__name__}.{name}")
    return getattr(module, POTENTIALS[name])(**options)
