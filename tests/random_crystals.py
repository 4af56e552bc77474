"""Crystals drawn by hypothesis, of all space groups."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from crystaljax.crystal import Crystals
from crystaljax.symmetry import orbits
from crystaljax.symmetry.tables import tables


@st.composite
def random_crystals(draw: st.DrawFn) -> Crystals:
    """One crystal of any group, on up to four of its positions, each once."""
    group = draw(st.integers(1, 230))
    n_letters = int(tables().n_letters[group - 1])
    letters = sorted(draw(st.sets(st.integers(1, n_letters), min_size=1, max_size=4)))
    n = len(letters)
    unit = st.floats(0, 1, exclude_max=True, width=32)
    frac = np.array(draw(st.lists(st.tuples(unit, unit, unit), min_size=n, max_size=n)))
    numbers = [[group] * n, letters]
    length = st.floats(2, 30, width=32)
    angle = st.floats(80, 100, width=32)
    lattice = np.array([draw(st.tuples(length, length, length, angle, angle, angle))])
    return Crystals(
        np.array([group], np.int32),
        np.array([letters], np.int32),
        np.array([draw(st.lists(st.integers(1, 118), min_size=n, max_size=n))], np.int32),
        np.asarray(orbits.project(*map(np.array, numbers), frac.astype(np.float32)))[None],
        np.asarray(orbits.constrain_lattice(np.array([group]), lattice.astype(np.float32))),
    )
