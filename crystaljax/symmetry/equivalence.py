"""Equivalent descriptions of a crystal: a canonical one, and random ones for training.

The same crystal can be described with another origin, with axes exchanged or mirrored, and with
another point of each orbit as its representative. The elements of the Euclidean normaliser
(ITA, chapter 3.5) map one description to another. Those that exchange axes also change the
lattice, and improper ones give the mirror image, which has the same energy. The group itself never
changes: a crystal of P4_1 does not become one of P4_3.

The choice among different cells of monoclinic and triclinic crystals is not treated here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from crystaljax.crystal import Crystals, wrapped
from crystaljax.symmetry.segments import (
    TOLERANCE,
    first_smallest,
    ragged,
    smallest,
    snap,
    tolerant_order,
)
from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, tables

CHUNK = 1000
"""Crystals handled at a time, which bounds memory."""

CHUNK_SLOTS = 100 * CHUNK
"""Site slots handled at a time."""

MANY_SITES = 1 << 12
"""Descriptions times sites of a crystal, above which `_by_first_sites` rules most of them out."""

MAX_POINTS = 1 << 19
"""Sites handled at a time in `_by_first_sites`, which bounds memory."""

CODE_BASE = 256
"""(letter, species) pairs are compared as letter * CODE_BASE + species."""


class Sites(NamedTuple):
    """The sites of many descriptions in one list, sorted by description."""

    row: np.ndarray
    """int [n]: the description."""
    group: np.ndarray
    """int [n]: its space-group number - 1."""
    letter: np.ndarray
    """int [n]: index of the Wyckoff letter."""
    species: np.ndarray
    """int [n]: atomic number."""
    frac: np.ndarray
    """float64 [n, 3]: representative."""

    def take(self, index: np.ndarray) -> Sites:
        """The sites at these indices of the list."""
        return Sites(*(field[index] for field in self))

    def dense(self, field: np.ndarray, n_rows: int, n_slots: int) -> np.ndarray:
        """A field of the sites as [n_rows, n_slots, ...], zero in empty slots."""
        slot = ragged(np.bincount(self.row, minlength=n_rows))[1]
        filled = np.zeros((n_rows, n_slots, *field.shape[1:]), field.dtype)
        filled[self.row, slot] = field
        return filled


def canonicalize(crystals: Crystals) -> Crystals:
    """The canonical one among the equivalent descriptions of each crystal (numpy, on the host).

    It has the smallest sequence of (letter, species) pairs, then of lattice lengths, then of
    species and of coordinates in site order. Each representative is the smallest point of its
    orbit that has the form of the first operation. Rows that are not crystals (no sites, a
    letter that the group lacks, numbers that are not finite) come back as they are.
    """
    return _by_chunks(crystals, _canonical)


def random_equivalent(rng: np.random.Generator, crystals: Crystals) -> Crystals:
    """A random description of each crystal, equivalent to the one given (numpy, on the host).

    Draws a coset of the Euclidean normaliser, an origin on polar axes and a representative of
    each orbit, all uniformly. Rows that are not crystals come back as they are.
    """

    def describe(crystals: Crystals) -> Crystals:
        group = crystals.space_group - 1
        element = tables().equivalent_start[group] + rng.integers(tables().n_equivalents[group])
        sites = _transform(_sites(crystals), element)
        origin = rng.uniform(size=(len(crystals), 3)) * tables().polar[group]
        sites = sites._replace(frac=sites.frac + origin[sites.row])
        counts = _form_operations()[1][sites.group, sites.letter]
        points = _orbit_points(sites, *ragged(counts))
        chosen = np.cumsum(counts) - counts + rng.integers(counts)
        return _assemble(crystals, _ordered(sites._replace(frac=points[chosen])), element)

    return _by_chunks(crystals, describe)


def standard_form(group: np.ndarray, letter: np.ndarray, frac: np.ndarray) -> np.ndarray:
    """float32 representatives [..., 3] in [0, 1) whose dependent coordinates are exact.

    `group` (number - 1) and `letter` index name existing positions.
    """
    first = tables().op_start[group, letter]
    free = snap(frac).astype(np.float32)
    point = _apply(tables().rotation[first], tables().translation[first], free)
    return wrapped(point)


def _canonical(crystals: Crystals) -> Crystals:
    """`canonicalize` for rows that are crystals."""
    group = crystals.space_group - 1
    crystal, rank = ragged(tables().n_equivalents[group])
    element = tables().equivalent_start[group][crystal] + rank

    # 1. The descriptions of the smallest letters and species, then lengths, without coordinates.
    letter = tables().equivalent_letter[element[:, None], crystals.wyckoff[crystal]]
    code = letter.astype(int) * CODE_BASE + crystals.species[crystal]
    code[letter == 0] = np.iinfo(int).max  # empty slots last
    code.sort(axis=1)
    lengths = crystals.lattice[crystal[:, None], tables().equivalent_axes[element]]
    best = smallest(crystal, [*code.T, *lengths.T])
    crystal, element, first_code = crystal[best], element[best], code[best, 0]

    # 2. On polar axes, each site that comes first in letter and species gives an origin. The
    # normaliser's elements then shift it by what other points of its orbit would give.
    sites = _sites(crystals[crystal])
    letter = tables().equivalent_letter[element[sites.row], sites.letter].astype(int)
    is_first = letter * CODE_BASE + sites.species == first_code[sites.row]
    polar = tables().polar[group[crystal]]
    description, rank = ragged(np.where(polar.any(1), np.bincount(sites.row[is_first]), 1))
    origin = np.flatnonzero(is_first)
    origin = origin[np.searchsorted(sites.row[origin], description) + rank]
    shift = -sites.frac[origin] * polar[description]
    n_sites = np.bincount(sites.row)
    start = np.cumsum(n_sites) - n_sites
    kept = _promising(sites, description, element, shift)
    description, shift = description[kept], shift[kept]
    crystal, element = crystal[description], element[description]

    # 3. Every such description, with the smallest representatives in order.
    row, slot = ragged(n_sites[description])
    sites = _described(sites.take(start[description][row] + slot), row, element, shift)
    species = sites.dense(sites.species, len(crystal), crystals.n_slots)
    frac = sites.dense(sites.frac, len(crystal), crystals.n_slots)
    best = first_smallest(crystal, [*species.T, *frac.reshape(len(crystal), -1).T])
    kept = np.isin(sites.row, best)
    chosen = sites.take(np.flatnonzero(kept))
    chosen = chosen._replace(row=np.searchsorted(best, chosen.row))
    return _assemble(crystals, chosen, element[best])


def _described(sites: Sites, row: np.ndarray, element: np.ndarray, shift: np.ndarray) -> Sites:
    """Sites of descriptions `row` in standard order, after their shifts and normaliser elements."""
    sites = sites._replace(row=row, frac=sites.frac + shift[row])
    return _ordered(_smallest_representatives(_transform(sites, element)))


def _promising(
    sites: Sites, description: np.ndarray, element: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Indices of the descriptions [D] that may be the smallest of their crystal.

    `description` names the rows of `sites`, whose normaliser elements are `element`. With an origin
    on every site, all descriptions together have the square of the number of sites. Where that is
    large, most descriptions are ruled out by their first sites.
    """
    n_sites = np.bincount(sites.row)
    start = np.cumsum(n_sites) - n_sites
    kept = np.ones(len(description), bool)
    for row in np.flatnonzero(np.bincount(description) * n_sites > MANY_SITES):
        mine = np.flatnonzero(description == row)
        own = sites.take(start[row] + np.arange(n_sites[row]))
        kept[mine] = False
        kept[mine[_by_first_sites(own, element[row], shift[mine])]] = True
    return np.flatnonzero(kept)


def _by_first_sites(sites: Sites, element: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Indices of the shifts [D, 3] of one crystal whose first sites are smallest.

    The number of compared sites grows until few shifts are left.
    """
    letter = tables().equivalent_letter[element, sites.letter]
    leading = sites.take(np.flatnonzero(letter == letter.min()))
    leading = leading._replace(row=np.zeros_like(leading.row))
    pairs = np.unique(np.stack([letter, sites.species]), axis=1)
    only_places_differ = len(np.unique(pairs[0])) == pairs.shape[1]
    finder = _FirstSites.of(leading, element)
    alive, n_images = np.arange(len(shift)), 8
    while len(alive) * len(sites.row) > MANY_SITES:
        species, frac = finder.first(shift[alive], n_images)
        columns = [*species.T]
        if only_places_differ or species.shape[1] == len(sites.row):
            columns += [*frac.reshape(len(alive), -1).T]
        alive = alive[smallest(np.zeros(len(alive), int), columns)]
        if n_images >= len(finder.x):
            break
        n_images *= 4
    return alive


class _FirstSites(NamedTuple):
    """Finds the first sites of a crystal in its descriptions from other origins."""

    sites: Sites
    """Sites of the first letter."""
    element: np.ndarray
    """The normaliser element."""
    x: np.ndarray
    """float [m]: the first coordinate of each point of their orbits, sorted, unshifted."""
    owner: np.ndarray
    """int [m]: the site of each point."""

    @staticmethod
    def of(sites: Sites, element: np.ndarray) -> _FirstSites:
        moved = _transform(sites, element[None])
        owner, rank = ragged(_form_operations()[1][moved.group, moved.letter])
        x = _orbit_points(moved, owner, rank)[:, 0]
        order = np.argsort(x, kind="stable")
        return _FirstSites(sites, element, x[order], owner[order])

    def first(self, shift: np.ndarray, n_images: int) -> tuple[np.ndarray, np.ndarray]:
        """Species [D, K] and coordinates [D, K, 3] of the first sites after each shift [D, 3].

        K is the number of sites that the first `n_images` points determine in every description.
        """
        blocks = []
        size = max(1, MAX_POINTS // min(n_images, len(self.x)))
        for begin in range(0, len(shift), size):
            blocks.append(self._block(shift[begin : begin + size], n_images))
        n = min(species.shape[1] for species, _ in blocks)
        return (
            np.concatenate([species[:, :n] for species, _ in blocks]),
            np.concatenate([frac[:, :n] for _, frac in blocks]),
        )

    def _block(self, shift: np.ndarray, n_images: int) -> tuple[np.ndarray, np.ndarray]:
        n, n_points = len(shift), len(self.x)
        step = shift @ tables().equivalent_rotation[self.element, self.sites.letter[0]][0]
        origin = wrapped(-step - 2 * TOLERANCE)
        place = np.searchsorted(self.x, origin)[:, None] + np.arange(min(n_images, n_points))
        distance = self.x[place % n_points] + place // n_points - origin[:, None]
        row = np.repeat(np.arange(n), place.shape[1])
        pairs = np.unique(row * n_points + self.owner[place % n_points].ravel())
        row, site = pairs // n_points, pairs % n_points
        found = _described(self.sites.take(site), row, np.repeat(self.element, n), shift)
        if n_images >= n_points:
            complete = np.bincount(row, minlength=n)
        else:  # up to the last gap: beyond it there may be more of the same first coordinate
            gap = np.diff(distance, axis=1, prepend=0) > 4 * TOLERANCE
            last = place.shape[1] - 1 - np.argmax(gap[:, ::-1], axis=1)
            end = distance[np.arange(n), last] - 4 * TOLERANCE
            end[~gap.any(axis=1)] = 0
            before = found.frac[:, 0] < end[found.row]
            complete = np.bincount(found.row, weights=before, minlength=n).astype(int)
        k = int(complete.min())
        width = int(np.bincount(row).max())
        return (
            found.dense(found.species, n, width)[:, :k],
            found.dense(found.frac, n, width)[:, :k],
        )


def _sites(crystals: Crystals) -> Sites:
    """The occupied sites of a batch."""
    row, slot = np.nonzero(crystals.wyckoff)
    letter, group = crystals.wyckoff[row, slot], crystals.space_group[row] - 1
    frac = standard_form(group, letter, crystals.frac[row, slot]).astype(float)
    return Sites(row, group, letter, crystals.species[row, slot], frac)


def _transform(sites: Sites, element: np.ndarray) -> Sites:
    """Sites after a normaliser element int [n_rows] has acted on each description."""
    chosen = element[sites.row], sites.letter
    rotation, shift = tables().equivalent_rotation[chosen], tables().equivalent_translation[chosen]
    return sites._replace(
        letter=tables().equivalent_letter[chosen].astype(int),
        frac=_apply(rotation, shift, sites.frac),
    )


def _smallest_representatives(sites: Sites) -> Sites:
    """Each orbit's lexicographically smallest point of its first operation's form."""
    site, rank = ragged(_form_operations()[1][sites.group, sites.letter])
    points = _orbit_points(sites, site, rank)
    return sites._replace(frac=points[first_smallest(site, points.T)])


def _orbit_points(sites: Sites, site: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Points [n, 3] of the first operation's form: the `rank`-th of the site's orbit."""
    start, _, operations = _form_operations()
    operation = operations[start[sites.group, sites.letter][site] + rank]
    rotation, shift = tables().rotation[operation], tables().translation[operation]
    return snap(_apply(rotation, shift, sites.frac[site]))


def _ordered(sites: Sites) -> Sites:
    """Sites of each description in the standard order: letter, then x, y, z."""
    return sites.take(tolerant_order([sites.row, sites.letter, *sites.frac.T, sites.species]))


def _assemble(crystals: Crystals, sites: Sites, element: np.ndarray) -> Crystals:
    """Crystals with new sites, and lattices changed as the normaliser elements do."""
    axes = tables().equivalent_axes[element]
    size = len(crystals), crystals.n_slots
    return Crystals(
        crystals.space_group,
        sites.dense(sites.letter, *size).astype(np.int32),
        sites.dense(sites.species, *size).astype(np.int32),
        sites.dense(standard_form(sites.group, sites.letter, sites.frac), *size),
        np.take_along_axis(crystals.lattice, np.concatenate([axes, axes + 3], axis=1), axis=1),
    )


def _by_chunks(crystals: Crystals, describe: Callable[[Crystals], Crystals]) -> Crystals:
    """Apply `describe` to the rows that are crystals, in chunks."""
    batch = crystals.to_numpy()
    in_range = (batch.space_group >= 1) & (batch.space_group <= N_GROUPS)
    n_letters = tables().n_letters[np.where(in_range, batch.space_group, 1) - 1]
    exists = (batch.wyckoff >= 0) & (batch.wyckoff <= n_letters[:, None])
    finite = np.isfinite(batch.frac).all(axis=(1, 2)) & np.isfinite(batch.lattice).all(axis=1)
    rows = np.flatnonzero(in_range & exists.all(axis=1) & (batch.n_sites > 0) & finite)
    result = Crystals(
        batch.space_group.astype(np.int32),
        batch.wyckoff.astype(np.int32),
        batch.species.astype(np.int32),
        batch.frac.astype(np.float32),
        batch.lattice.astype(np.float32),
    )
    for chunk in _chunks(rows, batch.n_sites[rows]):
        n_slots = int(batch.n_sites[chunk].max())
        described = describe(result[chunk].with_slots(n_slots))
        result.wyckoff[chunk, :n_slots] = described.wyckoff
        result.species[chunk, :n_slots] = described.species
        result.frac[chunk, :n_slots] = described.frac
        result.lattice[chunk] = described.lattice
    return result


def _chunks(rows: np.ndarray, n_sites: np.ndarray) -> Iterator[np.ndarray]:
    """Chunks of the rows in order, smaller ones for crystals of very many sites."""
    start = 0
    while start < len(rows):
        end = min(start + CHUNK, len(rows))
        largest = np.maximum.accumulate(n_sites[start:end])
        fitting = np.arange(1, end - start + 1) * largest <= CHUNK_SLOTS
        end = start + max(1, int(fitting.sum()))
        yield rows[start:end]
        start = end


def _apply(rotation: np.ndarray, translation: np.ndarray, frac: np.ndarray) -> np.ndarray:
    """Operations [n, 3, 3], [n, 3] on points [n, 3], in the precision of the points."""
    return (rotation * frac[:, None, :]).sum(-1, dtype=frac.dtype) + translation


@cache
def _form_operations() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Operations that keep a position's form: starts and counts [230, 28], and the list."""
    keeps, shape = tables().keeps_form, (N_GROUPS, N_LETTERS)
    before = np.concatenate([[0], np.cumsum(keeps)])
    start = before[tables().op_start]
    end = before[tables().op_start + tables().multiplicity]
    return start, (end - start).reshape(shape), np.flatnonzero(keeps)
