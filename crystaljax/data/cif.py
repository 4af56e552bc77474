"""CIF text -> atoms in a cell, in well under a millisecond for a structure of MP-20's size."""

from __future__ import annotations

import re
from functools import lru_cache

import gemmi
import numpy as np

from crystaljax.composition import atomic_number
from crystaljax.crystal import AtomicCell

SITE_TOLERANCE = 0.05
"""Å: images of a site this close together are one atom on a special position. It covers
coordinates rounded to three decimals (0.333 for 1/3) and is far below any bond length."""

MIN_VOLUME = 0.1
"""Å³: the smallest unit cell taken for a real one."""

MAX_ATOMS = 5000
"""Larger cells are turned down: no part of crystaljax is made for them."""

_LETTERS = re.compile(r"[A-Za-z]+")


def parse(text: str) -> list[tuple[str, AtomicCell | ValueError]]:
    """Every crystal of a CIF: (block name, cell), or the ValueError that says what is wrong.

    Blocks without atom sites (publication data and the like) are passed over. ValueError if
    the text is no CIF or no block has atom sites.
    """
    try:
        blocks = [block for block in gemmi.cif.read_string(text) if _has_sites(block)]
    except ValueError as error:
        raise ValueError(f"not a CIF: {error}") from None
    if not blocks:
        raise ValueError("no atoms: the CIF has no loop with _atom_site_fract_x")
    crystals: list[tuple[str, AtomicCell | ValueError]] = []
    for block in blocks:
        try:
            crystals.append((block.name, _cell(block)))
        except ValueError as error:
            crystals.append((block.name, error))
    return crystals


def parse_one(text: str) -> AtomicCell:
    """The first crystal of a CIF; ValueError that says what is wrong with it."""
    crystal = parse(text)[0][1]
    if isinstance(crystal, ValueError):
        raise crystal
    return crystal


def _has_sites(block: gemmi.cif.Block) -> bool:
    return bool(block.find_loop("_atom_site_fract_x"))


def _cell(block: gemmi.cif.Block) -> AtomicCell:
    structure = gemmi.make_small_structure_from_block(block)
    matrix = np.array(structure.cell.orth.mat.tolist()).T
    if block.find_value("_cell_length_a") is None:
        raise ValueError("no unit cell: the CIF lacks _cell_length_a and its companions")
    parameters = np.array(structure.cell.parameters)
    sensible = np.isfinite(matrix).all() and (parameters > 0).all() and parameters[3:].max() < 180
    if not sensible or np.linalg.det(matrix) < MIN_VOLUME:
        raise ValueError(f"the cell parameters {parameters.tolist()} make no unit cell")
    sites = list(structure.sites)
    if not sites:
        raise ValueError("no atoms: the CIF's list of atom sites is empty")
    species = np.array([_species(site) for site in sites])
    frac = np.array([site.fract.tolist() for site in sites])
    if not np.isfinite(frac).all():
        site = sites[int(np.argmin(np.isfinite(frac).all(axis=1)))]
        raise ValueError(f"site {site.label} has no coordinates")
    rotation, translation = _operations(structure)
    if len(rotation) > 1:
        frac, species = expand(frac, species, matrix, rotation, translation)
    frac, species = merge(frac, species, matrix)
    return AtomicCell(matrix, frac, species)


def _species(site: gemmi.SmallStructure.Site) -> int:
    """Atomic number of a fully occupied site; ValueError for any other site."""
    if abs(site.occ - 1) > 1e-3 or np.isnan(site.occ):
        raise ValueError(
            f"partial occupancy: site {site.label} is occupied {site.occ:g} (only ordered"
            " structures can be read; order it first, for example with pymatgen)"
        )
    match = _LETTERS.match(site.type_symbol or site.label)
    name = match.group() if match else ""
    if name in ("D", "T"):
        raise ValueError(f"site {site.label} is an isotope of hydrogen ({name}): write H instead")
    symbol = name.capitalize()
    if site.type_symbol == site.label:  # gemmi falls back on the label, which may say more: "Feoct"
        symbol = site.element.name if site.element.atomic_number else symbol
    try:
        return atomic_number(symbol)
    except ValueError:
        wrong = site.type_symbol or site.label
        raise ValueError(f"unknown element {wrong!r} at site {site.label}") from None


def _operations(structure: gemmi.SmallStructure) -> tuple[np.ndarray, np.ndarray]:
    """The CIF's symmetry operations or, where it lists none, those its space group stands for.

    A symbol that leaves the setting open is read in origin choice 2 and hexagonal axes, or
    rhombohedral axes where the cell angles say so.
    """
    if structure.symops:
        return _parse_operations(tuple(structure.symops))
    cell = structure.cell
    name, number = structure.spacegroup_hm, structure.spacegroup_number
    group = None
    if name:
        group = gemmi.find_spacegroup_by_name(name, cell.alpha, cell.gamma, prefer="2")
    if group is None and 1 <= number <= 230:
        group = gemmi.get_spacegroup_reference_setting(number)
    if group is None and name:
        raise ValueError(f"unknown space group {name!r}, and the CIF lists no symmetry operations")
    if group is None:
        return np.eye(3)[None], np.zeros((1, 3))
    return _parse_operations(tuple(op.triplet() for op in group.operations()))


@lru_cache(maxsize=1024)
def _parse_operations(triplets: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rotations [n, 3, 3] and translations [n, 3] of operations written like 'x+1/2, -y, z'."""
    try:
        operations = np.array([gemmi.Op(triplet).float_seitz() for triplet in triplets])
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"a symmetry operation of the CIF cannot be read: {error}") from None
    return operations[:, :3, :3], operations[:, :3, 3]


def expand(
    frac: np.ndarray,
    species: np.ndarray,
    matrix: np.ndarray,
    rotation: np.ndarray,
    translation: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """All atoms of the cell from the asymmetric unit; images of a special position are one atom.

    A site whose images fall together within `SITE_TOLERANCE` is first moved to their mean, which
    lies exactly on the special position, so that rounded coordinates lose nothing.

    Args:
      frac: float [N, 3]; species: int [N]; matrix: float [3, 3] Å.
      rotation: float [n, 3, 3]; translation: float [n, 3]: the operations, the identity anywhere.

    Returns:
      frac float [M, 3] in [0, 1) and species int [M].
    """
    images = np.einsum("oij,sj->soi", rotation, frac) + translation
    offset = images - frac[:, None]
    offset -= np.round(offset)
    stays = (np.square(offset @ matrix).sum(axis=-1) < SITE_TOLERANCE**2)[..., None]
    frac = frac + (offset * stays).sum(axis=1) / stays.sum(axis=1).clip(1)
    images = np.einsum("oij,sj->soi", rotation, frac) + translation
    # Equal images now agree to rounding error. The bins' odd origin keeps the decimal numbers
    # that files hold away from a bin's edge.
    scale = 10**6
    bins = np.floor(images * scale + 0.318309886).astype(np.int64) % scale
    keys = (bins[..., 0] * scale + bins[..., 1]) * scale + bins[..., 2]
    atoms = [
        orbit[np.unique(key, return_index=True)[1]] for orbit, key in zip(images, keys, strict=True)
    ]
    counts = [len(orbit) for orbit in atoms]
    return np.concatenate(atoms) % 1.0, np.repeat(species, counts)


def merge(
    frac: np.ndarray, species: np.ndarray, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Drop atoms listed twice (within `SITE_TOLERANCE`, modulo the lattice).

    ValueError where atoms of different elements share a position (that is a disordered site), or
    where there are more than `MAX_ATOMS`.
    """
    if len(frac) > MAX_ATOMS:
        raise ValueError(f"{len(frac)} atoms in the cell, more than the {MAX_ATOMS} that are read")
    offset = frac[:, None] - frac
    offset -= np.round(offset)
    close = np.square(offset @ matrix).sum(axis=-1) < SITE_TOLERANCE**2
    if close.sum() == len(frac):
        return frac, species
    if (close & (species[:, None] != species)).any():
        raise ValueError("atoms of different elements share a position (a disordered site)")
    first = np.argmax(close, axis=1) == np.arange(len(frac))
    return frac[first], species[first]
