"""Sites of an asymmetric unit, and the atoms of their orbits in the cell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import gemmi
import numpy as np

from crystaljax.composition import SYMBOLS, atomic_number
from crystaljax.crystal import AtomicCell, wrapped
from crystaljax.symmetry.settings import Operations
from crystaljax.validity import close_pairs, require_few

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

SAME_SITE = 0.01
"""Å: distinct sites closer than this are an error: a site listed twice, or a disordered one. The
atoms of one orbit may be closer."""

ROUNDING = 0.7
"""Rounding error of a coordinate, in units of its last decimal (0.5: rounded; 0.66 for 2/3: 0.67).
"""

MIN_ROUNDING = 1e-5
"""Smallest rounding error of a fractional coordinate, for any number of decimals (float32)."""

SITE_TOLERANCE = 0.05
"""Å: largest distance of a site from a special position if the file states its multiplicity."""

SAME_ATOM = 0.25
"""Å: tolerance for the images of atoms under a symmetry that only the file's names state."""

_EXACT = 1e-9  # fractional: the rounding error of coordinates in double precision

Columns = Mapping[str, Sequence[str]]
"""The values of each tag of a CIF block, as written."""

_TYPE = re.compile(r"([A-Za-z]{1,2})(?![A-Za-z])[0-9+.()-]*")


class Sites(NamedTuple):
    """The S sites of a CIF block."""

    labels: list[str]
    species: np.ndarray
    """int [S]: atomic numbers."""
    frac: np.ndarray
    """float64 [S, 3]."""
    written: list[Sequence[str]]
    """[3, S]: the coordinates as written, for their precision."""
    multiplicity: np.ndarray
    """float64 [S]: as stated, nan where it is not."""
    has_letters: bool = False
    """Whether Wyckoff letters are stated, and multiplicities are therefore those of ITA."""


def read_sites(columns: Columns) -> Sites:
    """The fully occupied sites of a block; ValueError naming a site that is not one whole atom."""
    axes = [columns.get(f"_atom_site_fract_{axis}", ()) for axis in "xyz"]
    n = max(len(axis) for axis in axes)
    if not n:
        raise ValueError("no atoms: the CIF's list of atom sites is empty")
    for axis, values in zip("xyz", axes, strict=True):
        if len(values) != n:
            raise ValueError(
                f"no positions: _atom_site_fract_{axis} has {len(values)} values for {n} sites"
            )
    require_few(n)
    types, labels = _texts(columns, "type_symbol", n), _texts(columns, "label", n)
    if "" in labels:
        labels = [label or kind for label, kind in zip(labels, types, strict=True)]
    frac = np.array([number(text) for axis in axes for text in axis]).reshape(3, n).T
    if not np.isfinite(frac).all():
        label = labels[int(np.argmin(np.isfinite(frac).all(axis=1)))]
        raise ValueError(f"site {label} has no coordinates")
    _check_whole_atoms(columns, labels)
    species = np.array(list(map(_species, types, labels)))
    stated = _values(columns, "site_symmetry_multiplicity", n)
    stated = stated or _values(columns, "symmetry_multiplicity", n)
    multiplicity = np.array([number(text) for text in stated] or [np.nan] * n)
    letters = _values(columns, "wyckoff_symbol", n)
    return Sites(labels, species, frac, axes, multiplicity, bool(set(letters) - {"?", "."}))


def number(text: str) -> float:
    """A number with or without its uncertainty, such as 5.64(2); nan for anything else."""
    return gemmi.cif.as_number(text)


def _values(columns: Columns, name: str, n: int) -> Sequence[str]:
    """The n values of a column as written; empty if there is no such column."""
    values = columns.get(f"_atom_site_{name}", ())
    if values and len(values) != n:
        raise ValueError(f"_atom_site_{name} has {len(values)} values for {n} sites")
    return values


def _texts(columns: Columns, name: str, n: int) -> list[str]:
    """A column of n texts, "" where there is none."""
    values = _values(columns, name, n)
    return [gemmi.cif.as_string(value) for value in values] or [""] * n


def _check_whole_atoms(columns: Columns, labels: list[str]) -> None:
    """ValueError for a site that is partly occupied or stands for several atoms."""
    occupancies = _values(columns, "occupancy", len(labels))
    for text in set(occupancies) - {"1", "?", "."}:
        if not abs(number(text) - 1) <= 1e-3:
            raise ValueError(
                f"partial occupancy: site {labels[occupancies.index(text)]} is occupied {text}"
                " (only ordered structures can be read; order it first, for example with pymatgen)"
            )
    hydrogens = _values(columns, "attached_hydrogens", len(labels))
    for text in set(hydrogens):
        if number(text) > 0:
            label = labels[hydrogens.index(text)]
            raise ValueError(f"site {label} stands for {text} hydrogen atoms without a position")


def _species(kind: str, label: str) -> int:
    """Atomic number by the type symbol or, without one, by the label; ValueError naming the site.

    Programs that write no type may write the label "Feoct" for Fe and "OW" for O.
    """
    element = _element(kind) if kind else _element_of_label(label)
    if element in ("D", "T"):
        raise ValueError(f"site {label} is an isotope of hydrogen ({element}): write H instead")
    if not element:
        raise ValueError(f"unknown element {kind or label!r} at site {label}")
    return atomic_number(element)


@lru_cache(maxsize=1024)
def _element(kind: str) -> str:
    """Symbol in a type symbol such as "Fe", "FE3+" or "O-2"; "" if there is none."""
    match = _TYPE.fullmatch(kind)
    symbol = match[1].capitalize() if match else ""
    if symbol == "Nh" and kind[:2] != "Nh":  # NH4
        return ""
    return symbol if symbol in SYMBOLS or symbol in ("D", "T") else ""


def _element_of_label(label: str) -> str:
    letters = re.split(r"[^A-Za-z]", label, maxsplit=1)[0]
    return _element(letters) or _element(letters[:2]) or _element(letters[:1])


def _rounding(written: tuple[str, ...]) -> list[float]:
    """Rounding errors of the three coordinates of a site, from their decimals.

    Trailing zeros count as decimals up to the number of decimals of another coordinate of the site.
    """
    decimals = [text.partition("(")[0].partition(".")[2] for text in written]
    longest = max(len(text.rstrip("0")) for text in decimals)
    counts = [min(len(d), longest) if d.endswith("0") else len(d) for d in decimals]
    return [max(ROUNDING * 10.0**-n, MIN_ROUNDING) if n > 1 else MIN_ROUNDING for n in counts]


def expand(
    sites: Sites, matrix: np.ndarray, operations: Operations
) -> tuple[np.ndarray, np.ndarray]:
    """All atoms of the cell: float [N, 3] in [0, 1), and int [N] the site of each.

    A site is on a special position if its distance from it is within the precision of its
    coordinates. If the file states another multiplicity, this decides between that position, a
    position within `SITE_TOLERANCE`, and the general one. The site is moved onto its position, and
    images under operations that keep it are merged; no others are. ValueError if two sites share an
    atom, or if no site symmetry gives the stated multiplicity.
    """
    if len(operations.rotation) == 1:
        frac, site = wrapped(sites.frac), np.arange(len(sites.frac))
        counts = np.ones(len(frac), int)
    else:
        rounding = [_rounding(site) for site in zip(*sites.written, strict=True)]
        orbits = _orbits(sites.frac, np.array(rounding), operations)
        counts = np.array([len(orbit) for orbit in orbits])
        for i in np.flatnonzero(np.isfinite(sites.multiplicity) & (sites.multiplicity != counts)):
            for reach in (SITE_TOLERANCE / np.linalg.norm(matrix, axis=1), np.zeros(3)):
                orbit = _orbits(sites.frac[i : i + 1], reach[None], operations)[0]
                if len(orbit) == sites.multiplicity[i]:
                    orbits[i], counts[i] = orbit, len(orbit)
        frac, site = np.concatenate(orbits), np.repeat(np.arange(len(orbits)), counts)
    _check_multiplicities(sites, counts, len(operations.rotation))
    check_apart(frac, sites.species[site], matrix, site, sites.labels)
    return frac, site


def _orbits(frac: np.ndarray, rounding: np.ndarray, operations: Operations) -> list[np.ndarray]:
    """The orbit [m, 3] of each site [S, 3] whose coordinates may be off by `rounding` [S, 3]."""
    rotation, translation = operations.rotation, operations.translation
    turn = np.swapaxes(rotation - np.eye(3), 1, 2)
    offset = frac @ turn + translation[:, None]  # [O, S, 3]
    offset -= np.round(offset)
    may_stay = (np.abs(offset) <= rounding @ np.abs(turn) + _EXACT).all(axis=2, keepdims=True)
    shift = (offset * may_stay).sum(axis=0) / may_stay.sum(axis=0)
    # These operations may have no common fixed point: keep those that fix the mean.
    stays = may_stay & (np.abs(offset + shift @ turn) <= _EXACT).all(axis=2, keepdims=True)
    shift = (offset * stays).sum(axis=0) / stays.sum(axis=0)
    frac = frac + shift * (np.abs(shift) <= rounding + _EXACT).all(axis=1, keepdims=True)
    images = frac @ np.swapaxes(rotation, 1, 2) + translation[:, None]
    # Equal images now agree to rounding error. The bins' odd origin keeps the decimal numbers
    # that files hold away from a bin's edge.
    scale = 10**6
    bins = np.floor(images * scale + 0.318309886).astype(np.int64) % scale
    keys = (bins[..., 0] * scale + bins[..., 1]) * scale + bins[..., 2]
    images = wrapped(images)
    return [images[np.unique(keys[:, i], return_index=True)[1], i] for i in range(len(frac))]


def _check_multiplicities(sites: Sites, counts: np.ndarray, order: int) -> None:
    """ValueError unless the stated multiplicities are those of the orbits.

    SHELXL writes the orders of the site symmetries into that column, without Wyckoff letters.
    `counts` [S]: atoms of each orbit; `order`: the number of operations.
    """
    differs = sites.multiplicity != counts
    if not differs.any():
        return
    stated = np.isfinite(sites.multiplicity)
    differs &= stated
    orders = not (sites.multiplicity * counts != order)[stated].any() and not sites.has_letters
    if differs.any() and not orders:
        i = int(np.argmax(differs))
        raise ValueError(
            f"site {sites.labels[i]} has the multiplicity {counts[i]} by the symmetry operations,"
            f" but {sites.multiplicity[i]:g} is stated"
        )


def check_apart(
    frac: np.ndarray,
    species: np.ndarray,
    matrix: np.ndarray,
    site: np.ndarray,
    labels: Sequence[str],
) -> None:
    """ValueError where atoms of two sites are closer than `SAME_SITE`, or atoms are too many.

    Args:
      frac: float [N, 3]; species: int [N]; matrix: float [3, 3] Å.
      site: int [N], the site of each atom.
      labels: names of the sites.
    """
    require_few(len(frac))
    pairs = close_pairs(frac, matrix, SAME_SITE)
    pairs = pairs[site[pairs[:, 0]] != site[pairs[:, 1]]]
    if not len(pairs):
        return
    other = pairs[species[pairs[:, 0]] != species[pairs[:, 1]]]
    i, j = (other if len(other) else pairs)[0]
    first, second = labels[site[i]], labels[site[j]]
    if len(other):
        raise ValueError(
            "atoms of different elements share a position (a disordered site): those of"
            f" {first} and {second}"
        )
    raise ValueError(f"an atom is listed twice: sites {first} and {second} coincide")


def has_symmetry(crystal: AtomicCell, operations: Operations) -> bool:
    """Whether each image of an atom is within `SAME_ATOM` of an atom of its element."""
    tree, spacing = _tree(crystal.frac, crystal.matrix)
    for rotation, translation in zip(operations.rotation, operations.translation, strict=True):
        images = wrapped(crystal.frac @ rotation.T + translation)
        distance, nearest = tree.query(images * spacing, p=np.inf)
        if distance.max() > SAME_ATOM or (crystal.species[nearest] != crystal.species).any():
            return False
    return True


def _tree(frac: np.ndarray, matrix: np.ndarray) -> tuple[cKDTree, np.ndarray]:
    """A search tree of the atoms of a periodic cell, and the scale [3] of its coordinates.

    Atoms within a distance of one another differ by at most distance / spacing of lattice planes
    in each fractional coordinate; so scaled by the spacings (Å), by at most the distance.
    """
    from scipy.spatial import cKDTree  # slow to import, and most cells are small

    spacing = 1 / np.linalg.norm(np.linalg.inv(matrix), axis=0)
    return cKDTree(wrapped(frac) * spacing, boxsize=spacing), spacing
