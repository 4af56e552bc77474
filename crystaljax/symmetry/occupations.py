"""Ways to put the atoms of a composition on the Wyckoff positions of a space group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, tables

IMPOSSIBLE = 200
"""Stands for the fewest sites where no number of them will do; more than a crystal has."""

TABLE_SIZES = (1024, 16384, 65536)
"""Columns of a table: few sizes, so that little is compiled for another composition."""


@dataclass(frozen=True, eq=False)
class Occupations:
    """Fewest sites on which the rest of a composition fits, from every place of a sequence.

    The rest is m_k atoms of each of K elements in the primitive cell; its column is the sum of
    m_k `stride`_k. Exact: a position without free coordinates is occupied once at most, whichever
    element needs it.
    """

    atoms: np.ndarray
    """int32 [K]: the whole composition."""
    stride: np.ndarray
    """int32 [K]"""
    first: np.ndarray
    """int32 [230]: the group's first row. From there on are the rows of sequences that go on at
    letter 1, 2, ... or later, or, with a template, at its site 0, 1, ..."""
    fewest: np.ndarray
    """uint8 [rows, one of `TABLE_SIZES`]; `IMPOSSIBLE` where the rest does not fit."""

    def fits(self, max_sites: int) -> np.ndarray:
        """bool [230]: the whole composition fits the group, on so many sites at most."""
        return self.fewest[self.first, (self.atoms * self.stride).sum()] <= max_sites


@lru_cache(maxsize=8)
def occupations(
    atoms: tuple[int, ...], template: tuple[int, ...] | None = None, slots: int = 0
) -> Occupations:
    """The table of a composition, from the atoms of K elements in the primitive cell.

    With a template, the letter indices of all sites, every site must be occupied; there are rows
    for 0 to `slots` sites, as many for any template. ValueError if the composition has too many
    parts to tell apart.
    """
    n_rests = math.prod(n + 1 for n in atoms)
    if n_rests > TABLE_SIZES[-1]:
        raise ValueError(
            f"a formula of {len(atoms)} elements and {sum(atoms)} atoms has {n_rests} parts that "
            f"could be left to place, more than {TABLE_SIZES[-1]}: ask for a smaller cell"
        )
    shape = tuple(n + 1 for n in atoms)
    if template is None:
        first, fewest = _by_letter(shape)
    else:
        first, fewest = _by_site(shape, template, slots)
    size = next(size for size in TABLE_SIZES if size >= n_rests)
    padded = np.full((len(fewest), size), IMPOSSIBLE, np.uint8)
    padded[:, :n_rests] = fewest.reshape(len(fewest), n_rests)
    stride = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
    return Occupations(
        np.array(atoms, np.int32), np.array(stride, np.int32), first.astype(np.int32), padded
    )


def _by_letter(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """First rows, and the table over letters; from the last position down, one more at a time."""
    n_letters = tables().n_letters.astype(int)
    first = np.cumsum(n_letters + 1) - (n_letters + 1)
    fewest = np.full((int((n_letters + 1).sum()), *shape), IMPOSSIBLE, np.uint8)
    fewest.reshape(len(fewest), -1)[first + n_letters, 0] = 0
    for letter in range(N_LETTERS - 1, 0, -1):
        groups = np.flatnonzero(n_letters >= letter)
        repeats = tables().n_free[groups, letter] > 0
        for kind in {*zip(_atoms_on(groups, letter).tolist(), repeats.tolist(), strict=True)}:
            step, again = kind
            alike = groups[(_atoms_on(groups, letter) == step) & (repeats == again)]
            onward = fewest[first[alike] + letter]
            fewest[first[alike] + letter - 1] = _with_position(onward, step, again)
    return first, fewest


def _by_site(
    shape: tuple[int, ...], template: tuple[int, ...], slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """First rows, and the table over the sites of a template, from the last one up."""
    fewest = np.full((N_GROUPS, slots + 1, *shape), IMPOSSIBLE, np.uint8)
    fewest.reshape(N_GROUPS, slots + 1, -1)[:, len(template), 0] = 0
    groups = np.arange(N_GROUPS)
    for site in range(len(template) - 1, -1, -1):
        on_site = _atoms_on(groups, template[site])
        for step in set(on_site[on_site > 0].tolist()):
            alike = on_site == step
            onward = fewest[alike, site + 1]
            nothing = np.full_like(onward, IMPOSSIBLE)
            fewest[alike, site] = _add_site(nothing, onward, step)
    return groups * (slots + 1), fewest.reshape(-1, *shape)


def _atoms_on(groups: np.ndarray, letter: int) -> np.ndarray:
    """int [G]: atoms of the primitive cell on a position of each of some groups (row numbers)."""
    return tables().multiplicity[groups, letter].astype(int) // tables().n_centering[groups]


def _with_position(onward: np.ndarray, step: int, again: bool) -> np.ndarray:
    """Fewest sites [G, *shape] with one more position, of `step` atoms, beside those onward."""
    if not again:
        return _add_site(onward, onward, step)
    fewest = onward.copy()
    for axis in range(1, fewest.ndim):
        by_element = np.moveaxis(fewest, axis, 1)
        for start in range(step, by_element.shape[1], step):
            target = by_element[:, start : start + step]
            source = by_element[:, start - step : start][:, : target.shape[1]]
            np.minimum(target, source + 1, out=target)
    return fewest


def _add_site(fewest: np.ndarray, onward: np.ndarray, step: int) -> np.ndarray:
    """`fewest` [G, *shape], or one site of `step` atoms of any element more than onward."""
    fewest = fewest.copy()
    for axis in range(1, fewest.ndim):
        target = np.moveaxis(fewest, axis, 1)[:, step:]
        source = np.moveaxis(onward, axis, 1)[:, : target.shape[1]]
        np.minimum(target, source + 1, out=target)
    return fewest
