"""Crystals drawn by hypothesis, of all space groups."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
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


def padded_crystals() -> st.SearchStrategy[Crystals]:
    """The same in four slots: one shape to compile for."""
    return random_crystals().map(lambda crystals: crystals.with_slots(4))


@st.composite
def triclinic_crystal(draw: st.DrawFn) -> Crystals:
    """One crystal of space group 1, its atoms more than 0.5 Å apart."""
    n = draw(st.integers(1, 8))
    # a corner of each of 64 boxes, and less than half a box away from it
    box = draw(st.lists(st.integers(0, 63), min_size=n, max_size=n, unique=True))
    shift = st.tuples(*[st.floats(0, 7 / 64, width=32)] * 3)
    shifts = np.array(draw(st.lists(shift, min_size=n, max_size=n)), np.float32)
    corners = np.stack(np.unravel_index(box, (4, 4, 4)), axis=1) / 4
    length, angle = st.floats(5, 30, width=32), st.floats(75, 105, width=32)
    crystals = Crystals(
        np.array([1], np.int32),
        np.ones((1, n), np.int32),
        np.array([draw(st.lists(st.integers(1, 118), min_size=n, max_size=n))], np.int32),
        (corners + shifts)[None].astype(np.float32),
        np.array([draw(st.tuples(*[length] * 3, *[angle] * 3))], np.float32),
    )
    return crystals.with_slots(8)  # one shape to compile for


def prototypes(step: int) -> Crystals:
    """Every step-th of the prototypes that the package has."""
    crystals = load("prototypes").crystals
    return crystals[np.arange(0, len(crystals), step)]
