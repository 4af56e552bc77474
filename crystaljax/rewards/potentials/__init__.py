"""Interatomic potentials behind one interface."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from crystaljax import user_code
from crystaljax.rewards.levels import split_level
from crystaljax.rewards.potentials.base import Energies, Potential, Relaxed

__all__ = [
    "Energies",
    "Potential",
    "Relaxed",
    "create_potential",
    "is_file",
    "potential_level",
    "require_package",
]


class Entry(NamedTuple):
    """Class of a potential, and its options."""

    class_name: str
    """Name of the class; its module has the potential's name, and a function `level_of`."""
    options: tuple[str, ...] = ("weights",)
    """Parameters that the parts after the potential's name set, in order."""
    package: str = "numpy"
    """Package that it needs."""
    extra: str = ""
    """Extra that installs it."""


POTENTIALS = {
    "ase": Entry("AsePotential", ("file", "function")),
    "chgnet": Entry("CHGNetPotential", package="chgnet", extra="chgnet"),
    "matgl": Entry("MatGLPotential", package="matgl", extra="matgl"),
    "nequix": Entry("NequixPotential", package="nequix", extra="nequix"),
    "orb": Entry("OrbPotential", ("model", "weights"), "orb_models", "orb"),
    "sevennet": Entry("SevenNetPotential", ("weights", "modal"), "sevenn", "sevenn"),
}

NEEDED = "name", "level", "elements", "energies", "relax"
"""Attributes that the class of a user's potential must have."""


def create_potential(name: str, **options: Any) -> Potential:
    """Make a potential by name, with its model or weights after a colon if not the default ones.

    Examples: "chgnet", "nequix", "nequix:nequix-oam-1", "matgl:folder", "orb:model",
    "orb:model:file", "sevennet:7net-l3i5". The potentials' classes document these names and the
    options. Weights that are not known by name need their level of theory, as in "nequix:file@MP".
    "ase:FILE.py:FUNCTION" is a function that returns a calculator of ASE, which takes one structure
    at a time. A potential of a user's own is FILE.py:CLASS, a class that is called without
    arguments (see `Potential`). Users' files are run: give only files that you trust.

    Errors: ValueError for no such potential, or a class that is none; ImportError if its package is
    not installed, with the extra to install; whatever a user's file raises.
    """
    require_package(name)
    if is_file(name):
        return _of_user(name)(**options)
    module, class_name, chosen, level = _find(name)
    if level is not None:
        options["level"] = level
    return getattr(module, class_name)(**chosen, **options)


def require_package(name: str) -> None:
    """ImportError if the package that a potential needs is absent; nothing is loaded or fetched."""
    entry = POTENTIALS.get(split_level(name)[0].split(":")[0])
    if entry is not None and find_spec(entry.package) is None:
        raise ImportError(
            f"{name} needs {entry.package}, which is not installed: run"
            f' pip install "crystaljax[{entry.extra}]"'
        )


def potential_level(name: str) -> str | None:
    """Level of theory of a potential's energies, by its name; None if it is unknown.

    Only a user's file is loaded, no weights. Errors: see `create_potential`.
    """
    if is_file(name):
        return _of_user(name).level
    module, _, chosen, level = _find(name)
    return level or module.level_of(**chosen)


def is_file(name: str) -> bool:
    """Whether a name is FILE.py:CLASS, a potential in a user's file."""
    return name.rpartition(":")[0].endswith(".py") and not name.startswith("ase:")


def _of_user(name: str) -> Any:
    """The class of a user's potential."""
    made = user_code.load(name, "class")
    missing = [part for part in NEEDED if not hasattr(made, part)]
    if missing:
        raise ValueError(
            f"{name} is no potential: its class lacks {', '.join(missing)} (see"
            " crystaljax.rewards.potentials.Potential)"
        )
    return made


def _find(name: str) -> tuple[Any, str, dict[str, str], str | None]:
    """Module and class of a potential, its options, and its level if the name gives one."""
    rest, level = split_level(name)
    kind, *words = rest.split(":")
    if kind not in POTENTIALS:
        known = ", ".join(POTENTIALS)
        raise ValueError(f"no potential is named {kind!r}: choose {known}, or FILE.py:CLASS")
    entry = POTENTIALS[kind]
    if kind == "ase" and len(words) < 2:
        raise ValueError(f"{name}: write ase:FILE.py:FUNCTION, which returns a calculator of ASE")
    if len(words) > len(entry.options):
        raise ValueError(f"{name}: after {kind} can stand {' and '.join(entry.options)}, no more")
    module = import_module(f"{__name__}.{kind}")
    chosen = {option: word for option, word in zip(entry.options, words, strict=False) if word}
    return module, entry.class_name, chosen, level
