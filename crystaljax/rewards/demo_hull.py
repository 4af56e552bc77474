"""The demonstration hull: what a fresh machine has to measure stability against.

The elemental references of the Materials Project at 0, and CHGNet's formation energies of the
embedded prototypes. It knows few of the compounds there are, so most crystals look more stable
against it than they are: good for trying things out, not for conclusions about materials.
"""

from __future__ import annotations

import json
from importlib.resources import files

from crystaljax.rewards.hull import Hull

NAME = "demonstration hull"
FILE = "demonstration_hull.json"
"""Beside this module; `python -m crystaljax.rewards.build_demo_hull` writes it."""


def demonstration_hull() -> Hull:
    """The hull that ships with the package; it knows all 89 elements that have a reference."""
    content = json.loads(files("crystaljax.rewards").joinpath(FILE).read_text("utf-8"))
    return Hull.from_entries(content["formulas"], content["formation_energies"], name=NAME)
