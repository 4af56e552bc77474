"""A small crystal in every format, for tests of readers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from crystaljax.data.dataset import load
from crystaljax.data.readers import Record, read

STRUCTURE = {
    "lattice": {"matrix": [[4.0, 0, 0], [0, 4.5, 0], [0, 0, 5]]},
    "sites": [
        {"species": [{"element": "Na", "occu": 1}], "abc": [0, 0, 0]},
        {"species": [{"element": "Cl", "occu": 1}], "abc": [0.5, 0.5, 0.5]},
    ],
}
GOOD = json.dumps(STRUCTURE)
FRAME = '2\nLattice="4 0 0 0 4.5 0 0 0 5" Properties=species:S:1:pos:R:3\nNa 0 0 0\nCl 2 2.25 2.5\n'
POSCAR = "salt\n1.0\n4 0 0\n0 4.5 0\n0 0 5\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
CIF = (
    "data_salt\n_cell_length_a 4\n_cell_length_b 4.5\n_cell_length_c 5\n_cell_angle_alpha 90\n"
    "_cell_angle_beta 90\n_cell_angle_gamma 90\nloop_\n_atom_site_label\n_atom_site_fract_x\n"
    "_atom_site_fract_y\n_atom_site_fract_z\nNa1 0 0 0\nCl1 0.5 0.5 0.5\n"
)


def is_salt(record: Record) -> bool:
    assert record.reason is None, record.reason
    cell = record.cell
    assert cell is not None
    place = np.abs(cell.frac - [[0, 0, 0], [0.5, 0.5, 0.5]]).max()
    return cell.species.tolist() == [11, 17] and place < 1e-9 and cell.matrix[1, 1] == 4.5


def check_one_bad(path: Path, words: str, bad_id: str = "1") -> None:
    """Three entries, of which the middle one is bad: read, and then built to a dataset."""
    first, bad, last = read(path)
    assert is_salt(first) and is_salt(last)
    assert bad.cell is None and bad.id == bad_id
    assert words in str(bad.reason)
    assert len(str(bad.reason)) <= 500
    with pytest.warns(UserWarning, match="1 of 3"):
        assert load(path, cache_dir=path.parent / "cache", workers=1).n_skipped == 1


def write_csv(path: Path, column: str, cells: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["material_id", column], *([i, c] for i, c in enumerate(cells))]
        )
    return path
