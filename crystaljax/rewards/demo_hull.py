"""The demonstration hull, for trying things out without a data set of one's own.

The elemental references of the Materials Project at 0, and CHGNet's formation energies of the
embedded prototypes. It knows few compounds, so most crystals look more stable than they are: do not
draw conclusions about materials from it.
"""

from __future__ import annotations

import json
from importlib.resources import files

from crystaljax.rewards.hull import Hull

NAME = "demonstration hull"
FILE = "demonstration_hull.json"
"""File beside this module; `python -m crystaljax.rewards.build_demo_hull` writes it."""


def demonstration_hull() -> Hull:
    """The hull that ships with the package; it knows all 89 elements that have a reference."""
    content = json.loads(files("crystaljax.rewards").joinpath(FILE).read_text("utf-8"))
    return Hull.from_entries(content["formulas"], content["formation_energies"], name=NAME)
