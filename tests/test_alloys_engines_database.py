"""Reading and checking thermodynamic databases."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pycalphad")

from crystaljax.alloys.engines.database import (
    _ELEMENT,
    DatabaseError,
    OrderedPhase,
    _commands,
    _parse,
    _restrict,
    database_path,
    load_database,
    usable_phases,
)
from crystaljax.alloys.lattice import FCC

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
    assert (database.ordered.name, database.ordered.disordered) == ("BCC_B2", "BCC_A2")
    assert database.ordered.sublattices == (0, 1)
    assert database.liquids == ("LIQUID",)
    assert database.missing == ("Cr-Ni (BCC)", "Al-Cr (liquid)", "Cr-Ni (liquid)")
    assert "Cr-Ni (BCC), Al-Cr (liquid), Cr-Ni (liquid)" in caplog.text
    assert database.extrapolated == ("Al-Cr-Ni (BCC)", "Al-Cr-Ni (liquid)")
    assert load_database(small, ("Al", "Ni")).missing == ()
    assert not database.has_volumes


def test_ternaries_have_parameters_of_three_elements(small: Path) -> None:
    """On one site of the disordered part, or over the sites of the ordered one."""
    for parameter in ("L(BCC_A2,AL,CR,NI:VA;0)", "L(BCC_B2,AL:CR,NI:VA;0)"):
        small.write_text(SMALL + f"PARAMETER {parameter} 298.15 -1; 6000 N !\n")
        database = load_database(small)
        assert database.extrapolated == ("Al-Cr-Ni (liquid)",)
        assert "Cr-Ni (BCC)" in database.missing


def test_parameters_of_other_elements_are_not_read(small: Path) -> None:
    database = load_database(small, ("Al", "Ni"))
    assert len(database.source.search(lambda parameter: True)) == 6
    assert len(load_database(small).source.search(lambda parameter: True)) == 7


REMARKS = """
PHASE FCC_A1 % 2 1 1 ! of no matter here: "!" and text
CONSTITUENT FCC_A1 :AL,CR : VA : ! $ parameters from nowhere !
PARAMETER G(FCC_A1,AL:VA;0) 298.15 0; $ the reference
 6000 N ! 92Xyz parameters and elements of somebody !
PARAMETER G(FCC_A1,CR:VA;0) 298.15 7284;
 6000 N ! PARAMETER L(FCC_A1,AL,CR:VA;0) 298.15 -45900; 6000 N !
PARAMETER L(FCC_A1,AL,CR:VA;1) 298.15 -1; 6000 N !parameter L(FCC_A1,AL,CR:VA;2) 298.15 -2; 6000 N!
"""
"""Text after commands; and two commands on a line, of which pycalphad would drop the second."""


def test_remarks_and_byte_order_marks_are_no_commands(small: Path) -> None:
    small.write_bytes(b"\xef\xbb\xbf" + (SMALL.lstrip() + REMARKS).encode())
    source = load_database(small).source
    orders = [p["parameter_order"] for p in source.search(where_phase("FCC_A1"))]
    assert sorted(orders) == [0, 0, 0, 1, 2]
    assert load_database(small, ("Al", "Ni")).elements == ("Al", "Ni")


def where_phase(name: str) -> object:
    from tinydb import where

    return where("phase_name") == name


def test_a_file_with_remarks_is_read_as_pycalphad_does(small: Path) -> None:
    from pycalphad import Database

    lines = [
        line + " as in the source, 1998" if "PARA" in line else line for line in SMALL.split("\n")
    ]
    small.write_text("\r\n".join(lines))
    ours, theirs = load_database(small).source, Database(str(small))
    assert ours.phases == theirs.phases
    everything = lambda parameter: True  # noqa: E731
    assert len(ours.search(everything)) == len(theirs.search(everything)) == 7


@pytest.mark.slow
def test_all_files_that_pycalphad_brings_are_read_as_it_reads_them() -> None:
    from pycalphad import Database

    paths = sorted(database_path("COST507.tdb").parent.glob("*.tdb"))
    assert len(paths) > 30
    for path in paths:
        commands = _commands(path.read_text(encoding="utf-8"))
        held = {m[1].upper() for m in map(_ELEMENT.match, commands) if m}
        ours = _parse(path, _restrict(commands, held, tuple(held)))
        assert ours == Database(str(path)), path.name


def test_attached_contributions_get_their_hint(small: Path) -> None:
    attached = "ATTACH_CONTRIBUTION BCC_A2 ORDER_DISORDER"
    small.write_text(SMALL.replace("DIS_PART BCC_A2", attached))
    with pytest.raises(DatabaseError, match=r"ATTACH_CONTRIBUTION.*must be rewritten"):
        load_database(small)


IONIC = """
SPECIES AL+3 AL1/+3!
PHASE IONIC_LIQ:Y % 2 1 1 !
CONSTITUENT IONIC_LIQ:Y :AL+3 : VA,CR,NI : !
PARAMETER G(IONIC_LIQ,AL+3:VA;0) 298.15 -1000; 6000 N !
PARAMETER L(IONIC_LIQ,AL+3:VA,NI;0) 298.15 -100; 6000 N !
PARAMETER L(IONIC_LIQ,AL+3:VA,CR;0) 298.15 -100; 6000 N !
"""


def test_an_ionic_liquid_is_a_liquid_too(small: Path) -> None:
    small.write_text(SMALL + IONIC)
    database = load_database(small)
    assert database.liquids == ("IONIC_LIQ", "LIQUID")
    assert database.kind("IONIC_LIQ") == database.kind("LIQUID") == "liquid"
    assert database.kind("BCC_B2") == database.kind("BCC_A2") == "bcc"
    assert database.kind("FCC_A1") == "other"
    assert "Al-Cr (liquid)" not in database.missing
    assert load_database(small, exclude=["ionic_liq"]).liquids == ("LIQUID",)


ORDERED_FCC = """
TYPE_DEFINITION D GES A_P_D L12_FCC DIS_PART FCC_A1 !
TYPE_DEFINITION E GES A_P_D SIGMA_D8B NEVER_DIS SIGMA_DIS !
PHASE FCC_A1 % 2 1 1 !
CONSTITUENT FCC_A1 :AL,CR,NI : VA : !
PHASE L12_FCC %D 3 .75 .25 1 !
CONSTITUENT L12_FCC :AL,CR,NI : AL,CR,NI : VA: !
PHASE SIGMA_DIS % 1 1 !
CONSTITUENT SIGMA_DIS :CR,NI: !
PHASE SIGMA_D8B %E 2 10 20 !
CONSTITUENT SIGMA_D8B :CR,NI:CR,NI: !
PARAMETER G(FCC_A1,NI:VA;0) 298.15 -8000; 6000 N !
PARAMETER G(L12_FCC,NI:AL:VA;0) 298.15 -20000; 6000 N !
"""


def usable(path: Path, exclude: Sequence[str]) -> list[str]:
    database = load_database(path, exclude=exclude)
    return sorted(usable_phases(database.source, ["AL", "CR", "NI", "VA"]))


def test_phases_can_be_left_out(small: Path) -> None:
    small.write_text(SMALL + ORDERED_FCC)
    every = ["BCC_B2", "L12_FCC", "LIQUID", "SIGMA_D8B"]
    assert usable(small, []) == every
    # Without the ordered phase its disordered part is one of its own, but sigma's never is.
    assert usable(small, ["L12_FCC"]) == ["BCC_B2", "FCC_A1", "LIQUID", "SIGMA_D8B"]
    assert usable(small, ["SIGMA_D8B"]) == every[:3]
    assert usable(small, ["L12_FCC", "FCC_A1"]) == ["BCC_B2", "LIQUID", "SIGMA_D8B"]
    assert load_database(small, exclude=["l12_fcc"]).excluded == ("L12_FCC",)
    with pytest.raises(DatabaseError, match="FCC_A1 is the disordered part of L12_FCC"):
        load_database(small, exclude=["FCC_A1"])
    with pytest.raises(DatabaseError, match="no phase LAVES to leave out; its phases are BCC_A2"):
        load_database(small, exclude=["LAVES"])
    with pytest.raises(DatabaseError, match="no ordered B2 phase"):
        load_database(small, exclude=["BCC_B2"])
    with pytest.raises(DatabaseError, match="no liquid"):
        load_database(small, exclude=["LIQUID"])


def test_phases_of_another_lattice(small: Path) -> None:
    with pytest.raises(DatabaseError, match="no ordered L12 phase"):
        load_database(small, lattice=FCC)
    small.write_text(SMALL + ORDERED_FCC.replace(".75 .25", ".25 .75"))
    database = load_database(small, lattice=FCC)
    assert database.ordered == OrderedPhase("L12_FCC", "FCC_A1", (1, 0))
    assert [database.kind(name) for name in ("L12_FCC", "FCC_A1", "BCC_B2")] == [
        *("fcc", "fcc"),
        "other",
    ]
    assert "Al-Cr (FCC)" in database.missing
    assert load_database(small).ordered.name == "BCC_B2"


def test_a_partition_that_the_file_does_not_declare(small: Path) -> None:
    """As DIS_PART does: the same energy at the same site fractions."""
    from pycalphad import calculate

    declared = load_database(small)
    small.write_text(
        "\n".join(x for x in SMALL.split("\n") if "DIS_PART" not in x).replace("%C", "%")
    )
    with pytest.raises(DatabaseError, match=r"no ordered B2 phase.*or name the two phases"):
        load_database(small)
    named = load_database(small, partition=("bcc_b2", "BCC_A2"))
    assert named.ordered == declared.ordered
    energies = [
        calculate(one.source, ["AL", "NI", "VA"], "BCC_B2", T=900, P=1e5, N=1, output="GM", pdens=5)
        for one in (declared, named)
    ]
    np.testing.assert_allclose(*(energy.GM.values for energy in energies))
    with pytest.raises(DatabaseError, match="a partition is an ordered phase and its disordered"):
        load_database(small, partition=("BCC_B2", "BCC_DISL"))


def test_a_disordered_part_of_two_phases_stays_theirs(small: Path) -> None:
    second = "\n".join(line for line in ORDERED_FCC.split("\n") if "L12_FCC" in line)
    second = second.replace("L12_FCC", "L10_FCC").replace("N D GES", "N F GES").replace("%D", "%F")
    small.write_text(SMALL + ORDERED_FCC + second)
    for out, stays in [("L10_FCC", "L12_FCC"), ("L12_FCC", "L10_FCC")]:
        assert usable(small, [out]) == ["BCC_B2", stays, "LIQUID", "SIGMA_D8B"]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("FCC_A1 :AL,CR,NI", "FCC_A1 :AL,NI", "L12_FCC is a superset of FCC_A1"),
        ("FCC_A1 % 2 1 1", "FCC_A1 % 2 1 3", "L12_FCC .ValueError.* interstitial"),
        ("SIGMA_D8B :CR,NI:CR,NI:", "SIGMA_D8B :CR,NI:", "SIGMA_D8B .2 sublattices, .* of 1"),
        ("CONSTITUENT SIGMA_D8B :CR,NI:CR,NI: !", "", "SIGMA_D8B .2 sublattices, .* of 0"),
        ("L(BCC_A2,AL,CR:VA;0)", "L(LIQUID,AL,CR,NI;3)", "LIQUID .IndexError"),
    ],
)
def test_phases_that_cannot_be_modelled_are_named_at_load(
    small: Path, old: str, new: str, named: str
) -> None:
    small.write_text((SMALL + ORDERED_FCC).replace(old, new))
    with pytest.raises(DatabaseError, match=f"cannot model {named}.*leave these phases out"):
        load_database(small)
    if phase := re.match("(L12|SIGMA)_[A-Z0-9]*", named):
        assert phase[0] not in usable(small, [phase[0]])


def test_functions_that_are_not_defined_are_named(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small.write_text(SMALL.replace("298.15 -1000;", "298.15 -1000+GHSERAL#;"))
    with caplog.at_level(logging.WARNING):
        load_database(small)
    assert "count as zero: GHSERAL (LIQUID)" in caplog.text


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
