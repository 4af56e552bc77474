"""Reading hull tables: every format, DFT entries against pymatgen, and bad files."""

import bz2
import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystaljax.composition import parse_formulas
from crystaljax.rewards.ehull import hull_path, load_hull
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.hull_files import read_hull_table

FORMULAS = ["NaCl", "Na3Cl", "MgO"]
ENERGIES = [-2.0, -0.5, -3.0]
CSV = "id,formula,formation_energy_per_atom,cif\n" + "".join(
    f'm{i},{f},{e},"two\nlines"\n' for i, (f, e) in enumerate(zip(FORMULAS, ENERGIES, strict=True))
)
ROWS = [
    {"formula": f, "formation_energy_per_atom": e} for f, e in zip(FORMULAS, ENERGIES, strict=True)
]


def write_parquet(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(
        pa.table({"formula": FORMULAS, "formation_energy_per_atom": ENERGIES}), path
    )


WRITERS: dict[str, Callable[[Path], Any]] = {
    "t.csv": lambda path: path.write_text(CSV),
    "t.csv.gz": lambda path: path.write_bytes(gzip.compress(CSV.encode())),
    "t.parquet": write_parquet,
    "rows.json": lambda path: path.write_text(json.dumps(ROWS)),
    "columns.json.gz": lambda path: path.write_bytes(
        gzip.compress(
            json.dumps({"formula": FORMULAS, "formation_energy_per_atom": ENERGIES}).encode()
        )
    ),
    "pandas.json.bz2": lambda path: path.write_bytes(
        bz2.compress(
            json.dumps(
                {
                    "formula": dict(enumerate(FORMULAS)),
                    "formation_energy_per_atom": dict(enumerate(ENERGIES)),
                }
            ).encode()
        )
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_table(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    table = read_hull_table(tmp_path / name)
    np.testing.assert_array_equal(table.counts, parse_formulas(FORMULAS))
    np.testing.assert_array_equal(table.energies, ENERGIES)
    assert table.references is None
    assert table.name == name


def test_a_folder_and_a_list_join_their_files(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(CSV)
    (tmp_path / "notes.txt").write_text("not a table")
    assert Hull.from_file(tmp_path).n_entries == 6
    assert Hull.from_file([tmp_path / "a.csv", tmp_path / "b.csv"]).name == "a.csv + b.csv"


def dft_entries() -> list[Any]:
    """Computed entries with structures and corrections, as hull files have them."""
    from pymatgen.core import Lattice, Structure
    from pymatgen.entries.computed_entries import (
        CompositionEnergyAdjustment,
        ComputedStructureEntry,
    )

    def entry(species: list[str], energy: float, correction: float = 0.0) -> Any:
        points = np.linspace(0, 0.9, 3 * len(species)).reshape(-1, 3)
        structure = Structure(Lattice.cubic(5), species, points)
        adjustments = [CompositionEnergyAdjustment(correction, 2, name="oxide")]
        return ComputedStructureEntry(
            structure, energy, energy_adjustments=adjustments if correction else None
        )

    return [
        entry(["Mg", "Mg"], -3.0),
        entry(["Mg"], -1.2),
        entry(["O", "O"], -9.8),
        entry(["Mg", "Mg", "O", "O"], -23.0, -0.687),
        entry(["Mg", "O", "O"], -14.0, -0.1),
        entry(["Mg", "Xe"], -9.0),
    ]


ENTRY_FILES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "alexandria.json.bz2": lambda entries: {"entries": entries},
    "list.json": lambda entries: entries,
    "matbench.json.gz": lambda entries: {
        "material_id": {str(i): f"mp-{i}" for i in range(len(entries))},
        "entry": {str(i): entry for i, entry in enumerate(entries)},
    },
    "ppd.json.gz": lambda entries: {
        "@class": "PatchedPhaseDiagram",
        "all_entries": entries,
        "elements": [],
    },
}


@pytest.mark.parametrize("name", ENTRY_FILES)
@pytest.mark.parametrize("with_composition", [True, False])
def test_dft_entries_agree_with_pymatgen(tmp_path: Path, name: str, with_composition: bool) -> None:
    from pymatgen.analysis.phase_diagram import PhaseDiagram

    entries = dft_entries()
    written = [entry.as_dict() for entry in entries]
    if not with_composition:
        written = [{k: v for k, v in e.items() if k != "composition"} for e in written]
    data = json.dumps(ENTRY_FILES[name](written)).encode()
    compress = {".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(compress(data))

    hull = Hull.from_file(tmp_path / name)
    diagram = PhaseDiagram(entries[:5])
    counts = parse_formulas(["MgO", "MgO2", "Mg", "Mg3O"])
    formation = [
        *(diagram.get_form_energy_per_atom(e) for e in (entries[3], entries[4], entries[1])),
        0.0,
    ]
    expected = [diagram.get_e_above_hull(e) for e in (entries[3], entries[4], entries[1])]
    above = hull.energy_above_hull(counts, np.array(formation))
    np.testing.assert_allclose(above[:3], expected, atol=1e-9)
    np.testing.assert_allclose(hull.references[[8, 12]], [-4.9, -1.5])
    # Xenon has no elemental entry, so its compound is left out and the hull says so.
    assert hull.reasons(parse_formulas(["MgXe"])) == [f"the hull {name!r} has no entry with Xe"]


def test_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "ppd.pkl"
    path.write_bytes(pickle.dumps({"entries": []}))
    with pytest.raises(ValueError, match="pickles can run any code"):
        Hull.from_file(path)


BAD_FILES = {
    "empty.csv": (b"", "the file is empty"),
    "header.csv": (b"formula,formation_energy_per_atom\n", "no rows"),
    "columns.csv": (
        b"material,gap\nNaCl,1\n",
        "no formula column .* the columns are material, gap",
    ),
    "energy.csv": (b"formula,gap\nNaCl,1\n", "no energy column"),
    "text.csv": (b"formula,formation_energy\nNaCl,low\n", "no number"),
    "formula.csv": (b"formula,formation_energy\nNaXy,1.0\n", "'NaXy'.*'Xy'"),
    "broken.csv.gz": (b"not gzip", "cannot be read"),
    "broken.parquet": (b"not parquet", "cannot be read"),
    "broken.json": (b"{", "cannot be read as json"),
    "broken.json.gz": (b"{}", "cannot be read as json"),
    "other.json": (b'{"a": 1}', "neither computed entries"),
    "nothing.json": (b"[]", "neither computed entries"),
    "elements.json": (
        b'[{"composition": {"Na": 1, "Cl": 1}, "energy": -1, "correction": 0}]',
        "no elemental entries",
    ),
    "table.xlsx": (b"x", "not a known kind of table"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        Hull.from_file(tmp_path / name)
    assert name in str(caught.value)


def test_a_named_column_must_exist(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    with pytest.raises(ValueError, match="no energy column \\('ehull'\\)"):
        Hull.from_file(tmp_path / "t.csv", energy_column="ehull")


def test_columns_of_other_names(tmp_path: Path) -> None:
    """After the file's name, with a level of theory after them or not."""
    path = tmp_path / "t.csv"
    path.write_text("what it is,E_f (eV/atom),level\nNaCl,-2.1,a\nNa,0,b\n")
    columns = "formula=what it is,energy=E_f (eV/atom)"
    for level, name in {"": "MP2020", "@mp": "MP"}.items():
        hull = load_hull(f"{path}:{columns}{level}")
        assert (hull.n_entries, hull.name, hull.level) == (2, "t.csv", name)
    assert hull_path(f"{path}:{columns}@MP") == str(path)
    path.write_text("formula,E_f\nNaCl,-2.1\n")
    assert load_hull(f"{path}:energy=E_f").n_entries == 1
    with pytest.raises(ValueError, match=r"no energy column .* FILE:energy=COLUMN"):
        load_hull(path)
    with pytest.raises(ValueError, match="no energy column \\('E'\\)"):
        load_hull(f"{path}:energy=E")
    odd = tmp_path / "a:energy=b.csv"  # a file is a file, whatever it is called
    odd.write_text("formula,e_form\nNaCl,-2.1\n")
    assert load_hull(odd).n_entries == 1 and hull_path(str(odd)) == str(odd)


def test_absent_files_and_folders_without_tables(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such hull file"):
        Hull.from_file(tmp_path / "absent.csv")
    with pytest.raises(FileNotFoundError, match="no table"):
        Hull.from_file(tmp_path)
