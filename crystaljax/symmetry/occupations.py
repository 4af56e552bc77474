"""Ways to put the atoms of a composition on the Wyckoff positions of a space group.

For every place of a sequence of sites and every rest of the composition: the fewest sites on which
the rest fits (exact), and how likely a crystal goes on with just this rest (an estimate). Both are
computed backwards over the positions of a group.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, tables

IMPOSSIBLE = 200
"""Stands for the fewest sites where no number of them will do; more than a crystal has."""

MAX_PARTS = 65536
"""Parts of a composition that can be told apart, at most."""

Atoms = tuple[int, ...]
"""Atoms of K elements in the primitive cell."""

Template = tuple[int, ...] | None
"""Letter indices of all sites, if they are given."""

PATH = Path(__file__).with_name("occupancies.npz")

SAME = 0.3, 0.9
"""Probability that a site has a particular one of the elements that there already are, about as in
known crystals: the lesser of the first and of the second over the number of elements."""

NEW = 0.05
"""Probability that it has a particular other element of the composition, likewise."""

CACHE_BYTES = 256 * 2**20
"""Tables that are kept, at most."""

OVERHEAD = 1024
"""Bytes of what is kept beside its large arrays, about."""


@dataclass(frozen=True, eq=False)
class Occupations:
    """Tables of a composition over places of a sequence of sites.

    The rest is m_k atoms of each of K elements in the primitive cell; its column is the sum of
    m_k `stride`_k. A group's rows are: before any site, and after a site on letter 1, 2 ...; with a
    template, after its first site, its second ...
    """

    atoms: np.ndarray
    """int32 [K]: the whole composition."""
    stride: np.ndarray
    """int32 [K]"""
    first: np.ndarray
    """int32 [230]: the group's first row; -1 for groups that were not asked for."""
    n_rows: np.ndarray
    """int32 [230]: rows of each group."""
    fewest: np.ndarray
    """uint8 [rows, columns]: sites that the rest takes at least; `IMPOSSIBLE` if it does not fit.
    Exact: a position without free coordinates is occupied once at most, whichever element needs
    it."""
    log_ways: np.ndarray
    """float16 [rows, columns]: ln of how likely sequences go on with this rest and then end, up to
    a constant, by how often positions are occupied in known crystals; -inf where none does."""

    @property
    def whole(self) -> int:
        """Column of the whole composition."""
        return int((self.atoms * self.stride).sum())


@dataclass(frozen=True, eq=False)
class Outlook:
    """What the tables of a composition say before and after the first site, which is little.

    Rows of a group: one for each first letter 1, 2 ...; with a template one, for its first letter.
    """

    atoms: np.ndarray
    """int32 [K]: the whole composition."""
    stride: np.ndarray
    """int32 [K]: as of `Occupations`."""
    fewest: np.ndarray
    """uint8 [230]: sites that the whole composition takes at least; `IMPOSSIBLE` if it does not
    fit, or the group was not asked for."""
    first: np.ndarray
    """int32 [230]: the group's first row."""
    log_ways: np.ndarray
    """float16 [rows, K]: `Occupations.log_ways` after a first site with each element; -inf for
    those of which there are fewer atoms than the site takes."""

    def fits(self, max_sites: int) -> np.ndarray:
        """bool [230]: the whole composition fits the group, on so many sites at most."""
        return self.fewest <= max_sites


class GroupTable(NamedTuple):
    """The rows of `Occupations` that are of one group."""

    fewest: np.ndarray
    """uint8 [rows, columns]"""
    log_ways: np.ndarray
    """float16 [rows, columns]"""


class _Kept:
    """The tables and outlooks made last, of `CACHE_BYTES` in all."""

    def __init__(self) -> None:
        self._kept: OrderedDict[object, GroupTable | Outlook] = OrderedDict()
        self._bytes = 0

    def group_tables(
        self, atoms: Atoms, template: Template, groups: np.ndarray
    ) -> dict[int, GroupTable]:
        found: dict[int, GroupTable] = {}
        missing = np.zeros(N_GROUPS, bool)
        for group in np.flatnonzero(groups).tolist():
            kept = self._get((atoms, template, group))
            if isinstance(kept, GroupTable):
                found[group] = kept
            else:
                missing[group] = True
        if missing.any():
            found |= self._split(occupations(atoms, template, missing), atoms, template)
        return found

    def outlook(self, atoms: Atoms, template: Template, groups: np.ndarray) -> Outlook:
        key = atoms, template, groups.tobytes()
        found = self._get(key)
        if not isinstance(found, Outlook):
            made = occupations(atoms, template, groups)
            self._split(made, atoms, template)  # some group of it is likely to be sampled next
            found = _look_out(made, template, groups)
            self._put(key, found)
        return found

    def _split(self, made: Occupations, atoms: Atoms, template: Template) -> dict[int, GroupTable]:
        """Tables by group, which are kept."""
        found = {}
        for group in np.flatnonzero(made.first >= 0).tolist():
            mine = slice(made.first[group], made.first[group] + made.n_rows[group])
            found[group] = GroupTable(made.fewest[mine].copy(), made.log_ways[mine].copy())
            self._put((atoms, template, group), found[group])
        return found

    def _get(self, key: object) -> GroupTable | Outlook | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def _put(self, key: object, made: GroupTable | Outlook) -> None:
        if key in self._kept:
            self._bytes -= _size(self._kept[key])
        self._kept[key] = made
        self._bytes += _size(made)
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


@cache
def _kept() -> _Kept:
    return _Kept()


def _size(table: GroupTable | Outlook) -> int:
    return table.fewest.nbytes + table.log_ways.nbytes + OVERHEAD


def occupations(
    atoms: Atoms, template: Template = None, groups: np.ndarray | None = None
) -> Occupations:
    """The tables of a composition, from the atoms of K elements in the primitive cell.

    With a template, the letter indices of all sites, every site must be occupied. `groups` bool
    [230] is what they are made for, all by default. They do not depend on the elements' names.
    ValueError if the composition has too many parts to tell apart.
    """
    _check_parts(atoms)
    return _make(atoms, template, _chosen(groups))


def group_tables(atoms: Atoms, template: Template, groups: np.ndarray) -> dict[int, GroupTable]:
    """The tables of each of some groups, bool [230], by its index from 0.

    They are kept (`CACHE_BYTES`). Arguments and errors as of `occupations`.
    """
    _check_parts(atoms)
    return _kept().group_tables(atoms, template, _chosen(groups))


def outlook(atoms: Atoms, template: Template = None, groups: np.ndarray | None = None) -> Outlook:
    """The outlook on a composition, which is kept; arguments and errors as of `occupations`."""
    _check_parts(atoms)
    return _kept().outlook(atoms, template, _chosen(groups))


def _chosen(groups: np.ndarray | None) -> np.ndarray:
    return np.ones(N_GROUPS, bool) if groups is None else np.asarray(groups, bool)


def strides(atoms: Atoms) -> np.ndarray:
    """int32 [K]: see `Occupations`."""
    shape = [n + 1 for n in atoms]
    return np.array([math.prod(shape[k + 1 :]) for k in range(len(shape))], np.int32)


def table_size(atoms: Atoms, template: Template, group: int) -> int:
    """Entries of the tables of a composition that are of a group, index from 0."""
    n_rows = int(tables().n_letters[group]) if template is None else len(template)
    return (n_rows + 1) * math.prod(n + 1 for n in atoms)


def _check_parts(atoms: Atoms) -> None:
    n_parts = math.prod(n + 1 for n in atoms)
    if n_parts > MAX_PARTS:
        raise ValueError(
            f"a formula of {len(atoms)} elements and {sum(atoms)} atoms has {n_parts} parts that "
            f"could be left to place, more than {MAX_PARTS}: ask for a smaller cell"
        )


def _make(atoms: Atoms, template: Template, groups: np.ndarray) -> Occupations:
    parts = _Parts(atoms)
    if template is None:
        n_rows = tables().n_letters.astype(np.int32) + 1
        fewest, ways = _by_letter(parts, groups)
    else:
        n_rows = np.full(N_GROUPS, len(template) + 1, np.int32)
        fewest, ways = _by_site(parts, template, groups)
    n_rows = np.where(groups, n_rows, 0).astype(np.int32)
    first = np.where(groups, np.cumsum(n_rows) - n_rows, -1).astype(np.int32)
    with np.errstate(divide="ignore"):
        log_ways = np.log(ways).astype(np.float16)
    return Occupations(np.array(atoms, np.int32), parts.stride, first, n_rows, fewest, log_ways)


def _look_out(table: Occupations, template: Template, groups: np.ndarray) -> Outlook:
    whole = table.whole
    fewest = np.full(N_GROUPS, IMPOSSIBLE, np.uint8)
    fewest[groups] = table.fewest[table.first[groups], whole]
    exists = (tables().multiplicity > 0) & groups[:, None]
    if template is not None:
        exists &= np.arange(N_LETTERS) == template[0]
    group, letter = np.nonzero(exists)
    step = tables().multiplicity[group, letter].astype(np.int32) // tables().n_centering[group]
    possible = step[:, None] <= table.atoms
    column = np.where(possible, whole - step[:, None] * table.stride, 0)
    row = table.first[group] + (letter if template is None else 1)
    ways = np.where(possible, table.log_ways[row[:, None], column], np.float16(-np.inf))
    first = np.searchsorted(group, np.arange(N_GROUPS)).astype(np.int32)
    return Outlook(table.atoms, table.stride, fewest, first, ways)


class _Parts:
    """The parts of a composition, and what is left of them after one more site."""

    def __init__(self, atoms: tuple[int, ...]) -> None:
        self.atoms = atoms
        shape = [n + 1 for n in atoms]
        self.n = math.prod(shape)
        self.stride = strides(atoms)
        self._left = [np.arange(self.n) // s % n for s, n in zip(self.stride, shape, strict=True)]
        self.same = min(SAME[0], SAME[1] / len(atoms))
        self._moves: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}

    def moves(self, step: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """For each element that may take `step` atoms: the shift of columns, and for the columns
        from there on `IMPOSSIBLE` where it has not as many left (uint8, else 0), and the weight."""
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
    """Shares of known crystals, by group and letter; they guide sampling and need not be right."""

    occupied: np.ndarray
    """float32 [230, 28]: of those that have a site on the position."""
    again: np.ndarray
    """float32 [230, 28]: of their sites there that are followed by one more there."""


@cache
def occupancies() -> Occupancies:
    """The shares of `build_occupancies`, read once."""
    with np.load(PATH, allow_pickle=False) as archive:
        return Occupancies(archive["occupied"], archive["again"])


def _by_letter(parts: _Parts, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tables of some groups, all from the last position down."""
    n_rows = np.where(groups, tables().n_letters.astype(int) + 1, 0)
    first = np.cumsum(n_rows) - n_rows
    place = np.cumsum(groups) - 1  # among the groups asked for
    fewest, ways = parts.nothing(int(n_rows.sum()))  # after a site on each letter
    fewest_from, ways_from = parts.nothing(int(groups.sum()))  # from the letter on, or without it
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
        if parts.moves(step):  # some element has atoms enough for the position
            skipped += share * parts.sum(total, step)
            fewest_from[mine] = np.minimum(fewest_from[mine], parts.least(least, step))
        ways_from[mine] = skipped
    fewest[first[groups]], ways[first[groups]] = fewest_from, ways_from
    return fewest, ways


class _Turn(NamedTuple):
    """Positions that are worked on together, one of each of n groups."""

    step: int
    """Atoms of a site in the primitive cell."""
    again: bool
    """There may be several sites."""
    group: np.ndarray
    """int [n]: rows of group tables."""
    letter: np.ndarray
    """int [n]: the position's letter in each."""


@cache
def _positions() -> tuple[list[_Turn], np.ndarray]:
    """Turns through all positions, of each group its last one first; bool [turns, 230]: has one.

    At every turn it is the largest position that any group has next: sizes fall from letter to
    letter, so that few turns do.
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
    parts: _Parts, fewest: np.ndarray, ways: np.ndarray, step: int, again: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tables after a site on a position that may be occupied any number of times more."""
    added, total, least = (1 - again) * ways, (1 - again) * ways, fewest
    while parts.moves(step) and added.any():
        added = again * parts.sum(added, step)
        total = total + added
        least = np.minimum(least, parts.least(least, step))
    return least, total


def _by_site(
    parts: _Parts, template: tuple[int, ...], groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tables of some groups over the sites of a template, from the last one up."""
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
