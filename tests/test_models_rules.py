"""Masks on Wyckoff letters against rules spelt out one letter at a time, and real crystals."""

from __future__ import annotations

import numpy as np
import pytest
from pyxtal.symmetry import Group

from crystaljax.data.dataset import load
from crystaljax.models.rules import NEVER, allowed_letters, exclude
from crystaljax.symmetry.tables import N_LETTERS

START = -1
"""Stands for the state before the first letter."""


def follows(group: Group, previous: int, letter: int) -> bool:
    """Whether a letter may follow another, by pyxtal's description of the positions."""
    n_letters = len(group)
    if letter == 0:
        return previous != START
    if letter > n_letters or previous == 0:
        return False
    if previous == START or letter > previous:
        return True
    return letter == previous and group[n_letters - previous].get_dof() > 0  # general first


@pytest.mark.parametrize("number", [1, 2, 12, 47, 62, 70, 123, 166, 194, 205, 221, 225, 227, 230])
def test_allowed_letters(number: int) -> None:
    group = Group(number)
    previous = np.arange(START, len(group) + 1)
    found = allowed_letters(np.full(len(previous), number), previous, previous == START)
    expected = [[follows(group, p, letter) for letter in range(N_LETTERS)] for p in previous]
    found = np.asarray(found)
    # What follows an end is never asked for, except that there must be an end to choose.
    assert found[previous == 0, 0].all()
    occupied = previous != 0
    np.testing.assert_array_equal(found[occupied], np.array(expected)[occupied])


def test_every_state_has_a_way_on() -> None:
    groups, previous = np.mgrid[1:231, 0:N_LETTERS]
    for is_first in (True, False):
        assert np.asarray(allowed_letters(groups, previous, is_first)).any(axis=-1).all()


def test_real_crystals_obey() -> None:
    crystals = load("prototypes").crystals
    letters = np.pad(crystals.wyckoff, ((0, 0), (1, 1)))
    previous, following = letters[:, :-1], letters[:, 1:]
    is_first = np.broadcast_to(np.arange(previous.shape[1]) == 0, previous.shape)
    groups = np.broadcast_to(crystals.space_group[:, None], previous.shape)
    allowed = np.asarray(allowed_letters(groups, previous, is_first))
    obeyed = np.take_along_axis(allowed, following[..., None], axis=-1)[..., 0]
    assert obeyed[is_first | (previous > 0)].all()


def test_excluded_choices_have_probability_zero() -> None:
    logits = np.array([0.0, 80.0, 1.0], np.float32)
    kept = np.asarray(exclude(logits, np.array([True, False, True])))
    np.testing.assert_array_equal(kept, np.array([0, NEVER, 1], np.float32))
    p = np.exp(kept - kept.max())
    assert p[1] == 0
