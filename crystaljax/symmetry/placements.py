"""Recursions over the Wyckoff positions of a space group, from the last to the first.

They compute, for every remainder of a composition (atoms not placed yet), the fewest sites that
hold it (exact), and the probability that a crystal continues with exactly this remainder (an
estimate). `occupations` makes tables of them.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystaljax.symmetry.tables import N_GROUPS, tables

Atoms = tuple[int, ...]
"""Atoms of K elements in the primitive cell."""

Template = tuple[int, ...] | None
"""Letter indices of all sites, if they are given."""

IMPOSSIBLE = 200
"""Fewest sites where no number of sites is possible; larger than any crystal's."""

PATH = Path(__file__).with_name("occupancies.npz")

SAME = 0.3, 0.9
"""Probability that a site has a particular one of the elements already present, roughly as in known
crystals: the smaller of the first number, and of the second over the number of elements."""

NEW = 0.05
"""Probability that a site has a particular element that is not present yet, likewise."""


def strides(atoms: Atoms) -> np.ndarray:
    """int32 [K]: strides; the sum of m_k `strides`_k is the unique column of a remainder m_k."""
    shape = [n + 1 for n in atoms]
    return np.array([math.prod(shape[k + 1 :]) for k in range(len(shape))], np.int32)


class Parts:
    """The n remainders of a composition, and the transitions between them by one site."""

    def __init__(self, atoms: tuple[int, ...]) -> None:
        self.atoms = atoms
        shape = [n + 1 for n in atoms]
        self.n = math.prod(shape)
        self.stride = strides(atoms)
        self._left = [np.arange(self.n) // s % n for s, n in zip(self.stride, shape, strict=True)]
        self.same = min(SAME[0], SAME[1] / len(atoms))
        self._moves: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}

    def moves(self, step: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """For each element with at least `step` atoms: the shift of columns, and two arrays for the
        columns from there on: `IMPOSSIBLE` where fewer atoms are left (uint8, else 0), and the
        weight."""
        if step not in self._moves:
            self._moves[step] = []
            for left, n, stride in zip(self._left, self.atoms, self.stride, strict=True):
                if 0 < step <= n:
                    shift = step * int(stride)
                    possible = left[shift:] >= step
                    weight = possible * np.where(left[shift:] == n, NEW, self.same)
                    never = np.where(possible, 0, IMPOSSIBLE).astype(np.uint8)
                    self._moves[step].append((shift, never, weight))
        return self._moves[step]

    def sum(self, ways: np.ndarray, step: int) -> np.ndarray:
        """float64 [N, n]: weights of one site of `step` atoms followed by `ways` [N, n]."""
        total = np.zeros_like(ways)
        for shift, _, weight in self.moves(step):
            total[:, shift:] += weight * ways[:, : self.n - shift]
        return total

    def least(self, fewest: np.ndarray, step: int) -> np.ndarray:
        """uint8 [N, n]: fewest sites, one of `step` atoms followed by `fewest` [N, n]."""
        least = np.full_like(fewest, IMPOSSIBLE)
        for shift, never, _ in self.moves(step):
            onward = np.maximum(fewest[:, : self.n - shift] + 1, never)
            np.minimum(least[:, shift:], onward, out=least[:, shift:])
        return least

    def nothing(self, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Tables of sequences that end: fewest sites, weights."""
        fewest = np.full((n_rows, self.n), IMPOSSIBLE, np.uint8)
        fewest[:, 0] = 0
        ways = np.zeros((n_rows, self.n))
        ways[:, 0] = 1
        return fewest, ways


class Occupancies(NamedTuple):
    """Occupancies in known crystals, by group and letter; they need not be exact."""

    occupied: np.ndarray
    """float32 [230, 28]: share of crystals with a site on the position."""
    again: np.ndarray
    """float32 [230, 28]: share of the sites on the position that another one follows."""


@cache
def occupancies() -> Occupancies:
    """The table of `build_occupancies`, read once."""
    with np.load(PATH, allow_pickle=False) as archive:
        return Occupancies(archive["occupied"], archive["again"])


def by_letter(parts: Parts, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tables of some groups, by a recursion from the last position to the first."""
    n_rows = np.where(groups, tables().n_letters.astype(int) + 1, 0)
    first = np.cumsum(n_rows) - n_rows
    place = np.cumsum(groups) - 1  # index among the chosen groups
    fewest, ways = parts.nothing(int(n_rows.sum()))  # after a site on each letter
    fewest_from, ways_from = parts.nothing(int(groups.sum()))  # with the letter or a later one
    turns, has_turn = _positions()
    for turn in np.flatnonzero(has_turn[:, groups].any(axis=1)).tolist():
        step, again, alike, letters = turns[turn]
        chosen = groups[alike]
        group, letter = alike[chosen], letters[chosen]
        mine = place[group]
        least, total = fewest_from[mine], ways_from[mine]
        if again:
            share = occupancies().again[group, letter, None]
            least, total = _repeated(parts, least, total, step, share)
        fewest[first[group] + letter], ways[first[group] + letter] = least, total
        share = occupancies().occupied[group, letter, None]
        skipped = (1 - share) * ways_from[mine]
        if parts.moves(step):  # an element has enough atoms for the position
            skipped += share * parts.sum(total, step)
            fewest_from[mine] = np.minimum(fewest_from[mine], parts.least(least, step))
        ways_from[mine] = skipped
    fewest[first[groups]], ways[first[groups]] = fewest_from, ways_from
    return fewest, ways


class _Turn(NamedTuple):
    """Positions that are processed together, one from each of n groups."""

    step: int
    """Atoms of a site in the primitive cell."""
    again: bool
    """Whether the position may be occupied several times."""
    group: np.ndarray
    """int [n]: rows of group tables."""
    letter: np.ndarray
    """int [n]: the position's letter in each."""


@cache
def _positions() -> tuple[list[_Turn], np.ndarray]:
    """Turns that process all positions, from each group's last; bool [turns, 230]: has one.

    Each turn takes the positions of the largest multiplicity that any group has next. As
    multiplicities fall from letter to letter, few turns are enough.
    """
    steps = tables().multiplicity.astype(int) // tables().n_centering[:, None].astype(int)
    repeats = tables().n_free > 0
    letter, found = tables().n_letters.astype(int), []
    while (left := np.flatnonzero(letter > 0)).size:
        at = left, letter[left]
        kinds, kind = np.unique(2 * steps[at] + repeats[at], return_inverse=True)
        alike = left[kind.ravel() == len(kinds) - 1]
        step, again = divmod(int(kinds[-1]), 2)
        found.append(_Turn(step, bool(again), alike, letter[alike].copy()))
        letter[alike] -= 1
    has_turn = np.zeros((len(found), N_GROUPS), bool)
    for row, turn in zip(has_turn, found, strict=True):
        row[turn.group] = True
    return found, has_turn


def _repeated(
    parts: Parts, fewest: np.ndarray, ways: np.ndarray, step: int, again: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tables after a site on a position that may be occupied any number of times."""
    added, total, least = (1 - again) * ways, (1 - again) * ways, fewest
    while parts.moves(step) and added.any():
        added = again * parts.sum(added, step)
        total = total + added
        least = np.minimum(least, parts.least(least, step))
    return least, total


def by_site(
    parts: Parts, template: tuple[int, ...], groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tables of some groups for a template, by a recursion from its last site to the first."""
    chosen = np.flatnonzero(groups)
    fewest, ways = parts.nothing(len(chosen))
    rows = [(fewest, ways)]
    for letter in reversed(template):
        steps = tables().multiplicity[chosen, letter] // tables().n_centering[chosen]
        onward, (fewest, ways) = rows[-1], parts.nothing(len(chosen))
        for step in np.unique(steps).tolist():
            alike = steps == step
            fewest[alike] = parts.least(onward[0][alike], step)
            ways[alike] = parts.sum(onward[1][alike], step)
        rows.append((fewest, ways))
    stacked = [np.stack(part, axis=1) for part in zip(*rows[::-1], strict=True)]
    return stacked[0].reshape(-1, parts.n), stacked[1].reshape(-1, parts.n)
