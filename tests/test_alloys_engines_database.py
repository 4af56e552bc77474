"""Reading and checking thermodynamic databases."""

import logging
from pathlib import Path

import pytest

pytest.importorskip("pycalphad")

from crystaljax.alloys.engines.database import DatabaseError, database_path, load_database

SMALL = """
ELEMENT /- ELECTRON_GAS 0 0 0 !
ELEMENT VA VACUUM 0 0 0 !
ELEMENT AL FCC_A1 26.98 4577 28.3 !
ELEMENT CR BCC_A2 52.00 4050 23.6 !
ELEMENT NI FCC_A1 58.69 4787 29.8 !
$ a comment with ! in it
TYPE_DEFINITION % SEQ * !
TYPE_DEFINITION C GES A_P_D BCC_B2 DIS_PART BCC_A2 !
PHASE LIQUID:L % 1 1.0 !
CONSTITUENT LIQUID:L :AL,CR,NI : !
PHASE BCC_A2 % 2 1 3 !
CONSTITUENT BCC_A2 :AL,CR,NI : VA : !
PHASE BCC_B2 %C 3 .5 .5 3 !
CONSTITUENT BCC_B2 :AL,CR,NI : AL,CR,NI : VA: !
PARAMETER G(LIQUID,AL;0) 298.15 -1000; 6000 N !
PARAMETER G(BCC_A2,AL:VA;0) 298.15 0; 6000 N !
PARAMETER G(LIQUID,AL,NI;0) 298.15 -100000; 6000 N !
PARAMETER L(BCC_A2,AL,NI:VA;0) 298.15 -100000; 6000 N !
PARAMETER L(BCC_A2,AL,CR:VA;0) 298.15 -10000; 6000 N !
PARAMETER G(BCC_B2,AL:NI:VA;0) 298.15 -10000; 6000 N !
PARAMETER G(BCC_B2,NI:AL:VA;0) 298.15 -10000; 6000 N !
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.tdb"
    path.write_text(SMALL)
    return path


def test_phases_are_found_and_missing_binaries_named(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        database = load_database(small)
    assert database.elements == ("Al", "Cr", "Ni")
    assert (database.b2.name, database.b2.disordered) == ("BCC_B2", "BCC_A2")
    assert database.b2.sublattices == (0, 1)
    assert database.liquid == "LIQUID"
    assert database.missing == ("Cr-Ni (BCC)", "Al-Cr (liquid)", "Cr-Ni (liquid)")
    assert "Cr-Ni (BCC), Al-Cr (liquid), Cr-Ni (liquid)" in caplog.text
    assert load_database(small, ("Al", "Ni")).missing == ()
    assert not database.has_volumes


def test_parameters_of_other_elements_are_not_read(small: Path) -> None:
    database = load_database(small, ("Al", "Ni"))
    assert len(database.source.search(lambda parameter: True)) == 6
    assert len(load_database(small).source.search(lambda parameter: True)) == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("DIS_PART BCC_A2", "MAGNETIC -1 0.4", "no ordered B2 phase.*DIS_PART"),
        ("LIQUID", "SLAG", "no liquid"),
        ("298.15 -1000;", "298.15 -1000*;", "not a TDB that pycalphad can read"),
        (SMALL, "a letter, not a database", "it lacks two of the elements asked for"),
        (SMALL, "", "it lacks two of the elements asked for"),
    ],
)
def test_broken_files_are_told(small: Path, old: str, new: str, message: str) -> None:
    small.write_text(SMALL.replace(old, new))
    with pytest.raises(DatabaseError, match=message):
        load_database(small)


def test_absent_elements_and_files_are_told(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="lacks Ru; it has AL, CR, NI"):
        load_database(small, ("Al", "Ru"))
    with pytest.raises(DatabaseError, match=r"no database 'nothing\.tdb'"):
        database_path("nothing.tdb")
    with pytest.raises(DatabaseError, match="no database"):
        database_path(tmp_path / "alcocrni.tdb")
    assert database_path("alcocrni.tdb").is_file()
