"""Conditions from tables and JSON lines, and errors that name the line."""

from pathlib import Path

import pandas as pd
import pytest

from crystaljax.conditions import Condition
from crystaljax.data.condition_files import read_conditions


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "asked.csv"
    path.write_text(
        "formula,formula_units,elements,required,space_group,template,properties.band_gap\n"
        "SrTiO3,1,,,221,,\nNaCl,,,,216 225,,1.5\n,,Fe O,Fe,,a a b,\n,,,,,,\n"
    )
    assert read_conditions(path) == [
        Condition(formula="SrTiO3", formula_units=1, space_group=221),
        Condition(formula="NaCl", space_group=(216, 225), properties={"band_gap": 1.5}),
        Condition(elements=("Fe", "O"), required=("Fe",), template=("a", "a", "b")),
        Condition(),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_of_spreadsheets(tmp_path: Path, encoding: str) -> None:
    """Their byte order marks are no part of the first column's name."""
    path = tmp_path / "asked.csv"
    path.write_text("formula,space_group\r\nSrTiO3,221\r\n", encoding=encoding)
    assert read_conditions(path) == [Condition(formula="SrTiO3", space_group=221)]


def test_symbols_of_space_groups(tmp_path: Path) -> None:
    path = tmp_path / "asked.csv"
    path.write_text("formula,space_group\nSrTiO3,Pm-3m\nNaCl,Fm-3m 225 P2_1/c\n")
    assert read_conditions(path) == [
        Condition(formula="SrTiO3", space_group=221),
        Condition(formula="NaCl", space_group=(225, 14)),
    ]


@pytest.mark.parametrize("cell", ["Fe O", '"Fe,O"', '"Fe, O"', "Fe-O"])
def test_lists_of_elements(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "asked.csv"
    path.write_text(f"elements,required\n{cell},O\n")
    assert read_conditions(path) == [Condition(elements=("Fe", "O"), required=("O",))]


def test_a_table_by_pandas(tmp_path: Path) -> None:
    """It writes whole numbers as 225.0 if the column has empty cells."""
    path = tmp_path / "asked.csv"
    table = {"formula": ["NaCl", "TiO2"], "formula_units": [None, 2], "space_group": [225, None]}
    pd.DataFrame(table).to_csv(path, index=False)
    assert "225.0" in path.read_text()
    assert read_conditions(path) == [
        Condition(formula="NaCl", space_group=225),
        Condition(formula="TiO2", formula_units=2),
    ]


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text(
        '{"formula": "NaCl", "space_group": 225}\n\n'
        '{"elements": ["Fe", "O"], "space_group": [1, 2], "properties": {"band_gap": 2}}\n'
    )
    assert read_conditions(path) == [
        Condition(formula="NaCl", space_group=225),
        Condition(elements=("Fe", "O"), space_group=(1, 2), properties={"band_gap": 2.0}),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "formula\nNaCl\nXx2\n", "line 3: .*Xx"),
        ("a.csv", "formula,color\nNaCl,red\n", "line 2: color: the fields are formula"),
        ("a.csv", "space_group\nPm-3q\n", "line 2: .*Pm-3q"),
        ("a.csv", "space_group\n225.5\n", "line 2: .*225.5"),
        ("a.csv", "formula,formula_units\nNaCl,1.5\n", "line 2: 1.5 is no whole number"),
        ("a.csv", "formula\nNaCl,2\n", "line 2: None: the fields are"),
        ("a.csv", "formula\n", "no conditions"),
        ("a.jsonl", "{}\nNaCl\n", "line 2 is no JSON"),
        ("a.jsonl", "[1]\n", "line 1 is no object"),
        ("a.jsonl", '{"space_group": {"a": 1}}\n', "line 1"),
        ("a.txt", "NaCl\n", r"in \.csv or \.jsonl"),
    ],
)
def test_errors_name_the_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_conditions(path)
