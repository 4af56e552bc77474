"""Crystals to files that other programs read: CIF archives, CSV, extxyz, pymatgen JSON."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import gemmi
import numpy as np

from crystaljax.composition import formulas, symbol
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.data.files import replacing
from crystaljax.symmetry.orbits import expand, n_atoms, project
from crystaljax.symmetry.tables import letter, tables

Properties = Mapping[str, Any]
"""Column name -> array of length B, of numbers or text."""

_CHUNK = 512


def write(crystals: Crystals, path: str | Path, properties: Properties | None = None) -> Path:
    """Write crystals in the format of the file's extension; the file appears whole or not at all.

    .zip: one CIF a crystal with its symmetry operations and Wyckoff letters, and properties.csv.
    .csv, .csv.gz: the columns of CDVAE (material_id, formula, spacegroup.number, the properties,
    cif). .extxyz: conventional cells. .json, .json.gz: a list of pymatgen Structure dicts.
    A property named material_id gives the ids; otherwise they count from 0.

    Errors: ValueError for an unknown extension, a row that is no crystal, or a property of
    another length; OSError (PermissionError) when the folder cannot be written.
    """
    path = Path(path)
    writer = _writer(path)
    crystals = crystals.to_numpy()
    columns = {key: np.asarray(values) for key, values in (properties or {}).items()}
    for key, values in columns.items():
        if values.shape != (len(crystals),):
            raise ValueError(f"property {key!r} has shape {values.shape}, not ({len(crystals)},)")
    bad = np.flatnonzero((crystals.space_group < 1) | (crystals.n_sites < 1))
    if bad.size:
        raise ValueError(f"row {bad[0]} is no crystal ({bad.size} such rows): select valid rows")
    ids = [str(id) for id in columns.pop("material_id", np.arange(len(crystals)))]
    with replacing(path) as temporary:
        writer(temporary, crystals, ids, columns)
    return path


def check_format(path: str | Path) -> None:
    """ValueError if `write` knows no format for the extension: ask before hours of work."""
    _writer(Path(path))


def to_cif(crystals: Crystals, names: list[str] | None = None) -> Iterator[str]:
    """CIF text of each crystal: asymmetric unit, Wyckoff letters, symmetry operations."""
    crystals = crystals.to_numpy()
    multiplicity = tables().multiplicity
    # The full orbit is generated from the site, which must therefore lie on its position.
    frac = np.asarray(project(crystals.space_group[:, None], crystals.wyckoff, crystals.frac))
    for i, formula in enumerate(names or formulas(crystals)):
        group = int(crystals.space_group[i])
        a, b, c, alpha, beta, gamma = crystals.lattice[i].tolist()
        lines = [
            f"data_{formula}",
            f"_chemical_formula_sum '{formula}'",
            f"_cell_length_a {a:.6f}",
            f"_cell_length_b {b:.6f}",
            f"_cell_length_c {c:.6f}",
            f"_cell_angle_alpha {alpha:.6f}",
            f"_cell_angle_beta {beta:.6f}",
            f"_cell_angle_gamma {gamma:.6f}",
            _symmetry_block(group),
        ]
        for s in range(int(crystals.n_sites[i])):
            element = symbol(int(crystals.species[i, s]))
            wyckoff = int(crystals.wyckoff[i, s])
            x, y, z = frac[i, s].tolist()
            place = f"{multiplicity[group - 1, wyckoff]} {letter(wyckoff)} {x:.8f} {y:.8f} {z:.8f}"
            lines.append(f"{element}{s} {element} {place} 1")
        yield "\n".join(lines) + "\n"


@lru_cache(maxsize=230)
def _symmetry_block(group: int) -> str:
    """The space group, its operations in the standard setting, and the head of the site loop."""
    table = tables()
    general = int(table.n_letters[group - 1])
    start = int(table.op_start[group - 1, general])
    rows = slice(start, start + int(table.multiplicity[group - 1, general]))
    triplets = [_triplet(*row) for row in zip(table.rotation[rows], table.translation[rows])]  # noqa: B905
    columns = (
        *("label", "type_symbol", "symmetry_multiplicity", "Wyckoff_symbol"),
        *("fract_x", "fract_y", "fract_z", "occupancy"),
    )
    name = gemmi.get_spacegroup_reference_setting(group).xhm()
    return "\n".join(
        [
            f"_symmetry_space_group_name_H-M '{name}'",
            f"_symmetry_Int_Tables_number {group}",
            "loop_",
            "_symmetry_equiv_pos_as_xyz",
            *(f"'{triplet}'" for triplet in triplets),
            "loop_",
            *(f"_atom_site_{column}" for column in columns),
        ]
    )


def _triplet(rotation: np.ndarray, translation: np.ndarray) -> str:
    operation = gemmi.Op()
    operation.rot = (rotation.astype(int) * operation.DEN).tolist()
    operation.tran = np.rint(translation * operation.DEN).astype(int).tolist()
    return operation.triplet()


def to_cells(crystals: Crystals) -> Iterator[AtomicCell]:
    """The conventional cell of each crystal, all its atoms listed."""
    for start in range(0, len(crystals), _CHUNK):
        chunk = crystals[start : start + _CHUNK]
        counts = np.asarray(n_atoms(chunk))
        size = 1 << int(counts.max() - 1).bit_length()  # powers of two: few shapes to compile
        cells = expand(chunk, max_atoms=size).to_numpy()
        for frac, species, matrix, count in zip(
            cells.frac, cells.species, cells.matrix, counts, strict=True
        ):
            yield AtomicCell(matrix, frac[:count], species[:count])


def _write_zip(path: Path, crystals: Crystals, ids: list[str], columns: Properties) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for id, text in zip(ids, to_cif(crystals), strict=True):
            archive.writestr(f"{id}.cif", text)
        if columns:
            file = io.StringIO(newline="")
            _write_rows(file, {"material_id": ids, **columns})
            archive.writestr("properties.csv", file.getvalue())


def _write_csv(path: Path, crystals: Crystals, ids: list[str], columns: Properties) -> None:
    table = {
        "material_id": ids,
        "formula": formulas(crystals),
        "spacegroup.number": crystals.space_group,
        **columns,
        "cif": to_cif(crystals),
    }
    with _open_text(path) as file:
        _write_rows(file, table)


def _write_rows(file: TextIO, table: Mapping[str, Any]) -> None:
    writer = csv.writer(file)
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))


def _write_extxyz(path: Path, crystals: Crystals, ids: list[str], columns: Properties) -> None:
    with _open_text(path) as file:
        for i, cell in enumerate(to_cells(crystals)):
            info = {"material_id": ids[i], "space_group": int(crystals.space_group[i])}
            info |= {key: values[i].item() for key, values in columns.items()}
            lattice = " ".join(f"{x:.6f}" for x in cell.matrix.ravel())
            fields = " ".join(f"{key}={json.dumps(value)}" for key, value in info.items())
            file.write(f'{len(cell.species)}\nLattice="{lattice}" ')
            file.write(f'Properties=species:S:1:pos:R:3 {fields} pbc="T T T"\n')
            for z, position in zip(cell.species, cell.frac @ cell.matrix, strict=True):
                file.write(f"{symbol(int(z))} " + " ".join(f"{x:.6f}" for x in position) + "\n")


def _write_json(path: Path, crystals: Crystals, ids: list[str], columns: Properties) -> None:
    with _open_text(path) as file:
        for i, cell in enumerate(to_cells(crystals)):
            sites = [
                {"species": [{"element": symbol(int(z)), "occu": 1}], "abc": frac, "properties": {}}
                for z, frac in zip(cell.species, cell.frac.tolist(), strict=True)
            ]
            structure = {
                "@module": "pymatgen.core.structure",
                "@class": "Structure",
                "charge": 0,
                "lattice": {"matrix": cell.matrix.tolist(), "pbc": [True, True, True]},
                "sites": sites,
                "properties": {"material_id": ids[i]}
                | {key: values[i].item() for key, values in columns.items()},
            }
            file.write(("[" if i == 0 else ",\n") + json.dumps(structure))
        file.write("]\n" if len(crystals) else "[]\n")


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "wt", encoding="utf-8", newline="")
    return path.open("w", encoding="utf-8", newline="")


_WRITERS: dict[str, Callable[[Path, Crystals, list[str], Properties], None]] = {
    ".zip": _write_zip,
    ".csv": _write_csv,
    ".csv.gz": _write_csv,
    ".extxyz": _write_extxyz,
    ".json": _write_json,
    ".json.gz": _write_json,
}


def _writer(path: Path) -> Callable[[Path, Crystals, list[str], Properties], None]:
    """What writes the format of the file's extension; ValueError if nothing does."""
    name = path.name.lower()
    writer = next((writer for end, writer in _WRITERS.items() if name.endswith(end)), None)
    if writer is None:
        raise ValueError(
            f"cannot write {path}: give it one of the extensions {', '.join(_WRITERS)}"
        )
    return writer
