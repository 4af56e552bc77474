"""The set-up of experiments on crystals: which potential judges beside the one that rewards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from crystaljax.experiment import crystals
from crystaljax.experiment.crystals import Setup, second_judge
from crystaljax.rewards import stability
from crystaljax.rewards.stability import StabilityConfig


@pytest.fixture(autouse=True)
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No potential is loaded, whichever extras there are."""
    monkeypatch.setattr(stability, "create_e_above_hull", lambda *_: None)
    monkeypatch.setattr(stability, "require_package", lambda _: None)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """SevenNet seems to be there."""
    monkeypatch.setattr(crystals, "find_spec", lambda name: name)


@pytest.mark.usefixtures("installed")
def test_sevennet_judges_where_another_potential_rewards() -> None:
    judge, said = second_judge(Setup(stability=StabilityConfig(relax_steps=7)))
    assert judge is not None
    assert judge.config == StabilityConfig("sevennet", relax_steps=7)
    assert "by chgnet, which rewards, and by sevennet" in said and "--setup.judge" in said


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("setup", "why"),
    [
        (Setup(reward="mine.py:reward"), "the reward is no potential's"),
        (Setup(stability=StabilityConfig("sevennet:7net-l3i5")), "sevennet rewards"),
    ],
)
def test_nobody_judges_twice(setup: Setup, why: str) -> None:
    judge, said = second_judge(setup)
    assert judge is None and why in said


@pytest.mark.usefixtures("installed")
def test_nor_against_a_hull_of_another_level(tmp_path: Path) -> None:
    hull = tmp_path / "hull.json"
    entries = [{"composition": {"Na": 1}, "energy": -1.2}]
    hull.write_text(json.dumps({"level": "matpes-pbe", "entries": entries}))
    setup = Setup(stability=StabilityConfig("matgl", str(hull)))
    judge, said = second_judge(setup)
    assert judge is None and "is of another level" in said
    judge, _ = second_judge(replace(setup, judge_hull="demonstration"))
    assert judge is not None


@pytest.mark.usefixtures("installed")
def test_a_broken_sevennet_costs_the_second_judge_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        if name == "sevennet":
            raise ImportError("no torch_scatter")

    monkeypatch.setattr(stability, "require_package", broken)
    judge, said = second_judge(Setup())
    assert judge is None and "sevennet does not load (ImportError: no torch_scatter)" in said


def test_without_sevennet_or_by_choice_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crystals, "find_spec", lambda _: None)
    judge, said = second_judge(Setup())
    assert judge is None and "crystaljax[sevenn]" in said
    assert second_judge(Setup(judge="")) == (None, "")
    judge, said = second_judge(Setup(judge="orb"))
    assert judge is not None and judge.config.potential == "orb" and said == ""
