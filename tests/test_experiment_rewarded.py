"""A reward of a user's own in reports, and tried from the command line."""

import json
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scripts import SCRIPTS, load_script

from crystaljax.data.dataset import load
from crystaljax.evaluation.policies import Assessment
from crystaljax.evaluation.rates import MetricSet
from crystaljax.experiment.best import ReportConfig
from crystaljax.experiment.rewarded import Rewarded, best_of
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import Quantity
from crystaljax.user_messages import MISTAKE

FILE = """
from crystaljax.rewards.user import reward

@reward("NAME", unit="g/cm³")
def density(structure):
    if len(structure) > 30:
        raise ValueError("too large for me")
    return structure.density

def broken(structure):
    raise RuntimeError("no licence")
"""


@pytest.fixture
def values() -> Rewarded:
    before = RewardBatch.from_values(np.array([1.0, 2.0, np.nan, 4.0]))
    none = RewardBatch.from_values(np.full(2, np.nan))
    return Rewarded(Quantity("density", "g/cm³"), {"before": before, "after": none})


def test_quantiles_are_those_of_judged_samples(values: Rewarded) -> None:
    header, first, second = values.table().rows
    assert values.table().caption.startswith("density (g/cm³)")
    assert header == ["", "judged", "10 %", "25 %", "50 %", "75 %", "90 %", "mean", "largest"]
    quantiles = np.quantile([1, 2, 4], [0.1, 0.25, 0.5, 0.75, 0.9])
    assert first == ["before", "3 / 4", *(f"{x:.4g}" for x in (*quantiles, 7 / 3, 4))]
    assert second == ["after", "0 / 2", *["–"] * 7]


@pytest.fixture
def found() -> Assessment:
    """Four samples, one without an energy."""
    crystals = load("prototypes").crystals.to_numpy()[:4]
    columns = {
        "formula": np.array(list("ABCD")),
        "space_group": np.asarray(crystals.space_group),
        "e_above_hull": np.array([0.3, 0.1, 0.2, np.nan]),
        "e_above_hull_Another_1": np.array([0.4, 0.2, 0.3, 0.0]),
        "novel": np.array([True, False, True, True]),
        "cluster": np.arange(4),
    }
    return Assessment(crystals, columns["e_above_hull"], MetricSet(4, (), (), columns))  # type: ignore[arg-type]


def test_histograms_are_of_all_samples(values: Rewarded, found: Assessment) -> None:
    two = replace(found, crystals=found.crystals[:2], e_above_hull=found.e_above_hull[:2])
    figures = values.figures({"before": found, "after": two})
    (axes,) = figures["rewards"][0].axes
    assert axes.get_xlabel() == "density (g/cm³)"
    heights = [patch.get_data().values.sum() for patch in axes.patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(heights, [0.75, 0.75, 0, 0])
    (axes,) = figures["pareto"][0].axes
    assert axes.get_ylabel() == "density (g/cm³), higher is better"
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.1])  # B, better than A in both


def test_the_best_are_those_of_largest_reward(values: Rewarded, found: Assessment) -> None:
    best = best_of(found, "before", values).candidates()
    assert best is not None and best.caption == "Samples (before) of largest density"
    shown = {column.name: list(column.values) for column in best.columns}
    assert shown["formula"] == ["D", "B", "A"]
    assert shown["density (g/cm³)"] == [4.0, 2.0, 1.0]
    by_energy = best_of(found, "before", None).candidates()
    assert by_energy is not None and list(by_energy.columns[0].values) == ["B", "C", "A"]


def test_columns_are_chosen(values: Rewarded, found: Assessment) -> None:
    chosen = ("novel", "cluster", "reward", "e_above_hull_judge", "formula")
    best = best_of(found, "before", values, chosen).candidates()
    assert best is not None
    assert best.to_markdown()[:2] == [
        ["novel", "cluster", "density (g/cm³)", "e above hull Another 1 (eV/atom)", "formula"],
        ["yes", "3", "4.000", "0.000", "D"],
    ]


def test_unknown_columns_are_answered_with_those_there_are() -> None:
    ReportConfig(("formula", "novel")).check(["novel", "formula"])
    with pytest.raises(ValueError, match=r"there is no column 'mass'.* formula, novel"):
        ReportConfig(("mass",)).check(["formula", "novel"])
    with pytest.raises(ValueError, match="novel is named twice"):
        ReportConfig(("novel", "novel")).check(["formula", "novel"])


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Options of the quick start."""
    load_script("quickstart.py")
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        FILE.replace("NAME", f"density of {tmp_path.name}"), encoding="utf-8"
    )
    return "--output out --setup.sampling.batch-size 40"


def run(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *options.split()])
    runpy.run_path(str(SCRIPTS["quickstart.py"]), run_name="__main__")


@pytest.mark.slow
def test_a_reward_is_checked(
    files: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, f"{files} --setup.reward mine.py:density --check")
    said = " ".join(capsys.readouterr().out.split())
    assert "(g/cm³)" in said and "s a crystal" in said and "they are not bounded" in said
    assert not Path("out").exists()
    with pytest.raises(SystemExit):
        run(monkeypatch, f"{files} --setup.reward mine.py:broken --check")
    said = capsys.readouterr()
    assert "no licence" in said.out
    assert "none of" in said.err and "could be judged" in said.err
    # The run itself ends in its first step, with one line and the reasons.
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, f"{files} --setup.reward mine.py:broken --setup.n-samples 4")
    said = capsys.readouterr()
    assert caught.value.code == MISTAKE and "Traceback" not in said.err
    (line,) = [line for line in said.err.splitlines() if line.startswith("quickstart.py: ")]
    assert "no licence" in line and "--check" in line


@pytest.mark.slow
def test_a_report_is_of_the_reward(
    files: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = "--report.columns reward formula log_prob"
    with pytest.raises(SystemExit):
        run(monkeypatch, f"{files} {columns}")  # there is no reward of a user's own
    assert "no column 'reward'" in capsys.readouterr().err
    shutil.rmtree("out")
    small = "--setup.n-samples 16 --rl.n-steps 1 --rl.batch-size 8 --setup.stability.potential"
    run(monkeypatch, f"{files} --setup.reward mine.py:density {small} chgnet {columns}")
    report = json.loads(Path("out/report.json").read_text())
    name = Path("mine.py").read_text().split('"')[1]
    assert report["title"] == f"D{name[1:]} by PPO"
    caption = f"{name} (g/cm³): quantiles of the samples that were judged"
    assert [row[0] for row in report["tables"][caption]] == ["", "before PPO", "after PPO"]
    best = report["candidates"][f"{name} (g/cm³)"]
    assert best == sorted(best, reverse=True)
    assert list(report["candidates"])[1:] == ["formula", "log-probability (nats)", "CIF"]
    assert Path("out/rewards.png").is_file() and Path("out/pareto.png").is_file()
