"""Outputs of other models in files."""

import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure

from crystaljax.alloys.evaluation.outputs import Outputs, read_outputs

TEXT = "<BCC>Cr</BCC> <B2>AlNi</B2> <B2_Volume>40</B2_Volume>"
CIF = """\
data_x
_cell_length_a 2.9
_cell_length_b 2.9
_cell_length_c 2.9
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Al 0 0 0
Ni 0.5 0.5 0.5
"""


def test_texts(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    lines = [{"samples": 2}, {"text": f"I think: {TEXT}"}, {"text": "none"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_outputs(path) == Outputs([TEXT, "none"], None)
    path = tmp_path / "samples.txt"
    path.write_bytes(f"{TEXT}\nnone \n\n".encode() + b"caf\xe9\n")  # not UTF-8
    assert read_outputs(path) == Outputs([TEXT, "none ", "caf\ufffd"], None)


def test_requests_that_failed_are_no_samples(tmp_path: Path) -> None:
    """A request of an endpoint that failed, and succeeded when it was asked again."""
    path = tmp_path / "0_shot.jsonl"
    lines = [{"endpoint": {}}, {"text": None, "reason": "500"}, {"text": TEXT, "reason": None}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_outputs(path) == Outputs([TEXT], None)
    for name, entries in (("failed", lines[:2]), ("dialogues", [{"dialogues": [0]}])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        with pytest.raises(ValueError, match=rf"{name}\.jsonl has no texts .*generator\.jsonl"):
            read_outputs(path)


def test_crystals_in_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "crystals.jsonl"
    path.write_text(
        json.dumps(Structure(2.9 * np.eye(3), ["Al", "Ni"], [[0] * 3, [0.5] * 3]).as_dict()) + "\n"
    )
    assert read_outputs(path).mixtures == [{"Al": 1.0, "Ni": 1.0}]


def test_formulas(tmp_path: Path) -> None:
    csv = "Formula,x\nAlNi2,1\n?,2\n"
    for name, content in (("a.txt", "AlNi2\n?\n"), ("a.csv", csv), ("b.CSV", csv)):
        (tmp_path / name).write_text(content)
        assert read_outputs(tmp_path / name).mixtures == [{"Al": 1.0, "Ni": 2.0}, None]


def test_crystals(tmp_path: Path) -> None:
    (tmp_path / "one.cif").write_text(CIF)
    (tmp_path / "bad.cif").write_text("data_x\n")
    found = read_outputs(tmp_path)
    assert found.mixtures == [None, {"Al": 1.0, "Ni": 1.0}]
    path = tmp_path / "crystals.csv"
    path.write_text('id,cif\n1,"' + CIF + '"\n')
    assert read_outputs(path).mixtures == [{"Al": 1.0, "Ni": 1.0}]


def test_other_elements_are_counted() -> None:
    every = Outputs(None, [{"Al": 1.0}, None, {"Al": 1.0, "O": 1.0}])
    assert every.of_elements(("Al", "Ni")) == (Outputs(None, [{"Al": 1.0}, None]), 1)
    texts = Outputs([TEXT], None)
    assert texts.of_elements(("Al",)) == (texts, 0)


def test_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="no texts, compositions or crystals"):
        read_outputs(tmp_path / "empty.txt")
    (tmp_path / "odd.jsonl").write_text("{")
    with pytest.raises(ValueError, match="is no JSONL"):
        read_outputs(tmp_path / "odd.jsonl")
