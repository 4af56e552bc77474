"""Tables of the ways to put the atoms of a composition on the Wyckoff positions of space groups.

A table has an entry for each place in a sequence of sites and each remainder of the composition
(atoms that are not placed yet): the fewest sites that hold the remainder, and the estimated
probability that a crystal continues with exactly this remainder (`placements`). The most recent
tables are cached.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from crystaljax.symmetry.placements import (
    IMPOSSIBLE,
    Atoms,
    Parts,
    Template,
    by_letter,
    by_site,
)
from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, tables

MAX_PARTS = 65536
"""Largest number of remainders of a composition."""

CACHE_BYTES = 256 * 2**20
"""Largest number of cached tables."""

OVERHEAD = 1024
"""Approximate size in bytes of a cached object without its large arrays."""


@dataclass(frozen=True, eq=False)
class Occupations:
    """Tables of a composition, by place in a sequence of sites (rows) and remainder (columns).

    A remainder is m_k atoms of each of K elements in the primitive cell; its column is the sum of
    m_k `stride`_k. A group has a row for the start, and one each for after a site on letter
    1, 2 ...; with a template: after its first site, its second ...
    """

    atoms: np.ndarray
    """int32 [K]: the whole composition."""
    stride: np.ndarray
    """int32 [K]"""
    first: np.ndarray
    """int32 [230]: the group's first row; -1 for groups without a table."""
    n_rows: np.ndarray
    """int32 [230]: number of rows of each group."""
    fewest: np.ndarray
    """uint8 [rows, columns]: fewest sites that hold the remainder; `IMPOSSIBLE` if none do. It is
    exact: a position without free coordinates is occupied at most once, by any element."""
    log_ways: np.ndarray
    """float16 [rows, columns]: ln of the probability that a sequence continues with this remainder
    and then ends, up to a constant, estimated from the occupancies of known crystals; -inf where it
    is impossible."""

    @property
    def whole(self) -> int:
        """Column of the whole composition."""
        return int((self.atoms * self.stride).sum())


@dataclass(frozen=True, eq=False)
class Outlook:
    """The small part of a composition's tables that concerns the first site.

    A group has a row for each first letter 1, 2 ...; with a template one row, for its first letter.
    """

    atoms: np.ndarray
    """int32 [K]: the whole composition."""
    stride: np.ndarray
    """int32 [K]: as of `Occupations`."""
    fewest: np.ndarray
    """uint8 [230]: fewest sites that hold the whole composition; `IMPOSSIBLE` if none do, or the
    group has no table."""
    first: np.ndarray
    """int32 [230]: the group's first row."""
    log_ways: np.ndarray
    """float16 [rows, K]: `Occupations.log_ways` after a first site with each element; -inf for
    elements with fewer atoms than the site has."""

    def fits(self, max_sites: int) -> np.ndarray:
        """bool [230]: whether at most `max_sites` sites of the group hold the composition."""
        return self.fewest <= max_sites


class GroupTable(NamedTuple):
    """The rows of `Occupations` of one group."""

    fewest: np.ndarray
    """uint8 [rows, columns]"""
    log_ways: np.ndarray
    """float16 [rows, columns]"""


class _Kept:
    """Cache of the most recent tables and outlooks, up to `CACHE_BYTES` in total."""

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
            self._split(made, atoms, template)  # one of its groups will probably be sampled next
            found = _look_out(made, template, groups)
            self._put(key, found)
        return found

    def _split(self, made: Occupations, atoms: Atoms, template: Template) -> dict[int, GroupTable]:
        """Tables by group, put into the cache."""
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

    With a template (the letter indices of all sites) every site must be occupied. `groups`, bool
    [230]: groups to make tables of, all by default. Tables do not depend on the elements' names.
    ValueError if the composition has too many remainders.
    """
    _check_parts(atoms)
    return _make(atoms, template, _chosen(groups))


def group_tables(atoms: Atoms, template: Template, groups: np.ndarray) -> dict[int, GroupTable]:
    """The tables of each of some groups, bool [230], by its index from 0.

    They are cached (`CACHE_BYTES`). Arguments and errors as in `occupations`.
    """
    _check_parts(atoms)
    return _kept().group_tables(atoms, template, _chosen(groups))


def outlook(atoms: Atoms, template: Template = None, groups: np.ndarray | None = None) -> Outlook:
    """The outlook of a composition, cached; arguments and errors as in `occupations`."""
    _check_parts(atoms)
    return _kept().outlook(atoms, template, _chosen(groups))


def _chosen(groups: np.ndarray | None) -> np.ndarray:
    return np.ones(N_GROUPS, bool) if groups is None else np.asarray(groups, bool)


def table_size(atoms: Atoms, template: Template, group: int) -> int:
    """Number of entries of a group (index from 0) in the tables of a composition."""
    n_rows = int(tables().n_letters[group]) if template is None else len(template)
    return (n_rows + 1) * math.prod(n + 1 for n in atoms)


def _check_parts(atoms: Atoms) -> None:
    n_parts = math.prod(n + 1 for n in atoms)
    if n_parts > MAX_PARTS:
        raise ValueError(
            f"{sum(atoms)} atoms of {len(atoms)} elements are too many for a composition to be held"
            f" ({n_parts} partial compositions, more than {MAX_PARTS}): ask for a smaller cell"
        )


def _make(atoms: Atoms, template: Template, groups: np.ndarray) -> Occupations:
    parts = Parts(atoms)
    if template is None:
        n_rows = tables().n_letters.astype(np.int32) + 1
        fewest, ways = by_letter(parts, groups)
    else:
        n_rows = np.full(N_GROUPS, len(template) + 1, np.int32)
        fewest, ways = by_site(parts, template, groups)
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
