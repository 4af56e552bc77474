"""Occupations of positions, against an enumeration of every way to occupy them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from pyxtal.symmetry import Group

from crystaljax.symmetry.occupations import group_tables, occupations, outlook
from crystaljax.symmetry.placements import IMPOSSIBLE, NEW, SAME, occupancies
from crystaljax.symmetry.tables import tables


def searcher(
    group: int, atoms: tuple[int, ...]
) -> Callable[[int, tuple[int, ...], bool], tuple[int, float]]:
    """Fewest sites and total weight from a letter on, by trying every element on every position.

    The letter is one that may be occupied for the first time, or, after a site on it, again.
    """
    t = tables()
    n_cells = int(t.n_centering[group - 1])

    @cache
    def search(letter: int, rest: tuple[int, ...], again: bool) -> tuple[int, float]:
        if letter > t.n_letters[group - 1]:
            return (IMPOSSIBLE, 0.0) if any(rest) else (0, 1.0)
        step = int(t.multiplicity[group - 1, letter]) // n_cells
        n_free = int(t.n_free[group - 1, letter])
        occupied, repeated = (share[group - 1, letter] for share in occupancies())
        share = float(repeated if again else occupied) if n_free or not again else 0.0
        best, skipped = search(letter + 1, rest, False)
        total = (1 - share) * skipped
        for k, n in enumerate(rest):
            if n >= step and (n_free or not again):
                left = (*rest[:k], n - step, *rest[k + 1 :])
                fewest, weight = search(letter, left, True)
                best = min(best, 1 + fewest)
                total += (
                    share * (NEW if n == atoms[k] else min(SAME[0], SAME[1] / len(atoms))) * weight
                )
        return best, total

    return search


@pytest.mark.parametrize(
    "atoms",
    [
        (1, 1),
        (1, 2, 4),
        *(pytest.param(x, marks=pytest.mark.slow) for x in ((2, 4, 8), (1, 2, 3, 7))),
    ],
)
def test_every_group_and_letter(atoms: tuple[int, ...]) -> None:
    table = occupations(atoms)
    rest = atoms if len(atoms) == 2 else (*atoms[:-1], atoms[-1] - 2)
    column = int((np.array(rest) * table.stride).sum())
    for group in range(1, 231):
        search = searcher(group, atoms)
        first = table.first[group - 1]
        for letter in range(tables().n_letters[group - 1] + 1):
            expected = search(letter, rest, True) if letter else search(1, rest, False)
            assert table.fewest[first + letter, column] == expected[0], (group, letter)
            found = np.exp(float(table.log_ways[first + letter, column]))
            assert found == pytest.approx(expected[1], rel=0.02), (group, letter)


def test_sites_run_out() -> None:
    """60 atoms in P1 are 60 sites."""
    assert not outlook((60,)).fits(21)[0]
    assert outlook((20,)).fits(20)[0]


def test_against_pyxtal() -> None:
    """Sites that elements have to share: its list of ways to occupy positions, for a few groups."""
    table = outlook((1, 1, 3))
    fits = table.fits(100)
    for number in (1, 2, 12, 47, 62, 99, 123, 127, 139, 160, 166, 187, 191, 194, 221, 225, 227):
        n = int(tables().n_centering[number - 1])
        ways = Group(number).list_wyckoff_combinations([n, n, 3 * n])[0]
        assert fits[number - 1] == (len(ways) > 0), number


def test_template() -> None:
    """SrTiO3 on a, b, c of Pm-3m; on a, b, b there is no way, nor where letters are missing."""
    letters = (1, 2, 3)
    table = outlook((1, 1, 3), letters)
    assert table.fits(6)[220]
    assert not outlook((1, 1, 3), (1, 2, 4)).fits(6)[0]
    for group in np.flatnonzero(table.fits(6)):
        steps = tables().multiplicity[group, list(letters)] // tables().n_centering[group]
        assert sorted(steps) == [1, 1, 3]


def test_some_groups_alone() -> None:
    """Have the rows that they have among all."""
    chosen = np.isin(np.arange(230), (0, 61, 224))
    some, every = occupations((2, 3), groups=chosen), occupations((2, 3))
    assert not outlook((2, 3), groups=chosen).fits(100)[~chosen].any()
    kept = group_tables((2, 3), None, chosen)
    assert sorted(kept) == np.flatnonzero(chosen).tolist()
    for group in np.flatnonzero(chosen).tolist():
        mine, same = (t.first[group] + np.arange(t.n_rows[group]) for t in (some, every))
        np.testing.assert_array_equal(some.fewest[mine], every.fewest[same])
        np.testing.assert_array_equal(some.log_ways[mine], every.log_ways[same])
        np.testing.assert_array_equal(kept[group].fewest, every.fewest[same])
        np.testing.assert_array_equal(kept[group].log_ways, every.log_ways[same])
