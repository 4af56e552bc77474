"""Occupations of positions, against an enumeration of every way to occupy them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from pyxtal.symmetry import Group

from crystaljax.symmetry.occupations import IMPOSSIBLE, occupations
from crystaljax.symmetry.tables import tables


def searcher(group: int) -> Callable[[int, tuple[int, ...]], int]:
    """Fewest sites from a letter on, by trying every element on every position in turn."""
    t = tables()
    n_cells = int(t.n_centering[group - 1])

    @cache
    def search(letter: int, rest: tuple[int, ...]) -> int:
        if not any(rest):
            return 0
        if letter > t.n_letters[group - 1]:
            return IMPOSSIBLE
        step = int(t.multiplicity[group - 1, letter]) // n_cells
        onward = letter if t.n_free[group - 1, letter] else letter + 1
        best = search(letter + 1, rest)
        for k, n in enumerate(rest):
            if n >= step:
                left = (*rest[:k], n - step, *rest[k + 1 :])
                best = min(best, 1 + search(onward, left))
        return best

    return search


@pytest.mark.parametrize(
    "atoms", [(1, 1), (2, 4, 8), pytest.param((1, 2, 3, 7), marks=pytest.mark.slow)]
)
def test_every_group_and_letter(atoms: tuple[int, ...]) -> None:
    table = occupations(atoms)
    whole = int((table.atoms * table.stride).sum())
    for group in range(1, 231):
        search = searcher(group)
        for letter in range(1, tables().n_letters[group - 1] + 2):
            expected = search(letter, atoms)
            found = table.fewest[table.first[group - 1] + letter - 1, whole]
            assert found == expected, (group, letter)


def test_sites_run_out() -> None:
    """60 atoms in P1 are 60 sites."""
    assert not occupations((60,)).fits(21)[0]
    assert occupations((20,)).fits(20)[0]


def test_against_pyxtal() -> None:
    """Sites that elements have to share: its list of ways to occupy positions, for a few groups."""
    table = occupations((1, 1, 3))
    fits = table.fits(100)
    for number in (1, 2, 12, 47, 62, 99, 123, 127, 139, 160, 166, 187, 191, 194, 221, 225, 227):
        n = int(tables().n_centering[number - 1])
        ways = Group(number).list_wyckoff_combinations([n, n, 3 * n])[0]
        assert fits[number - 1] == (len(ways) > 0), number


def test_template() -> None:
    """SrTiO3 on a, b, c of Pm-3m; on a, b, b there is no way, nor where letters are missing."""
    letters = (1, 2, 3)
    table = occupations((1, 1, 3), letters, 6)
    assert table.fits(6)[220]
    assert not occupations((1, 1, 3), (1, 2, 4), 6).fits(6)[0]
    for group in np.flatnonzero(table.fits(6)):
        steps = tables().multiplicity[group, list(letters)] // tables().n_centering[group]
        assert sorted(steps) == [1, 1, 3]
