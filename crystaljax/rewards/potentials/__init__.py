"""Interatomic potentials behind one interface."""

from crystaljax.rewards.potentials.base import Energies, Potential, Relaxed

__all__ = ["Energies", "Potential", "Relaxed"]
