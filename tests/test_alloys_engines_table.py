"""Tables of equilibria in files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from alloy_tables import MIXTURE, b2, bcc, liquid, table
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.alloys.engines.table import (
    TableEngine,
    TableError,
    composition_key,
    read_key,
    read_table,
    write_table,
)

POINTS = [[bcc(0.4), b2(0.6)], "it hung", [liquid(1.0)]]


def test_tables_come_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    equilibria = table(POINTS)
    write_table(path, equilibria)
    back = read_table(path)
    assert back.elements == equilibria.elements
    for name in ("compositions", "temperatures", "fraction", "contents", "lattice"):
        np.testing.assert_array_equal(getattr(back, name), getattr(equilibria, name))
    for name in ("reasons", "phase", "kind", "ordered", "step", "composition"):
        np.testing.assert_array_equal(getattr(back, name), getattr(equilibria, name))


def test_a_table_is_an_engine(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    write_table(path, table(POINTS))
    engine = TableEngine.read(path)
    shuffled = {"Ni": 0.3 + 1e-9, "Cr": 0.4, "Al": 0.3 - 1e-9}
    other = {"Al": 0.5, "Cr": 0.5}
    asked = [other, shuffled, {"Pu": 1.0}]
    found = engine.equilibria(asked, np.array([600.0, 400.0, 450.0]))
    np.testing.assert_array_equal(found.temperatures, [400, 450, 600])
    assert [r.phase for r in found.points(1)[2]] == ["LIQUID"]
    np.testing.assert_allclose(found.amount("bcc", True)[1], [0.6, np.nan, 0])
    assert found.reasons[0, 0] == "the composition is not in the table"
    assert found.reasons[1, 1] == "the temperature is not in the table"
    assert found.reasons[2, 0] == "the engine has no Pu"
    assert engine.identity != TableEngine(table(POINTS)).identity


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    path.write_text("no table")
    with pytest.raises(TableError, match=r"table\.npz: no table of equilibria"):
        read_table(path)
    np.savez(path, version=np.array(1), elements=np.array(["Al"]))
    with pytest.raises(TableError, match="it lacks compositions"):
        read_table(path)
    with pytest.raises(TableError):
        read_table(tmp_path / "absent.npz")


def test_tables_of_other_makers_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    good = table(POINTS)
    write_table(path, replace(good, fraction=np.where(good.ordered, np.nan, good.fraction)))
    back = read_table(path)
    np.testing.assert_array_equal(back.solved, [[0, 0, 1]])
    assert back.reasons[0, 0] == "phases whose fractions or compositions are no numbers"
    assert back.points(0)[0] == back.reasons[0, 0]
    for wrong in (
        replace(good, temperatures=good.temperatures[::-1]),
        replace(good, step=good.step + 7),
        replace(good, reasons=good.reasons[:, :2]),
    ):
        write_table(path, wrong)
        with pytest.raises(TableError, match=r"table\.npz: a damaged table"):
            read_table(path)


@pytest.mark.parametrize("amounts", [{"Al": np.nan, "Cr": 1.0}, {"Al": -1, "Cr": 2}, {"Al": 0}, {}])
def test_what_is_no_composition_has_no_key(amounts: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no composition"):
        composition_key(amounts)
    found = TableEngine(table(POINTS)).equilibria([amounts], np.array([400.0]))
    assert not found.solved.any()


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=6))
def test_the_key_of_what_a_key_says_is_the_same(amounts: list[float]) -> None:
    key = composition_key(dict(zip("ABCDEF", amounts, strict=False)))
    said = {part.split(":")[0]: float(part.split(":")[1]) for part in key.split()}
    assert sum(said.values()) == pytest.approx(1, abs=1e-12)
    assert composition_key(said) == key


def test_keys_do_not_depend_on_order_or_scale() -> None:
    key = composition_key(MIXTURE)
    assert key == "Al:0.3 Cr:0.4 Ni:0.3"
    assert composition_key({"Ni": 3, "Cr": 4, "Al": 3, "Co": 0}) == key
    assert composition_key({"Ni": 0.3, "Cr": 0.41, "Al": 0.29}) != key


@given(st.dictionaries(st.sampled_from(["Al", "Co", "Cr", "Ni"]), st.integers(1, 99), min_size=1))
def test_keys_are_read(amounts: dict[str, int]) -> None:
    mixture = read_key(composition_key(amounts))
    total = sum(amounts.values())
    assert mixture == pytest.approx({e: n / total for e, n in amounts.items()}, abs=2e-6)
    assert composition_key(mixture) == composition_key(amounts)
