"""Interatomic potentials behind one interface."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from crystaljax.rewards.levels import split_level
from crystaljax.rewards.potentials.base import Energies, Potential, Relaxed

__all__ = ["Energies", "Potential", "Relaxed", "create_potential", "potential_level"]


class Entry(NamedTuple):
    """Class of a potential, and its options."""

    class_name: str
    """In the module of the potential's name, which also has a function `level_of`."""
    options: tuple[str, ...] = ("weights",)
    """Parameters that the words after the potential's name give, in order."""


POTENTIALS = {
    "chgnet": Entry("CHGNetPotential"),
    "matgl": Entry("MatGLPotential"),
    "nequix": Entry("NequixPotential"),
    "orb": Entry("OrbPotential", ("model", "weights")),
    "sevennet": Entry("SevenNetPotential", ("weights", "modal")),
}


def create_potential(name: str, **options: Any) -> Potential:
    """Make a potential by name, with its model or weights after a colon if not the default ones.

    Such as "chgnet", "nequix", "nequix:nequix-oam-1", "matgl:folder", "orb:model",
    "orb:model:file" or "sevennet:7net-l3i5"; what can stand there, and the options, say the
    potentials' classes. The level of theory of weights that are not known by name can follow, as
    "nequix:file@MP". ValueError: no such potential. ImportError: its package is not installed, with
    the extra to install.
    """
    module, class_name, chosen, level = _find(name)
    if level is not None:
        options["level"] = level
    return getattr(module, class_name)(**chosen, **options)


def potential_level(name: str) -> str | None:
    """Level of theory of a potential's energies, by its name; None if its weights do not tell.

    Nothing is loaded. ValueError: no such potential.
    """
    module, _, chosen, level = _find(name)
    return level or module.level_of(**chosen)


def _find(name: str) -> tuple[Any, str, dict[str, str], str | None]:
    """The module and the class of a potential, its options, and its level if it is named."""
    rest, level = split_level(name)
    kind, *words = rest.split(":")
    if kind not in POTENTIALS:
        raise ValueError(f"no potential is named {kind!r}: choose one of {', '.join(POTENTIALS)}")
    entry = POTENTIALS[kind]
    if len(words) > len(entry.options):
        raise ValueError(f"{name}: after {kind} can stand {' and '.join(entry.options)}, no more")
    module = import_module(f"{__name__}.{kind}")
    chosen = {option: word for option, word in zip(entry.options, words, strict=False) if word}
    return module, entry.class_name, chosen, level
