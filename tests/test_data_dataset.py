"""Datasets on disk: contents, cache, resuming, skipped rows."""

import csv
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from crystaljax.data import build, shards
from crystaljax.data.dataset import load
from crystaljax.data.registry import RESOURCES
from crystaljax.data.rows import Dataset

LENGTHS = np.linspace(4.0, 6.0, 12)


@cache
def template(name: str) -> str:
    if name == "rocksalt":
        sites = (225, Lattice.cubic(5.0), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    else:
        sites = (136, Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0] * 3, [0.305, 0.305, 0]])
    return str(CifWriter(Structure.from_spacegroup(*sites)))


def rocksalt(a: float) -> str:
    text = template("rocksalt").replace("_cell_volume   125.00000000", f"_cell_volume {a**3:.8f}")
    return text.replace(" 5.00000000", f" {a:.8f}")


def rutile() -> str:
    return template("rutile")


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve NaCl of growing cells, then TiO2, then two rows that cannot be read."""
    rows: list[dict[str, object]] = [
        {"material_id": f"n{i}", "cif": rocksalt(a), "gap": i / 2, "label": "salt"}
        for i, a in enumerate(LENGTHS)
    ]
    rows.append({"material_id": "t", "cif": rutile(), "gap": "", "label": "7"})
    rows.append({"material_id": "bad", "cif": "nonsense", "gap": 1, "label": "x"})
    partial = re.sub(r"(  O  O.*) 1(\.0)?$", r"\1 0.5", rutile(), flags=re.MULTILINE)
    rows.append({"material_id": "partial", "cif": partial, "gap": 1, "label": "x"})
    return write_csv(tmp_path / "table.csv", rows)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CHUNK_ROWS", 4)


def check_table(dataset: Dataset) -> None:
    assert len(dataset) == 13
    assert dataset.ids.tolist() == [f"n{i}" for i in range(12)] + ["t"]
    assert dataset.crystals.space_group.tolist() == [225] * 12 + [136]
    np.testing.assert_allclose(dataset.crystals.lattice[:12, 0], LENGTHS, rtol=1e-5)
    assert dataset.crystals.wyckoff.shape == (13, 2)
    assert np.sort(dataset.crystals.species[0]).tolist() == [11, 17]
    gap = dataset.properties["gap"]
    assert gap.dtype == np.float64
    np.testing.assert_array_equal(gap, [*(np.arange(12) / 2), np.nan])
    assert dataset.properties["label"].tolist() == ["salt"] * 12 + ["7"]
    assert dataset.n_skipped == 2


def test_build_and_skipped_rows(tmp_path: Path, table: Path, small_chunks: None) -> None:
    with pytest.warns(UserWarning, match=r"2 of 15 .*bad: not a CIF.*skipped\.csv") as caught:
        dataset = load(table, cache_dir=tmp_path / "cache", workers=1)
    check_table(dataset)
    assert dataset.folder is not None
    assert len(caught) == 1 and str(dataset.folder / "skipped.csv") in str(caught[0].message)
    with pytest.warns(UserWarning, match="2 of 15"):
        load(table, cache_dir=tmp_path / "cache")  # from the cache
    with (dataset.folder / "skipped.csv").open() as file:
        skipped = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert skipped.keys() == {"bad", "partial"}
    assert "not a CIF" in skipped["bad"]
    assert "partial occupancy" in skipped["partial"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [dataset.folder.name]


def test_selection_and_space_group_counts(tmp_path: Path, table: Path) -> None:
    with pytest.warns(UserWarning):
        dataset = load(table, cache_dir=tmp_path / "cache")
    counts = dataset.space_group_counts
    assert counts.shape == (230,)
    assert counts[224] == 12
    assert counts[135] == 1
    assert counts.sum() == 13
    part = dataset[dataset.properties["gap"] > 4]
    assert part.ids.tolist() == ["n9", "n10", "n11"]
    assert len(part.crystals) == 3
    assert dataset[3].ids.tolist() == ["n3"]
    assert dataset[-1].ids.tolist() == ["t"]


def test_cache_is_keyed_by_content_and_settings(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    with pytest.warns(UserWarning):
        first = load(table, cache_dir=cache, workers=1)
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="2 of 15"):
        patch.setattr(build, "open_source", None)  # a second build would fail
        os.utime(table)
        copy = tmp_path / "deep" / "table.csv"
        copy.parent.mkdir()
        copy.write_bytes(table.read_bytes())
        assert load(table, cache_dir=cache).folder == first.folder
        assert load(copy, cache_dir=cache).folder == first.folder
    with pytest.warns(UserWarning):
        loose = load(table, cache_dir=cache, symprec=0.1, workers=1)
    assert loose.folder != first.folder
    table.write_text(table.read_text().replace("salt", "SALT"))
    with pytest.warns(UserWarning):
        changed = load(table, cache_dir=cache, workers=1)
    assert changed.folder != first.folder
    assert changed.properties["label"][0] == "SALT"


def test_a_killed_build_goes_on(
    tmp_path: Path, table: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, done = tmp_path / "cache", []
    write = build._write_shard

    def dies_on_the_third(*job: object) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        write(*job)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "_write_shard", dies_on_the_third)
        load(table, cache_dir=cache, workers=1)
    assert len(list(cache.glob("*.partial/*.npz"))) == 2
    again: list[object] = []
    with monkeypatch.context() as patch, pytest.warns(UserWarning):
        patch.setattr(build, "_write_shard", lambda *job: (again.append(job), write(*job)))
        check_table(load(table, cache_dir=cache, workers=1))
    assert len(again) == 2
    assert not list(cache.glob("*.partial"))


def test_limits_are_counted_and_listed(tmp_path: Path, table: Path) -> None:
    with pytest.warns(UserWarning):
        dataset = load(table, cache_dir=tmp_path / "cache", max_atoms=2)
    assert set(dataset.crystals.space_group.tolist()) == {225}
    assert dataset.n_skipped == 3
    assert dataset.folder is not None
    assert 't,"6 atoms, more than max_atoms = 2"' in (dataset.folder / "skipped.csv").read_text()
    with pytest.raises(ValueError, match=r"none of the 15 .* more than max_sites = 1"):
        load(table, cache_dir=tmp_path / "cache", max_sites=1)


def test_workers_give_what_one_process_gives(tmp_path: Path, table: Path) -> None:
    """Run as a script of its own, as users do."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, json\n"
        "from crystaljax.data import build\n"
        "from crystaljax.data.dataset import load\n"
        "build.CHUNK_ROWS = 4\n"
        "dataset = load(sys.argv[1], cache_dir=sys.argv[2], workers=2)\n"
        "sys.stdout.write(json.dumps(str(dataset.folder)))\n"
    )
    command = [sys.executable, str(script), str(table), str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    with pytest.warns(UserWarning):
        one = load(table, cache_dir=tmp_path / "one", workers=1)
    two = load(table, cache_dir=tmp_path / "two")
    assert str(two.folder) == json.loads(done.stdout)
    check_table(two)
    np.testing.assert_array_equal(two.crystals.frac, one.crystals.frac)
    np.testing.assert_array_equal(two.crystals.lattice, one.crystals.lattice)


def test_columns_of_mixed_types_across_shards(tmp_path: Path, small_chunks: None) -> None:
    """A column is text if any of its values is; long text is left out and named."""
    rows: list[dict[str, object]] = [
        {"cif": rocksalt(5.0), "mixed": 1.5 if i < 4 else "one", "long": "y" * (i * 20), "n": i}
        for i in range(8)
    ]
    dataset = load(write_csv(tmp_path / "x.csv", rows), cache_dir=tmp_path, workers=1)
    assert dataset.properties["mixed"].tolist() == ["1.5"] * 4 + ["one"] * 4
    assert dataset.properties["n"].tolist() == list(range(8))
    assert dataset.properties.keys() == {"mixed", "n"}
    assert dataset.folder is not None
    meta = json.loads((dataset.folder / "meta.json").read_text())
    assert meta["omitted_properties"] == ["long"]
    assert len("y" * 140) > shards.MAX_TEXT


def test_arrays_are_memory_mapped(tmp_path: Path, table: Path) -> None:
    with pytest.warns(UserWarning):
        dataset = load(table, cache_dir=tmp_path / "cache", workers=1)
    for array in (dataset.crystals.frac, dataset.ids, dataset.properties["gap"]):
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_errors(tmp_path: Path, table: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv.*prototypes.*mp20-train"):
        load(tmp_path / "nothing.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="is empty"):
        load(tmp_path / "empty.csv", cache_dir=tmp_path / "cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write in .*CRYSTALJAX_CACHE"):
        load(table, cache_dir=tmp_path / "file" / "cache")
    only_bad = write_csv(tmp_path / "bad.csv", [{"material_id": "b", "cif": "nonsense"}])
    with pytest.raises(ValueError, match=r"none of the 1 structures .*'b': not a CIF"):
        load(only_bad, cache_dir=tmp_path / "cache", workers=1)


def test_no_write_permission(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write
    with pytest.raises(PermissionError, match=r"cannot write in .*CRYSTALJAX_CACHE"):
        load(table, cache_dir=tmp_path / "locked" / "cache", workers=1)
    assert not list(tmp_path.rglob("*.npy"))


def test_registered_name_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    monkeypatch.setenv("CRYSTALJAX_CACHE", str(tmp_path))
    unreachable = dataclasses.replace(RESOURCES["mp20-val"], url="http://127.0.0.1:9/val.csv")
    monkeypatch.setitem(RESOURCES, "mp20-val", unreachable)
    with pytest.raises(ConnectionError, match=r"could not download mp20-val .*save it as"):
        load("mp20-val")
    write_csv(tmp_path / "downloads" / "mp20-val.csv", [{"cif": rocksalt(5.0)}])
    assert len(load("mp20-val", workers=1)) == 1


@pytest.mark.slow
def test_all_of_mp20_bt(shared: Path, tmp_path: Path) -> None:
    """No crystal of the Materials Project is lost, and the space groups agree with the table."""
    for name, n_rows in {"train": 11443, "val": 1454, "test": 1361}.items():
        source = shared / "data" / "mp20_bt" / f"{name}.csv.gz"
        dataset = load(source, cache_dir=tmp_path, workers=1)
        assert len(dataset) == n_rows
        assert dataset.n_skipped == 0
        agree = dataset.crystals.space_group == dataset.properties["spacegroup.number"]
        assert agree.mean() > 0.95  # the table was made at symprec 0.1 from unrounded structures


def test_the_cache_knows_the_code_that_read_it(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that changes reads again; so does another version of a library."""
    from crystaljax.data import dataset

    with pytest.warns(UserWarning):
        first = load(table, cache_dir=tmp_path / "cache", workers=1)
    content = dataset._content
    for change in ("cif.py", "csv_format.py", "analysis.py", "shards.py", "composition.py"):
        with monkeypatch.context() as patch, pytest.warns(UserWarning):
            dataset._code.cache_clear()
            patch.setattr(
                dataset,
                "_content",
                lambda file, change=change: content(file) + b"!" * (file.name == change),
            )
            assert load(table, cache_dir=tmp_path / "cache", workers=1).folder != first.folder
    dataset._code.cache_clear()
    with monkeypatch.context() as patch, pytest.warns(UserWarning):
        patch.setattr(dataset, "version", lambda name: "0" if name == "gemmi" else "1")
        assert load(table, cache_dir=tmp_path / "cache", workers=1).folder != first.folder
    dataset._code.cache_clear()
    assert load(table, cache_dir=tmp_path / "cache", workers=1).folder == first.folder


@pytest.mark.parametrize("damage", ["meta.json", "frac.npy", "property-0.npy", "cut", "empty"])
def test_a_damaged_dataset_is_built_again(tmp_path: Path, table: Path, damage: str) -> None:
    """As a full disk, or a deletion that broke off, leaves it."""
    with pytest.warns(UserWarning):
        folder = load(table, cache_dir=tmp_path / "cache", workers=1).folder
    assert folder is not None
    if damage == "cut":
        (folder / "frac.npy").write_bytes((folder / "frac.npy").read_bytes()[:200])
    elif damage == "empty":
        (folder / "meta.json").write_text("")
    else:
        (folder / damage).unlink()
    with pytest.warns(UserWarning):
        check_table(load(table, cache_dir=tmp_path / "cache", workers=1))


@pytest.mark.parametrize("damage", [b"", b"PK", None])
def test_damaged_shards_of_a_killed_build_are_made_again(
    tmp_path: Path, table: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(build, "merge", fails)
        load(table, cache_dir=tmp_path, workers=1)
    shard = next(tmp_path.glob("*.partial/0000001.npz"))
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2] if damage is None else damage)
    with pytest.warns(UserWarning):
        check_table(load(table, cache_dir=tmp_path, workers=1))
    assert not list(tmp_path.glob("*.partial"))


def test_a_build_that_failed_works_once_the_source_is_mended(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [{"cif": "nonsense", "gap": 1}])
    for _ in range(2):
        with pytest.raises(ValueError, match="none of the 1 structures"):
            load(path, cache_dir=tmp_path / "cache", workers=1)
    write_csv(path, [{"cif": rocksalt(5.0), "gap": 1}])
    assert len(load(path, cache_dir=tmp_path / "cache", workers=1)) == 1


def test_a_truncated_source_is_warned_of_and_counted(tmp_path: Path, small_chunks: None) -> None:
    import gzip

    rows: list[dict[str, object]] = [{"cif": rocksalt(a), "n": a} for a in np.linspace(4, 6, 40)]
    data = gzip.compress(write_csv(tmp_path / "x.csv", rows).read_bytes())
    (tmp_path / "y.csv.gz").write_bytes(data[: len(data) * 2 // 3])
    with pytest.warns(UserWarning) as caught:
        dataset = load(tmp_path / "y.csv.gz", cache_dir=tmp_path / "cache", workers=1)
    texts = [str(warning.message) for warning in caught]
    assert any("cannot be read on after entry" in text for text in texts)
    assert dataset.n_skipped == 1 and 0 < len(dataset) < 40
    assert dataset.folder is not None
    assert "the rest of y.csv.gz" in (dataset.folder / "skipped.csv").read_text()


def test_names_and_texts_of_any_kind(tmp_path: Path, small_chunks: None) -> None:
    """Names that no archive could hold, over several shards; long text does not widen a shard."""
    names = ["a/b", "../c", "x.npy", "é", "n" * 70000, 'quo"te', "new\nline", "ids", "property 1"]
    row: dict[str, object] = {"cif": rocksalt(5.0), **dict.fromkeys(names, "v")}
    rows = [row | {"long": "y" * 10**6} for _ in range(9)]
    dataset = load(write_csv(tmp_path / "x.csv", rows), cache_dir=tmp_path / "c", workers=1)
    assert dataset.properties.keys() == set(names)
    assert all(column.tolist() == ["v"] * 9 for column in dataset.properties.values())


@pytest.mark.parametrize(
    "setting",
    [
        *[{"symprec": x} for x in (0.0, -1.0, float("nan"), float("inf"))],
        *[{name: x} for name in ("max_sites", "max_atoms") for x in (0, -1)],
    ],
    ids=str,
)
def test_settings_that_no_crystal_meets(tmp_path: Path, table: Path, setting: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        load(table, cache_dir=tmp_path / "cache", workers=1, **setting)
    assert not (tmp_path / "cache").exists()


BUILD_AND_COUNT = """
import sys, time
from pathlib import Path
from crystaljax.data import build
from crystaljax.data.dataset import load

source, cache, name = sys.argv[1:]
analyse, cache = build.analyse, Path(cache)


def counted(*args):
    with (cache / "analysed").open("a") as file:
        file.write(f"{name}\\n")
    time.sleep(0.05)
    return analyse(*args)


build.CHUNK_ROWS, build.analyse = 1, counted
(cache / f"ready-{name}").touch()
while len(list(cache.glob("ready-*"))) < 2:
    time.sleep(0.01)
print(" ".join(load(source, cache_dir=cache / "cache", workers=1).ids))
"""


def test_two_processes_build_a_dataset_once(tmp_path: Path, table: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", BUILD_AND_COUNT, str(table), str(tmp_path)]
    builders = [
        subprocess.Popen(
            [*command, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    results = [builder.communicate(timeout=120) for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], results
    assert results[0][0] == results[1][0] != ""
    analysed = (tmp_path / "analysed").read_text().split()
    assert len(analysed) == 15 and len(set(analysed)) == 1  # each row once, by one of the two
    left = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len(left) == 1, left


@pytest.mark.parametrize("piped", [False, True])
def test_a_script_needs_no_guard(tmp_path: Path, table: Path, piped: bool) -> None:
    """Its workers do not run it again, nor look for it where it came from a pipe."""
    script = (
        "from crystaljax.data import build\n"
        "from crystaljax.data.dataset import load\n"
        f"build.CHUNK_ROWS = 2\nload({str(table)!r}, cache_dir={str(tmp_path)!r}, workers=2)\n"
        "print('once')\n"
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    command = [sys.executable, "-W", "ignore", "-" if piped else str(path)]
    done = subprocess.run(
        command, input=script, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "once\n"), done.stderr


def test_a_lock_is_held_by_one_and_gone_with_it(tmp_path: Path) -> None:
    from threading import Event, Thread

    from crystaljax.data.files import locked

    entered, order = Event(), []

    def second() -> None:
        entered.set()
        with locked(tmp_path / "data"):
            order.append("second")

    with locked(tmp_path / "data"):
        thread = Thread(target=second)
        thread.start()
        entered.wait()
        thread.join(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert not list(tmp_path.iterdir())
