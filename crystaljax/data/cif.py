"""Parser of CIF texts; it takes less than a millisecond for a structure of MP-20's size."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import cast

import gemmi
import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.data.cif_facts import check_composition, check_volume
from crystaljax.data.cif_sites import Columns, Sites, expand, has_symmetry, number, read_sites
from crystaljax.symmetry.settings import (
    MAX_MISFIT,
    Names,
    Operations,
    choose,
    from_hall,
    misfit,
    number_of,
    parse_operations,
    settings_of,
)
from crystaljax.validity import MIN_VOLUME

_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_OPERATIONS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_SYMBOLS = (
    "_space_group_name_h-m_alt",
    "_space_group_name_h-m_full",
    "_space_group_name_h-m",
    "_symmetry_space_group_name_h-m",
)
_NUMBER = ("_space_group_it_number", "_symmetry_int_tables_number")
_CODE = ("_space_group_it_coordinate_system_code",)
_NOTHING = {"", "?", "."}
_MAGNETIC = ("_space_group_symop_magn", "_space_group_magn")


def parse(text: str) -> list[tuple[str, AtomicCell | ValueError]]:
    """Every crystal of a CIF: (block name, cell), or a ValueError with the reason in place of it.

    Blocks without atom sites (publication data and the like) are ignored. Repeated block names get
    a number. ValueError if the text is no CIF or no block has atom sites; any other error affects
    only its block.
    """
    crystals: list[tuple[str, AtomicCell | ValueError]] = []
    seen: Counter[str] = Counter()
    for name, block in _blocks(text):
        try:
            if isinstance(block, ValueError):
                raise block
            if not _has_sites(block):
                continue
            crystal: AtomicCell | ValueError = _crystal(_columns(block))
        except ValueError as error:
            crystal = error
        seen[name] += 1
        crystals.append((f"{name}_{seen[name]}" if seen[name] > 1 else name, crystal))
    if not crystals:
        raise ValueError("no atoms: the CIF has no loop with _atom_site_fract_x")
    return crystals


def parse_one(text: str) -> AtomicCell:
    """The first crystal of a CIF; ValueError with the reason if it cannot be read."""
    crystal = parse(text)[0][1]
    if isinstance(crystal, ValueError):
        raise crystal
    return crystal


def _blocks(text: str) -> list[tuple[str, gemmi.cif.Block | ValueError]]:
    """The data blocks; if the text as a whole is no CIF, each block is parsed by itself."""
    try:
        return [(block.name, block) for block in _read(text)]
    except ValueError:
        parts = re.split(r"^(?=data_\S)", text, flags=re.IGNORECASE | re.MULTILINE)[1:]
        if len(parts) < 2:
            raise
    blocks: list[tuple[str, gemmi.cif.Block | ValueError]] = []
    for part in parts:
        try:
            blocks += [(block.name, block) for block in _read(part)]
        except ValueError as error:
            blocks.append((part.split(maxsplit=1)[0][len("data_") :], error))
    return blocks


def _read(text: str) -> gemmi.cif.Document:
    try:
        # Level 0: a duplicate in one block must not make the others unreadable.
        return gemmi.cif.read_string(text.removeprefix("\ufeff").encode("utf-8", "replace"), 0)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"not a CIF: {error}") from None


def _has_sites(block: gemmi.cif.Block) -> bool:
    tags = (f"_atom_site{dot}fract_{axis}" for dot in "_." for axis in "xyz")
    return any(block.find_values(tag) for tag in tags)


def _columns(block: gemmi.cif.Block) -> Columns:
    """The values of each tag, as written; tags in small letters, with _ for the dot of DDLm."""
    columns: dict[str, list[str]] = {}

    def add(tag: str, values: list[str]) -> None:
        name = tag.lower().replace(".", "_")
        if name in columns and _says_nothing(values):  # AMCSD's second _chemical_formula_sum
            return
        if name in columns and not _says_nothing(columns[name]):
            raise ValueError(f"the tag {tag} is there twice")
        columns[name] = values

    for item in block:
        pair, loop = item.pair, item.loop
        if pair is not None:
            tag, value = cast(tuple[str, str], pair)
            if not value:
                raise ValueError(f"the tag {tag} has no value")
            add(tag, [value])
        elif loop is not None:
            values, tags = loop.values, loop.tags
            for i, tag in enumerate(tags):
                add(tag, values[i :: len(tags)])
    return columns


def _says_nothing(values: Sequence[str]) -> bool:
    return not {gemmi.cif.as_string(value).strip() for value in values} - _NOTHING


def _said(columns: Columns, tags: tuple[str, ...]) -> list[str]:
    """The distinct values of some tags, without unknown ones ("?", ".")."""
    texts: dict[str, None] = {}
    for tag in tags:
        for value in columns.get(tag, ()):
            text = " ".join(gemmi.cif.as_string(value).split())
            if text not in _NOTHING:
                texts[text] = None
    return list(texts)


def _one(columns: Columns, tags: tuple[str, ...]) -> str | None:
    """The value of equivalent tags, None if there is none; ValueError if they have several."""
    texts = _said(columns, tags)
    if len(texts) > 1:
        raise ValueError(f"{tags[0]} and its equivalents have several values: {', '.join(texts)}")
    return texts[0] if texts else None


def _crystal(columns: Columns) -> AtomicCell:
    """The atoms of a block; ValueError if they or other data of the block are not a crystal's."""
    matrix = _matrix(columns)
    sites = read_sites(columns)
    listed = [tuple(texts) for tag in _OPERATIONS if (texts := _said(columns, (tag,)))]
    if listed:
        operations = _listed(listed, matrix)
        crystal = _atoms(columns, sites, matrix, operations)
        _check_names(columns, crystal, operations)
        return crystal
    if any(tag.startswith(_MAGNETIC) for tag in columns):
        raise ValueError("the CIF has magnetic symmetry alone: give the operations without time")
    names = _names(columns)
    if names == Names():
        return _atoms(columns, sites, matrix, parse_operations(()))
    settings = choose(names, matrix)
    if not settings:
        raise ValueError(f"the cell does not have the symmetry of the space group {names}")
    crystals, faults = [], []
    for setting in settings:
        try:
            crystals.append(_atoms(columns, sites, matrix, from_hall(setting.hall)))
        except ValueError as error:
            faults.append(error)
    if not crystals:
        raise faults[0]
    if len(crystals) > 1:
        raise ValueError(
            f"the space group {names} is open between {len(crystals)} settings (Hall symbols"
            f" {', '.join(setting.hall for setting in settings)}) and nothing that the CIF states"
            " settles it: list the symmetry operations, or give the Hall symbol"
        )
    return crystals[0]


def _matrix(columns: Columns) -> np.ndarray:
    """Lattice vectors float64 [3, 3] Å, one per row: a along x, b in the plane of x and y."""
    values = []
    for name in _CELL:
        texts = columns.get(f"_cell_{name}", ())
        if len(texts) != 1:
            has = f"has {len(texts)} values of" if texts else "lacks"
            raise ValueError(f"no unit cell: the CIF {has} _cell_{name}")
        values.append(number(texts[0]))
        if not np.isfinite(values[-1]):
            raise ValueError(f"no unit cell: _cell_{name} is {texts[0]}, no number")
    sensible = min(values) > 0 and max(values[3:]) < 180 and max(values[3:]) > np.pi
    try:
        cell = gemmi.UnitCell(*values) if sensible else None
    except (ValueError, RuntimeError):  # angles that no three vectors have
        cell = None
    if cell is None or not MIN_VOLUME <= cell.volume < np.inf:
        raise ValueError(f"the cell parameters {values} make no unit cell")
    stated = _one(columns, ("_cell_volume",))
    if stated is not None:
        check_volume(cell.volume, stated)
    return np.array(cell.orth.mat.tolist()).T


def _listed(lists: list[tuple[str, ...]], matrix: np.ndarray) -> Operations:
    """The listed operations; ValueError unless they are a group that keeps the lattice."""
    operations = parse_operations(lists[0])
    if any(parse_operations(others).key != operations.key for others in lists[1:]):
        raise ValueError("the CIF's two lists of symmetry operations differ")
    if (change := misfit(operations, matrix)) > MAX_MISFIT:
        raise ValueError(
            "the symmetry operations are no symmetry of the cell: they change its metric by"
            f" {change:.1%}"
        )
    return operations


def _names(columns: Columns) -> Names:
    """The names of the space group; ValueError for a number that does not exist."""
    text = _one(columns, _NUMBER)
    if text is not None and not (text.isdigit() and int(text) <= 230):
        raise ValueError(f"there is no space group of number {text}")
    hall, code = _one(columns, _HALL), _one(columns, _CODE)
    return Names(hall, tuple(_said(columns, _SYMBOLS)), int(text or 0) or None, code)


def _check_names(columns: Columns, crystal: AtomicCell, operations: Operations) -> None:
    """ValueError if the named group gives more atoms than the listed operations.

    The operations are trusted. It is no error if the named group is of the same type in another
    setting, is not that of this cell (a primitive one), or is a symmetry of the atoms (all of them
    listed, in P 1). Otherwise operations are missing. Unreadable names are ignored.
    """
    try:
        names = _names(columns)
        settings = settings_of(names)
    except ValueError:
        return
    if names == Names() or operations.key in {setting.key for setting in settings}:
        return
    number = number_of(operations)
    if number in {setting.number for setting in settings}:
        return
    groups = [from_hall(setting.hall) for setting in choose(names, crystal.matrix)]
    if groups and not any(has_symmetry(crystal, group) for group in groups):
        raise ValueError(
            f"the symmetry operations are those of space group {number}, but the CIF says {names},"
            " whose symmetry the atoms do not have: operations or atoms are missing"
        )


def _atoms(
    columns: Columns, sites: Sites, matrix: np.ndarray, operations: Operations
) -> AtomicCell:
    """The atoms under some operations; ValueError if the CIF states other contents of the cell."""
    frac, site = expand(sites, matrix, operations)
    species = sites.species[site]
    z = _one(columns, ("_cell_formula_units_z",))
    check_composition(
        species,
        _one(columns, ("_chemical_formula_sum",)) or "",
        float("nan") if z is None else number(z),
    )
    return AtomicCell(matrix, frac, species)
