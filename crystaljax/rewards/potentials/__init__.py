"""Interatomic potentials behind one interface."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from crystaljax.rewards.potentials.base import Corrections, Energies, Potential, Relaxed

__all__ = ["Corrections", "Energies", "Potential", "Relaxed", "create_potential"]


class Entry(NamedTuple):
    """Where a potential is made."""

    class_name: str
    """In the module of the potential's name."""
    options: tuple[str, ...] = ("weights",)
    """What the words after the potential's name stand for, in order."""


POTENTIALS = {
    "chgnet": Entry("CHGNetPotential"),
    "matgl": Entry("MatGLPotential"),
    "nequix": Entry("NequixPotential"),
    "orb": Entry("OrbPotential", ("model", "weights")),
}


def create_potential(name: str, **options: Any) -> Potential:
    """Make a potential by name, with its model or weights after a colon if not the default ones.

    Such as "chgnet", "nequix", "nequix:nequix-oam-1", "matgl:folder", "orb:model" or
    "orb:model:file"; what can stand there, and the options, say the potentials' classes.
    ValueError: no such potential. ImportError: its package is not installed, with the extra to
    install.
    """
    kind, *words = name.split(":")
    if kind not in POTENTIALS:
        raise ValueError(f"no potential is named {kind!r}: choose one of {', '.join(POTENTIALS)}")
    entry = POTENTIALS[kind]
    if len(words) > len(entry.options):
        raise ValueError(f"{name}: after {kind} can stand {' and '.join(entry.options)}, no more")
    module = import_module(f"{__name__}.{kind}")
    chosen = {option: word for option, word in zip(entry.options, words, strict=False) if word}
    return getattr(module, entry.class_name)(**chosen, **options)
