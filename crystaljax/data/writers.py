"""Writers of crystals: CIF archives, CSV, extxyz, pymatgen JSON."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import gemmi
import numpy as np

from crystaljax.composition import formulas, symbol
from crystaljax.crystal import Crystals
from crystaljax.data.files import file_names, make_folder, replacing
from crystaljax.data.structure_files import TABLE
from crystaljax.data.text_files import clean, unique
from crystaljax.structures import to_cells
from crystaljax.symmetry.orbits import project
from crystaljax.symmetry.tables import letter, tables

Properties = Mapping[str, Any]
"""Column name -> array of length B, of numbers or text."""


def write(crystals: Crystals, path: str | Path, properties: Properties | None = None) -> Path:
    """Write crystals in the format of the file's extension; the file is written atomically.

    .zip: one CIF per crystal with its symmetry operations and Wyckoff letters, and properties.csv
    with the id and the properties of each file. .csv, .csv.gz: the columns of CDVAE (material_id,
    formula, spacegroup.number, the properties, cif). .extxyz: conventional cells. .json,
    .json.gz: a list of pymatgen Structure dicts. A property named material_id gives the ids;
    otherwise they count from 0. A property with the name of one of these columns is renamed to
    source_..., or left out if it has the same values.

    Errors: ValueError for an unknown extension, a row that is no crystal, or a property of
    another length; OSError (PermissionError) when the file cannot be written.
    """
    path = Path(path)
    check_target(path)
    crystals = crystals.to_numpy()
    columns = {clean(str(key)): _column(values) for key, values in (properties or {}).items()}
    for key, values in columns.items():
        if values.shape != (len(crystals),):
            raise ValueError(f"property {key!r} has shape {values.shape}, not ({len(crystals)},)")
    bad = np.flatnonzero((crystals.space_group < 1) | (crystals.n_sites < 1))
    if bad.size:
        raise ValueError(f"row {bad[0]} is no crystal ({bad.size} such rows): select valid rows")
    ids = [str(id) for id in columns.pop("material_id", np.arange(len(crystals)))]
    with replacing(path) as temporary:
        _writer(path)(temporary, crystals, ids, columns)
    return path


def check_target(path: str | Path) -> None:
    """Raise the error that `write` would raise; for a check before long computations.

    ValueError for an unknown extension, IsADirectoryError for a folder, OSError where the folder
    of the file cannot be made or written in.
    """
    path = Path(path)
    _writer(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file to write")
    make_folder(path.parent)


def _column(values: Any) -> np.ndarray:
    """An array of numbers or text; anything else as text."""
    column = np.asarray(values)
    if column.dtype.kind in "biuf" or column.ndim != 1:
        return column
    return np.array([clean(str(value)) for value in column], str)


def to_cif(crystals: Crystals, names: list[str] | None = None) -> Iterator[str]:
    """CIF text of each crystal: asymmetric unit, Wyckoff letters, symmetry operations."""
    crystals = crystals.to_numpy()
    multiplicity = tables().multiplicity
    # Readers generate the orbit from the site, which must therefore lie exactly on its position.
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


def _beside(
    own: Mapping[str, Any], columns: Properties, taken: Iterable[str] = ()
) -> dict[str, Any]:
    """The writer's own columns, then those of the source.

    A source column with the name of one of our columns is left out if its values are the same, and
    else renamed. One with a name in `taken` is renamed.
    """
    table = dict(own)
    for name, values in columns.items():
        if name in own and np.array_equal(np.asarray(own[name]), values):
            continue
        new = name
        while new in table or new in taken or (new != name and new in columns):
            new = f"source_{new}"
        table[new] = values
    return table


def _write_zip(path: Path, crystals: Crystals, ids: list[str], columns: Properties) -> None:
    files = [f"{name}.cif" for name in file_names(ids)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, text in zip(files, to_cif(crystals), strict=True):
            archive.writestr(file, text)
        table = io.StringIO(newline="")
        _write_rows(table, _beside({"file": files, "material_id": ids}, columns))
        archive.writestr(TABLE, table.getvalue())


def _write_csv(path: Path, crystals: Crystals, ids: list[str], columns: Properties) -> None:
    own = {
        "material_id": ids,
        "formula": formulas(crystals),
        "spacegroup.number": crystals.space_group,
    }
    with _open_text(path) as file:
        _write_rows(file, {**_beside(own, columns, {"cif"}), "cif": to_cif(crystals)})


def _write_rows(file: TextIO, table: Mapping[str, Any]) -> None:
    writer = csv.writer(file)
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))


def _write_extxyz(path: Path, crystals: Crystals, ids: list[str], columns: Properties) -> None:
    own = {"material_id": np.array(ids, str), "space_group": crystals.space_group}
    lines = unique([" ".join(name.splitlines()).strip() or "unnamed" for name in columns])
    columns = dict(zip(lines, columns.values(), strict=True))
    table = _beside(own, columns, _EXTXYZ_TAKEN)
    names = [_extxyz_text(name) for name in table]
    with _open_text(path) as file:
        for i, cell in enumerate(to_cells(crystals)):
            lattice = " ".join(f"{x:.6f}" for x in cell.matrix.ravel())
            values = (_extxyz_value(column[i].item()) for column in table.values())
            fields = " ".join(map("=".join, zip(names, values, strict=True)))
            file.write(f'{len(cell.species)}\nLattice="{lattice}" ')
            file.write(f'Properties=species:S:1:pos:R:3 {fields} pbc="T T T"\n')
            for z, position in zip(cell.species, cell.frac @ cell.matrix, strict=True):
                file.write(f"{symbol(int(z))} " + " ".join(f"{x:.6f}" for x in position) + "\n")


_EXTXYZ_TAKEN = {"Lattice", "Properties", "pbc", "virial", "stress", "uid"}
"""Keys that have a meaning in the format or in ASE, and so cannot be names of columns."""


def _extxyz_value(value: Any) -> str:
    """A value as ASE reads it back: text that looks like another type is written as JSON."""
    if not isinstance(value, str):
        return json.dumps(value)
    plain = re.fullmatch(r"[A-Za-z][\w.:/+-]*( [A-Za-z][\w.:/+-]*)*", value, re.ASCII)
    if plain and not _MEANS_MORE.search(value):
        return _extxyz_text(value)
    return _extxyz_text(f"_JSON {json.dumps(value)}")


_MEANS_MORE = re.compile(r"\b(T|F|true|false|nan|inf|infinity)\b", re.IGNORECASE)


def _extxyz_text(text: str) -> str:
    """Text with the quotes of the format where needed."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return escaped if re.fullmatch(r"[\w.-]+", escaped, re.ASCII) else f'"{escaped}"'


def _write_json(path: Path, crystals: Crystals, ids: list[str], columns: Properties) -> None:
    with _open_text(path) as file:
        for i, cell in enumerate(to_cells(crystals)):
            sites = [
                {"species": [{"element": symbol(int(z)), "occu": 1}], "abc": frac, "properties": {}}
                for z, frac in zip(cell.species, cell.frac.tolist(), strict=True)
            ]
            values = {name: _json_value(column[i].item()) for name, column in columns.items()}
            structure = {
                "@module": "pymatgen.core.structure",
                "@class": "Structure",
                "charge": 0,
                "lattice": {"matrix": cell.matrix.tolist(), "pbc": [True, True, True]},
                "sites": sites,
                "properties": {"material_id": ids[i], **values},
            }
            file.write(("[" if i == 0 else ",\n") + json.dumps(structure))
        file.write("]\n" if len(crystals) else "[]\n")


def _json_value(value: Any) -> Any:
    """A value in standard JSON, which has no nan."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _open_text(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
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
    """Writer for the format of the file's extension; ValueError if there is none."""
    name = path.name.lower()
    writer = next((writer for end, writer in _WRITERS.items() if name.endswith(end)), None)
    if writer is None:
        raise ValueError(
            f"cannot write {path}: give it one of the extensions {', '.join(_WRITERS)}"
        )
    return writer
