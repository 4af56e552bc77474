"""Bad entries: each costs itself, is named and is counted, in every format."""

import copy
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from salt import CIF, FRAME, GOOD, POSCAR, STRUCTURE, check_one_bad, is_salt, write_csv

from crystaljax.crystal import AtomicCell
from crystaljax.data import csv_format
from crystaljax.data.dataset import load
from crystaljax.data.readers import read
from crystaljax.validity import MAX_ATOMS


def changed(**changes: object) -> dict[str, object]:
    """A good structure, with entries changed by paths such as sites__0__abc."""
    result = copy.deepcopy(STRUCTURE)
    for path, value in changes.items():
        *parents, last = [int(x) if x.isdigit() else x for x in path.split("__")]
        target = result
        for parent in parents:
            target = target[parent]  # type: ignore[index]
        target[last] = value  # type: ignore[index]
    return result


BAD_JSON = {
    "strings as species": (json.dumps(changed(sites__0__species=["Na"])), "species of site 0"),
    "a string as species": (json.dumps(changed(sites__0__species="Na")), "species of site 0"),
    "no species": (json.dumps(changed(sites__1__species=None)), "species of site 1"),
    "a number as element": (
        json.dumps(changed(sites__0__species=[{"element": 11, "occu": 1}])),
        "odd shape",
    ),
    "a dummy element": (
        json.dumps(changed(sites__0__species=[{"element": "Xx", "occu": 1}])),
        "unknown element",
    ),
    "half an atom": (
        json.dumps(changed(sites__0__species=[{"element": "Na", "occu": 0.5}])),
        "partial occupancy",
    ),
    "nan of an atom": (
        json.dumps(changed(sites__0__species=[{"element": "Na", "occu": float("nan")}])),
        "partial occupancy",
    ),
    "null of an atom": (
        json.dumps(changed(sites__0__species=[{"element": "Na", "occu": None}])),
        "odd shape",
    ),
    "sites that are a number": (json.dumps(changed(sites=7)), "odd shape"),
    "no sites": (json.dumps(changed(sites=[])), "no atoms"),
    "two coordinates": (json.dumps(changed(sites__0__abc=[0, 0])), ""),
    "text for a coordinate": (json.dumps(changed(sites__0__abc=[0, 0, "x"])), ""),
    "nan for a coordinate": (json.dumps(changed(sites__0__abc=[0, 0, float("nan")])), "position"),
    "far away": (json.dumps(changed(sites__0__abc=[0, 0, 1e300])), "cells away"),
    "no lattice": (json.dumps(changed(lattice=None)), "odd shape"),
    "two vectors": (json.dumps(changed(lattice__matrix=[[4, 0, 0], [0, 4, 0]])), "no unit cell"),
    "a flat cell": (json.dumps(changed(lattice__matrix=[[4, 0, 0]] * 3)), "no unit cell"),
    "a huge cell": (
        json.dumps(changed(lattice__matrix=np.diag([1e9] * 3).tolist())),
        "plausible",
    ),
    "a slab": (json.dumps(changed(lattice__pbc=[True, True, False])), "periodic"),
    "an atom twice": (json.dumps(changed(sites__1=STRUCTURE["sites"][0])), "apart"),
    "too many atoms": (json.dumps(changed(sites=[1] * (MAX_ATOMS + 1))), "more than the"),
    "null": ("null", "no JSON object"),
    "a number": ("3", "no JSON object"),
    "text": ('"abc"', "no JSON object"),
    "a list": ("[]", "no JSON object"),
    "no structure": ('{"a": 1}', "no structure"),
    "another structure": ('{"structure": {"sites": 1, "lattice": {}}}', "odd shape"),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_bad_entries_of_json(tmp_path: Path, kind: str) -> None:
    bad, words = BAD_JSON[kind]
    (tmp_path / "x.json").write_text(f"[{GOOD}, {bad}, {GOOD}]")
    check_one_bad(tmp_path / "x.json", words)


@pytest.mark.parametrize(
    "bad", ["{", "nonsense", "[" * 10**5, '{"a": ' * 10**5, "{}\x00", "1" * 5000]
)
def test_bad_lines_of_jsonl(tmp_path: Path, bad: str) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join([GOOD, bad, GOOD]))
    check_one_bad(tmp_path / "x.jsonl", "")


def test_deep_nesting(tmp_path: Path) -> None:
    """Within what JSON's reader takes, and beyond it."""
    for depth in (300, 10**5):
        nested = '{"data": ' * depth + "1" + "}" * depth
        (tmp_path / "x.jsonl").write_text("\n".join([GOOD, nested, GOOD]))
        first, bad, last = read(tmp_path / "x.jsonl")
        assert is_salt(first) and is_salt(last) and bad.cell is None
        write_csv(tmp_path / "x.csv", "structure", [GOOD, nested, GOOD])
        first, bad, last = read(tmp_path / "x.csv")
        assert is_salt(first) and is_salt(last) and bad.cell is None
        by_id = f'{{"a": {GOOD}, "b": {nested}, "c": {GOOD}}}'
        (tmp_path / "x.json").write_text(by_id)
        if depth < 1000:
            first, bad, last = read(tmp_path / "x.json")
            assert is_salt(first) and is_salt(last) and bad.id == "b"
        else:
            with pytest.raises(ValueError, match="nested too deeply"):
                list(read(tmp_path / "x.json"))


def test_a_dict_by_id_keeps_what_is_no_structure(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(f'{{"a": {GOOD}, "b": 3, "c": {GOOD}}}')
    check_one_bad(tmp_path / "x.json", "no JSON object", bad_id="b")


BAD_POSCARS = {
    "a huge count": POSCAR.replace("1 1\n", "9999999999999 1\n"),
    "a count of twenty thousand digits": POSCAR.replace("1 1\n", "9" * 20000 + " 1\n"),
    "a negative count": POSCAR.replace("1 1\n", "-1 3\n"),
    "a count of zero": POSCAR.replace("1 1\n", "0 2\n"),
    "fewer counts than elements": POSCAR.replace("1 1\n", "2\n"),
    "a scale of zero": POSCAR.replace("1.0", "0"),
    "a scale of nan": POSCAR.replace("1.0", "nan"),
    "a volume for a flat cell": POSCAR.replace("1.0", "-90").replace("0 4.5 0", "4 0 0"),
    "a short vector": POSCAR.replace("0 4.5 0", "0 4.5"),
    "a missing position": POSCAR.replace("0.5 0.5 0.5\n", ""),
    "two coordinates": POSCAR.replace("0.5 0.5 0.5\n", "0.5 0.5\n"),
    "no elements": POSCAR.replace("Na Cl\n", ""),
    "an unknown element": POSCAR.replace("Na Cl\n", "Na Xx\n"),
    "nothing": " ",
}


@pytest.mark.parametrize("kind", BAD_POSCARS)
def test_bad_poscars(tmp_path: Path, kind: str) -> None:
    path = write_csv(tmp_path / "x.csv", "poscar", [POSCAR, BAD_POSCARS[kind], POSCAR])
    check_one_bad(path, "")


@pytest.mark.parametrize("text", ["", "{", "{'a': ", "(" * 10**5, "{" + "[" * 5000, "\x00", "é"])
def test_bad_texts_in_a_csv(tmp_path: Path, text: str) -> None:
    check_one_bad(write_csv(tmp_path / "x.csv", "cif", [CIF, text, CIF]), "")


ERRORS = (
    *(RuntimeError("a library's"), MemoryError(), RecursionError(), OverflowError(), KeyError("x")),
    *(ZeroDivisionError("by zero"), AssertionError(), StopIteration(), NotImplementedError()),
    *(UnicodeDecodeError("utf-8", b"x", 0, 1, "odd"), OSError(5, "input"), AttributeError("a")),
    zipfile.BadZipFile("zip"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_no_exception_of_a_library_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def parse(text: str) -> AtomicCell:
        if text == "bad":
            raise error
        return AtomicCell(
            np.diag([4, 4.5, 5]), np.array([[0, 0, 0], [0.5] * 3]), np.array([11, 17])
        )

    monkeypatch.setitem(csv_format._PARSERS, "cif", parse)
    check_one_bad(write_csv(tmp_path / "x.csv", "cif", ["good", "bad", "good"]), "")


BAD_FRAMES = {
    "a huge count": (FRAME.replace("2\n", "99999999999\n", 1), "99999999999 atoms"),
    "a count of five thousand digits": (FRAME.replace("2\n", "9" * 5000 + "\n", 1), ""),
    **{
        f"a count of {count}": (FRAME.replace("2\n", f"{count}\n", 1), "no count of atoms")
        for count in ("-2", "2.0", "1e9", "1_0", "nan", "-inf", "+2")
    },
    "no atoms": (FRAME.replace("2\n", "0\n", 1), "announces 0"),
    "an atom too few": (FRAME.replace("2\n", "3\n", 1), "announces 3 atoms and lists 2"),
    "an atom too many": (FRAME.replace("2\n", "1\n", 1), "announces 1 atoms and lists 2"),
    "not periodic along c": (FRAME.replace(":R:3", ':R:3 pbc="T T F"'), 'pbc="T T F"'),
    "not periodic": (FRAME.replace(":R:3", ":R:3 pbc=F"), 'pbc="F F F"'),
    "a molecule": (FRAME.replace('Lattice="4 0 0 0 4.5 0 0 0 5" ', ""), "no unit cell"),
    "a flat cell": (FRAME.replace("0 4.5 0", "4 0 0"), "no unit cell"),
    "a lattice of eight numbers": (FRAME.replace("0 0 5", "0 5"), ""),
    "a lattice of words": (FRAME.replace("4 0 0 0 4.5 0 0 0 5", "a b c d e f g h i"), ""),
    "an empty comment": ("2\n\nNa 0 0 0\nCl 2 2 2\n", "no unit cell"),
    "an unknown element": (FRAME.replace("Cl", "Xx"), ""),
    "a coordinate too few": (FRAME.replace("2 2.25 2.5", "2 2.25"), ""),
    "a word for a coordinate": (FRAME.replace("2 2.25 2.5", "2 2.25 x"), ""),
    "nan for a coordinate": (FRAME.replace("2 2.25 2.5", "2 2.25 nan"), "position"),
    "odd properties": (FRAME.replace("species:S:1:pos:R:3", "pos"), ""),
    "odd stress": (FRAME.replace(":R:3", ":R:3 stress=1"), ""),
}


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_bad_frames(tmp_path: Path, kind: str) -> None:
    bad, words = BAD_FRAMES[kind]
    (tmp_path / "x.extxyz").write_text(FRAME + bad + FRAME)
    check_one_bad(tmp_path / "x.extxyz", words)


def test_frames_after_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text(f"\n\n{FRAME}\n \n\n{FRAME}\n{FRAME}\n\n")
    assert [is_salt(record) for record in read(tmp_path / "x.xyz")] == [True] * 3


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), "half \ud800 of a pair", "nul \x00", "x" * 10**6]
)
def test_odd_properties_cost_no_structure(tmp_path: Path, value: object) -> None:
    """Not even when the dataset is built and written again."""
    from crystaljax.data.writers import write

    rows = [{"structure": STRUCTURE, "material_id": value, "p": value, str(value)[:5]: 1}] * 2
    (tmp_path / "x.json").write_text(json.dumps(rows))
    data = load(tmp_path / "x.json", cache_dir=tmp_path, workers=1)
    assert len(data) == 2 and len(data.ids[0]) <= 200
    for name in ("x.csv", "y.json", "x.extxyz", "x.zip"):
        write(data.crystals, tmp_path / name, {"material_id": data.ids, **data.properties})
        assert [record.id for record in read(tmp_path / name)] == data.ids.tolist()
