"""Interatomic potentials behind one interface."""

from __future__ import annotations

from typing import Any

from crystaljax.rewards.potentials.base import Energies, Potential, Relaxed

__all__ = ["Energies", "Potential", "Relaxed", "create_potential"]


def create_potential(name: str, **options: Any) -> Potential:
    """Make the potential called `name` ("chgnet", "nequix") with its options.

    ValueError: no such potential. ImportError: its package is not installed, with the extra to
    install.
    """
    if name == "chgnet":
        from crystaljax.rewards.potentials.chgnet import CHGNetPotential

        return CHGNetPotential(**options)
    if name == "nequix":
        from crystaljax.rewards.potentials.nequix import NequixPotential

        return NequixPotential(**options)
    raise ValueError(f"no potential is named {name!r}: choose chgnet or nequix")
