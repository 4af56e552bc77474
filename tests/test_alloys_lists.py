"""Lists of phases: files, what is wrong with them, and that curating again gives the same."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from alloy_tables import b2, bcc

from crystaljax.alloys.composition import write_formula, write_percentages
from crystaljax.alloys.curation import PurityConfig, ServedPurity
from crystaljax.alloys.dataset import candidates
from crystaljax.alloys.engines.table import composition_key, write_table
from crystaljax.alloys.engines.thermodynamics import Equilibria, Point
from crystaljax.alloys.family import FAMILIES
from crystaljax.alloys.grid import GridConfig, Roles, b2_candidates, bcc_candidates
from crystaljax.alloys.lists import (
    ListError,
    PhaseLists,
    curate_lists,
    list_names,
    load_lists,
    write_lists,
)
from crystaljax.alloys.reward import AlloyConfig, AlloyReward, EngineConfig

GRID = GridConfig(Roles(("Al", "Cr"), ("Al",), ("Ni",)), parts=(2, 3), site_parts=(1,), most_site=1)


@pytest.fixture
def config(tmp_path: Path) -> PurityConfig:
    mixtures = [{"Cr": 1.0}, {"Al": 0.33, "Cr": 0.67}, {"Al": 0.5, "Cr": 0.5}, {"Al": 1, "Ni": 1}]
    points: list[list[Point]] = [[[bcc(1.0)]], [[bcc(1.0)]], [[bcc(0.9), b2(0.1)]], [[b2(1.0)]]]
    known = [{element: x / sum(m.values()) for element, x in m.items()} for m in mixtures]
    write_table(tmp_path / "t.npz", Equilibria.from_points(known, [900.0], points))
    return PurityConfig(EngineConfig(str(tmp_path / "t.npz"), "table"), (900.0,))


def test_lists_are_written_and_read(config: PurityConfig, tmp_path: Path) -> None:
    lists = curate_lists(config, GRID)
    assert [write_percentages(one) for one in lists.bcc] == ["Cr", "Al33Cr67"]
    assert [write_formula(one) for one in lists.b2] == ["AlNi"]
    assert lists.elements == ("Al", "Cr", "Ni")
    assert lists.provenance["tried"] == {"bcc": 5, "b2": 1}
    assert lists.provenance["failed"] == dict.fromkeys(
        ["Al", "Al67Cr33"], "the composition is not in the table"
    )
    write_lists(tmp_path / "mine.json", lists)
    back = load_lists(tmp_path / "mine.json")
    assert keys(back) == keys(lists)
    for name in ("engine", "grid", "purity", "temperatures", "lattice", "provenance", "elements"):
        assert getattr(back, name) == getattr(lists, name)


def keys(lists: PhaseLists) -> tuple[list[str], list[str]]:
    return [composition_key(x) for x in lists.bcc], [composition_key(x) for x in lists.b2]


def test_elements_that_the_engine_lacks(config: PurityConfig) -> None:
    grid = GridConfig(Roles(("Cr", "W"), ("Al",), ("Ru",)))
    with pytest.raises(ValueError, match=r"t\.npz has no Ru, W, only Al, Cr, Ni: choose"):
        curate_lists(config, grid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "lists of version 9, not 1"),
        ({"bcc": ["Qq3"]}, "unknown element Qq"),
        ({"grid": {}}, "roles"),
        ({"engine": {"nothing": 1}}, "nothing"),
        (None, "no lists of phases"),
    ],
)
def test_files_that_are_none(
    config: PurityConfig, tmp_path: Path, change: dict | None, message: str
) -> None:
    path = tmp_path / "mine.json"
    write_lists(path, curate_lists(config, GRID))
    text = "[" if change is None else json.dumps(json.loads(path.read_text()) | change)
    path.write_text(text)
    with pytest.raises(ListError, match=message):
        load_lists(path)


def test_lists_and_rewards_are_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    elements = ("Al", "Co", "Cr", "Ni", "Si")
    points: list[list[Point]] = [[[bcc(1.0)]]]
    path = tmp_path / "other.npz"
    write_table(path, Equilibria.from_points([dict.fromkeys(elements, 0.2)], [900.0], points))
    config = AlloyConfig(EngineConfig(str(path), "table"), temperatures=(900.0,))
    with AlloyReward(config) as reward:
        with caplog.at_level(logging.WARNING):
            load_lists("alcocrni").check(reward)
        assert "alcocrni.tdb (calphad) found single are judged by" in caplog.text
        with pytest.raises(ValueError, match=r"no Fe, Mn, Ti, only Al, Co, Cr, Ni, Si: choose"):
            load_lists("al-fe-mn-ti").check(reward)
        silicon = replace(load_lists("alcocrni"), grid=GridConfig(Roles(("Si",), ("Al",), ("Ni",))))
        with pytest.raises(ValueError, match="no atomic volume is known of Si: mix by mole"):
            silicon.check(reward)
        gamma = replace(load_lists("alcocrni"), lattice="fcc")
        with pytest.raises(ValueError, match="the phases are fcc, and the family bcc-b2 is bcc"):
            gamma.check(reward)


def test_the_default_engine_judges_the_default_lists(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pycalphad")
    with AlloyReward() as reward:
        with caplog.at_level(logging.WARNING, "crystaljax.alloys.lists"):
            load_lists("alcocrni").check(reward)
        assert not caplog.text
        with pytest.raises(ValueError, match=r"alcocrni\.tdb has no Fe, Mn, Ti, only Al, Cr"):
            load_lists("al-fe-mn-ti").check(reward)


def test_unknown_names() -> None:
    with pytest.raises(ListError, match="no lists 'unobtainium': there are al-fe-mn-ti, alcocrni"):
        load_lists("unobtainium")
    with pytest.raises(FileNotFoundError):
        load_lists("absent.json")


@pytest.mark.parametrize("name", list_names())
def test_shipped_lists_are_of_their_grid(name: str) -> None:
    lists = load_lists(name)
    on_grid = [composition_key(one) for one in bcc_candidates(lists.grid)]
    sites = [composition_key(one) for one in b2_candidates(lists.grid)]
    bcc_keys, b2_keys = keys(lists)
    # In the order of the grid, each once.
    assert bcc_keys == [key for key in on_grid if key in set(bcc_keys)]
    assert b2_keys == [key for key in sites if key in set(b2_keys)]
    assert lists.provenance["tried"] == {"bcc": len(on_grid), "b2": len(sites)}
    assert not lists.provenance["failed"]
    assert "/" not in lists.engine.database
    training, validation = candidates(lists.bcc, lists.b2)
    assert len(training) >= 500
    assert len(validation) >= 50


def test_there_is_enough_to_learn_from() -> None:
    lists = load_lists("alcocrni")
    assert len(candidates(lists.bcc, lists.b2)[0]) >= 5000


def test_a_sample_is_found_again() -> None:
    """Of each list three phases, and three that were left out."""
    pytest.importorskip("pycalphad")
    lists = load_lists("alcocrni")
    random = np.random.default_rng(0)
    grids = {"bcc": bcc_candidates(lists.grid), "b2": b2_candidates(lists.grid)}
    with ServedPurity(PurityConfig(lists.engine, lists.temperatures)) as judge:
        for phase, listed in zip(grids, map(set, keys(lists)), strict=True):
            few = [
                composition_key(one)
                for one in grids[phase]
                if one.keys() <= {"Al", "Cr"} or one.keys() <= {"Al", "Ni"}
            ]
            sample = [
                str(key)
                for group in (listed & set(few), set(few) - listed)
                for key in random.permutation(sorted(group))[:3]
            ]
            assert len(sample) >= 2
            judged = judge.served(sample)  # type: ignore[arg-type]  # mixtures, not crystals
            single = judged.info[phase] > lists.purity
            assert single.tolist() == [key in listed for key in sample]


@pytest.mark.slow
@pytest.mark.parametrize("name", list_names())
def test_shipped_lists_are_found_again(name: str) -> None:
    """An eighth of each grid: `curate_alloys.py` makes the whole, in 15 minutes on one core."""
    pytest.importorskip("pycalphad")
    lists = load_lists(name)
    grids = {"bcc": bcc_candidates(lists.grid), "b2": b2_candidates(lists.grid)}
    family = next(name for name, one in FAMILIES.items() if one.lattice.kind == lists.lattice)
    with ServedPurity(PurityConfig(lists.engine, lists.temperatures, family=family)) as judge:
        for phase, listed in zip(grids, map(set, keys(lists)), strict=True):
            sample = [composition_key(one) for one in grids[phase][::8]]
            judged = judge.served(sample)  # type: ignore[arg-type]  # mixtures, not crystals
            single = judged.info[phase] > lists.purity
            assert single.tolist() == [key in listed for key in sample]
