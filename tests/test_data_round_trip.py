"""Round trips of files: every crystal, every id, every property, whatever they are."""

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from ase.io import read as ase_read
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.data.prototypes import prototypes
from crystaljax.data.readers import read
from crystaljax.data.text_files import clean, number
from crystaljax.data.writers import write
from crystaljax.structures import to_cells
from crystaljax.symmetry import orbits
from crystaljax.symmetry.tables import tables
from crystaljax.validity import close_pairs

NAMES = (
    *("material_id ", "entry_id", "mat_id", "file", "cif", "formula", "spacegroup.number"),
    *("structure", "poscar", "space_group", "Lattice", "Properties", "pbc", "pos", "species"),
    *("energy", "stress", "virial", "dipole", "magmom", "forces", "uid", "charge", "@class"),
    *("@module", "data", "properties", "lattice", "sites", "T", " ", "", "band gap", "a=b"),
    *('in "quotes"', "a\\b", "two\nlines", "Lattice\n", "é", "a{b", "[x", "source_formula"),
    *("../up", "a" * 300, "it's"),
)
TEXTS = (
    *("", " ", "T", "F F", "true", "nan", "NaN", "inf", "1 2 3", "007", "1e5", "1_2", "[1, 2]"),
    *("x", 'say "hi"', "it's", "a\\", "\\n", "two\nlines", "\r", "a=b", 'Lattice="1 0 0"'),
    *("_JSON 1", "pbc=F", "{", "#", "é…", "\u2028", "\x85", "-", "x\x00", "half \ud800"),
    *("made up", "1,5", ";"),
)
texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=8))
names = st.one_of(st.sampled_from(NAMES), st.text(max_size=8))


def sampled(seed: int, n: int = 12) -> Crystals:
    """Crystals as a model may sample them, valid or not: sites may be close to each other or to
    special positions, which their letters are not, and cells may be thin."""
    rng = np.random.default_rng(seed)
    group = rng.integers(1, 231, n).astype(np.int32)
    letters = rng.integers(1, tables().n_letters[group - 1][:, None] + 1, (n, 3))
    letters = np.sort(letters, axis=1).astype(np.int32)
    frac = rng.integers(0, 25, (n, 3, 3)) / 24 + rng.normal(size=(n, 3, 3)) * 10.0 ** -rng.integers(
        1, 6, (n, 1, 1)
    )
    frac = np.array(orbits.project(group[:, None], letters, frac.astype(np.float32)))
    lattice = np.concatenate([rng.uniform(2, 30, (n, 3)), rng.uniform(40, 120, (n, 3))], axis=1)
    lattice = np.array(orbits.constrain_lattice(group, lattice.astype(np.float32)))
    species = rng.integers(1, 119, (n, 3)).astype(np.int32)
    return Crystals(group, letters, species, frac, lattice)


def match(found: AtomicCell, expected: AtomicCell) -> None:
    """The same atoms in the same cell, in any order: each has its own partner within 1e-4 Å."""
    matrix = expected.matrix.astype(float)
    np.testing.assert_allclose(metric(found), metric(expected), atol=1e-3)
    assert len(found.species) == len(expected.species)
    offset = found.frac[:, None] - expected.frac
    distance = np.linalg.norm((offset - np.round(offset)) @ matrix, axis=-1)
    distance[found.species[:, None] != expected.species] = np.inf
    mine, theirs = linear_sum_assignment(np.where(distance < 1e-4, distance, 1))
    assert distance[mine, theirs].max() < 1e-4


def metric(cell: AtomicCell) -> np.ndarray:
    """The metric tensor: a cell may come back turned."""
    return np.asarray(cell.matrix, float) @ np.asarray(cell.matrix, float).T


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["x.json.gz", "x.extxyz", "x.csv", "x.zip"]))
def test_no_atom_is_merged_moved_or_dropped(seed: int, name: str) -> None:
    crystals = sampled(seed)
    with TemporaryDirectory() as folder:
        records = list(read(write(crystals, Path(folder) / name)))
    for record, cell in zip(records, to_cells(crystals), strict=True):
        if record.cell is None:  # no crystal, or two sites are one, which a reason says
            frac, matrix = cell.frac.astype(float), cell.matrix.astype(float)
            assert "no unit cell" in str(record.reason) or len(close_pairs(frac, matrix, 0.0101))
        else:
            match(record.cell, cell)


def test_few_samples_are_refused() -> None:
    """Only atoms on one position are: those of samples that are merely bad come back."""
    with TemporaryDirectory() as folder:
        records = list(read(write(sampled(0, 300), Path(folder) / "x.json")))
    assert sum(record.cell is None for record in records) < 60


SALT = prototypes(n_per_prototype=1).crystals[:2]


def expected(value: float | str, format: str) -> str:
    """How a property is read back; a CSV does not tell text from numbers."""
    if isinstance(value, str):
        value = clean(value)
        value = number(value) if format in (".csv", ".zip") else value
    return repr(float(value)) if not isinstance(value, str) else repr(value)


@pytest.mark.parametrize("format", [".json", ".extxyz", ".csv", ".zip"])
@settings(max_examples=30)
@given(data=st.data())
def test_ids_and_properties(format: str, data: st.DataObject) -> None:
    ids = data.draw(st.tuples(texts, texts).filter(lambda x: all(clean(i).strip() for i in x)))
    columns = data.draw(
        st.dictionaries(
            names.filter(lambda x: x != "material_id"),
            st.one_of(st.tuples(texts, texts), st.tuples(st.floats(), st.floats(width=32))),
            max_size=4,
        )
    )
    properties = {name: np.array(values) for name, values in columns.items()}
    properties["material_id"] = np.array(ids)
    with TemporaryDirectory() as folder:
        path = write(SALT, Path(folder) / f"x{format}", properties)
        records = list(read(path))
        assert [p.name for p in Path(folder).iterdir()] == [path.name]
    found_ids = properties.pop("material_id")
    assert [record.id for record in records] == [clean(str(id)) for id in found_ids]
    own = {".csv": {"formula", "spacegroup.number"}, ".extxyz": {"space_group"}}.get(format, set())
    kept = {clean(name): values for name, values in properties.items()}
    for i, record in enumerate(records):
        assert record.reason is None
        found = dict(record.properties)
        if "spacegroup.number" in own:
            assert found["spacegroup.number"] == SALT.space_group[i]
        if "space_group" in own:
            assert found["space_group"] == SALT.space_group[i]
        for name in own:
            del found[name]
        values = [
            values[i].item()
            for name, values in kept.items()
            if name or format != ".csv"  # there, no name is that of pandas' index
        ]
        assert sorted(expected(v, format) for v in values) == sorted(
            expected(v, format) for v in found.values()
        )


@pytest.mark.parametrize("name", ["x.csv", "x.zip", "x.json", "x.extxyz"])
def test_what_was_written_twice_is_the_same(tmp_path: Path, name: str) -> None:
    """Columns of ours do not pile up under new names when a file is read and written again."""
    first = list(read(write(SALT, tmp_path / f"1{name}", {"formula": np.array(["zz", "zz"])})))
    columns = {key: np.array([r.properties[key] for r in first]) for key in first[0].properties}
    second = list(read(write(SALT, tmp_path / f"2{name}", columns)))
    assert [r.properties for r in second] == [r.properties for r in first]


def test_columns_with_names_of_ours_are_renamed(tmp_path: Path) -> None:
    columns = {"spacegroup.number": np.array([7.0, 7.0]), "cif": np.array(["a", "b"])}
    record = next(read(write(SALT, tmp_path / "x.csv", columns)))
    assert record.reason is None
    assert record.properties["spacegroup.number"] == SALT.space_group[0]
    assert record.properties["source_spacegroup.number"] == 7
    assert record.properties["source_cif"] == "a"


def test_other_programs_read_the_extxyz(tmp_path: Path) -> None:
    columns = {"note": np.array(["", 'a "b"']), "Lattice": np.array([8, 9]), "gap": np.ones(2)}
    path = write(SALT, tmp_path / "x.extxyz", columns)
    atoms = ase_read(path, ":")
    assert [a.info["note"] for a in atoms] == ["", 'a "b"']
    assert [a.info["source_Lattice"] for a in atoms] == [8, 9]
    assert all(a.pbc.all() and a.info["gap"] == 1 for a in atoms)


def test_names_in_an_archive(tmp_path: Path) -> None:
    """They stay in the folder that the archive is unpacked to, and none writes over another."""
    ids = ["a", "a", "A", "../up", "/etc/passwd", "..", "C:\\x", "con", "deep/er", "x" * 400, "é"]
    crystals = Crystals.concatenate([SALT[:1]] * len(ids))
    path = write(crystals, tmp_path / "x.zip", {"material_id": np.array(ids)})
    with zipfile.ZipFile(path) as archive:
        files = [name for name in archive.namelist() if name.endswith(".cif")]
        archive.extractall(tmp_path / "out")
    assert len({name.lower() for name in files}) == len(ids) == len(files)
    assert len(list((tmp_path / "out").iterdir())) == len(ids) + 1
    assert not any(set(name) & set('/\\:*?"<>|') or ".." in name for name in files)
    assert max(len(name.encode()) for name in files) < 150
    found = [record.id for record in read(path)]
    assert [id for id in found if len(id) < 200] == [id for id in ids if len(id) < 200]
