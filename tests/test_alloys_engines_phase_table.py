"""Figure 9's table of phases, written and read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from alloy_tables import b2, bcc, liquid, sigma, table

from crystaljax.alloys.composition import master, read_candidate
from crystaljax.alloys.engines.phase_table import (
    COLUMNS,
    PhaseTableError,
    read_phase_table,
    write_phase_table,
)
from crystaljax.alloys.engines.table import composition_key, write_table
from crystaljax.alloys.engines.thermodynamics import Equilibria, Row
from crystaljax.alloys.lattice import BCC
from crystaljax.alloys.reward import AlloyConfig, AlloyReward, EngineConfig
from crystaljax.alloys.rule_rewards import RulesConfig
from crystaljax.alloys.rule_rewards import rule_rewards as rewards

PAPER = """\
BCC,B2,B2 Volume,Temperature,Quantity,Phase,IsOrdered,Lattice Parameter
Cr33Fe67,MnAl2Fe,61.65,373.15,0.16,BCC_B2#1,0,2.91
Cr33Fe67,MnAl2Fe,61.65,373.15,0.83,BCC_B2#2,1,2.93
Cr33Fe67,MnAl2Fe,61.65,1073.15,1,BCC_B2#2,1,2.99
Cr33Fe67,MnAl2Fe,61.65,1173.15,1,BCC_B2#2,1,3.01
Cr33Fe67,MnAl2Fe,61.65,2273.15,1,LIQUID#1,,
"""
"""The rows that the paper shows."""

TEXT = "<BCC>Cr33Fe67</BCC> <B2>MnAl2Fe</B2> <B2_Volume>61.65</B2_Volume>"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "figure_9.csv"
    path.write_text(PAPER)
    return path


def test_the_paper_s_rows(file: Path, tmp_path: Path) -> None:
    candidates, equilibria = read_phase_table(file)
    assert [str(one) for one in candidates] == [TEXT]
    np.testing.assert_allclose(equilibria.temperatures, [373.15, 1073.15, 1173.15, 2273.15])
    np.testing.assert_allclose(equilibria.amount("bcc", ordered=True), [[0.83, 1, 1, 0]])
    judged = rewards(equilibria)
    # B2 forms first on cooling: -100; the mismatch is 0.02 Å.
    assert judged.value[0] == pytest.approx(-100.02)
    again = tmp_path / "again.csv"
    write_phase_table(again, candidates, equilibria)
    assert again.read_text() == PAPER


def test_as_an_engine(file: Path) -> None:
    engine = EngineConfig(str(file), "table")
    temperatures = (373.15, 1073.15, 1173.15, 2273.15)
    config = AlloyConfig(engine, temperatures=temperatures)
    with AlloyReward(config) as judge:
        found, limits = judge.judge_texts([TEXT]), judge.limits
    assert found.value[0] == pytest.approx(-100.02)
    # Lattice parameters are the table's, not the model's; what its database lacks is unknown.
    np.testing.assert_array_equal(found.info["bound"], found.value)
    assert np.isnan([*found.info["missing"], *found.info["extrapolated"]]).all()
    assert limits == [
        "It is not known which interactions of elements figure_9.csv lacks.",
        "The cautious reward has no error of lattice parameters taken off, and no rule is in doubt"
        " in it, whatever figure_9.csv lacks.",
    ]
    upper = file.rename(file.with_name("FIGURE_9.CSV"))
    with AlloyReward(replace(config, engine=EngineConfig(str(upper), "table"))) as judge:
        np.testing.assert_array_equal(judge.judge_texts([TEXT]).value, found.value)
    write_table(file.with_suffix(".npz"), read_phase_table(upper)[1])
    kept = EngineConfig(str(file.with_suffix(".npz")), "table")
    with AlloyReward(replace(config, engine=kept)) as judge:  # which may be the model's
        assert judge.judge_texts([TEXT]).info["bound"][0] == pytest.approx(-100.02 - BCC.error)


def test_round_trip_keeps_the_rewards(tmp_path: Path) -> None:
    candidate, _ = read_candidate("<BCC>Cr</BCC> <B2>AlNi</B2> <B2_Volume>50</B2_Volume>")
    assert candidate is not None
    points = [
        [bcc(0.3, 2.91), bcc(0.3, 2.92), b2(0.4, 2.93)],
        [b2(0.4, 2.93), bcc(0.6, 2.90)],
        "it failed",
        [bcc(0.95, 2.96), sigma(0.05)],
        [liquid(1.0)],
    ]
    path = tmp_path / "phases.csv"
    one = table(points)
    write_phase_table(path, [candidate], one)
    lines = path.read_text().splitlines()
    assert lines[0].split(",") == list(COLUMNS)
    assert [line.split(",")[5] for line in lines[1:]] == [
        *("BCC_B2#1", "BCC_B2#2", "BCC_B2#3", "BCC_B2#1", "BCC_B2#3", ""),
        *("BCC_B2#1", "SIGMA#1", "LIQUID#1"),
    ]
    back, read = read_phase_table(path)
    assert back == [candidate]
    assert read.solved.tolist() == one.solved.tolist()
    assert composition_key(dict(zip(read.elements, read.compositions[0], strict=True))) == (
        composition_key(master(candidate))
    )
    for name in ("kind", "ordered", "fraction", "lattice"):
        sort = [np.lexsort((t.fraction, t.ordered, t.step)) for t in (one, read)]
        np.testing.assert_array_equal(getattr(one, name)[sort[0]], getattr(read, name)[sort[1]])
    rules = RulesConfig(crossing=False)
    np.testing.assert_array_equal(rewards(read, rules).value, rewards(one, rules).value)


def test_names_that_are_not_thermo_calc_s(tmp_path: Path) -> None:
    candidate, _ = read_candidate(TEXT)
    assert candidate is not None
    point = [Row("A2_BCC#7", "bcc", False, 1.0, {"Cr": 1.0}, 2.9)]
    path = tmp_path / "phases.csv"
    one = Equilibria.from_points([{"Cr": 1.0}], [500.0], [[point]])
    write_phase_table(path, [candidate], one)
    assert "BCC_B2#1" in path.read_text()
    with pytest.raises(ValueError, match="1 candidates, but 2 equilibria"):
        write_phase_table(path, [candidate], table([point], [point]))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("Quantity", "Amount", "has no column Quantity"),
        (",0.16,", ",much,", "line 2: could not convert string to float: 'much'"),
        ("BCC_B2#1,0,", "BCC_B2#1,maybe,", "line 2: IsOrdered of BCC_B2#1 is 0 or 1, not 'maybe'"),
        ("BCC_B2#2,1,2.93", "BCC_B2#2,,2.93", "line 3: IsOrdered of BCC_B2#2 is 0 or 1, not ''"),
        ("61.65,2273.15,", "61.65,nan,", "line 6: Temperature is a finite number of K .* not nan"),
        ("61.65,2273.15,", "61.65,0,", "line 6: Temperature is a finite number of K .* not 0"),
        ("Cr33Fe67,MnAl2Fe,61.65,2273.15", "Qq,AlNi,50,2273.15", "line 6: the unknown element Qq"),
    ],
)
def test_what_is_no_table(file: Path, old: str, new: str, told: str) -> None:
    file.write_text(PAPER.replace(old, new))
    with pytest.raises(PhaseTableError, match=told):
        read_phase_table(file)


def test_a_candidate_that_occurs_twice(file: Path) -> None:
    once = read_phase_table(file)[1]
    file.write_text(PAPER + PAPER.partition("\n")[2])
    candidates, twice = read_phase_table(file)
    assert len(candidates) == 1 and twice.solved.all()
    np.testing.assert_array_equal(rewards(twice).value, rewards(once).value)


def test_an_empty_table(file: Path) -> None:
    file.write_text(PAPER.splitlines()[0])
    with pytest.raises(PhaseTableError, match="has no lines"):
        read_phase_table(file)
