"""Tests of crystaljax.experiment."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crystaljax.experiment.run_folder import SETTINGS_FILE, open_run, remade
from crystaljax.rewards.pool import PoolConfig
from crystaljax.tracking import TrackingConfig


@dataclass(frozen=True)
class Training:
    n_steps: int = 10
    limits: tuple[float, float] = (-float("inf"), 0.5)
    pool: PoolConfig = field(default_factory=PoolConfig)


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    output: Path = Path("runs/a")
    cache: Path | None = None
    seeds: tuple[int, ...] = (0,)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def finished(folder: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_same_settings_go_on(tmp_path: Path) -> None:
    folder = open_run(tmp_path / "runs" / "a", Config())
    (folder / "rl").mkdir()
    (folder / "rl" / "weights").write_text("trained for hours")
    before = finished(folder)
    assert open_run(folder, Config()) == folder
    elsewhere = Config(
        Training(pool=PoolConfig("processes", n_workers=2)),
        output=tmp_path,
        cache=tmp_path / "cache",
        tracking=TrackingConfig(mode="offline"),
    )
    open_run(folder, elsewhere)
    open_run(folder, Config(seeds=(0, 1)), vary=("seeds",))
    assert finished(folder) == before


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    open_run(tmp_path, Config())
    (tmp_path / "report.html").write_text("results")
    before = finished(tmp_path)
    other = Config(Training(n_steps=20), seeds=(1,))
    with pytest.raises(FileExistsError) as caught:
        open_run(tmp_path, other)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "training.n_steps is 10 there and 20 here" in message
    assert "seeds is [0] there and [1] here" in message
    assert "another output folder" in message and "settings there to go on" in message
    assert finished(tmp_path) == before


def test_many_differences_are_counted(tmp_path: Path) -> None:
    open_run(tmp_path, TrackingConfig())
    (tmp_path / "metrics.jsonl").write_text("{}")
    other = TrackingConfig("offline", "p", "e", "g", ("t",), "n", "r", 1.0)
    with pytest.raises(FileExistsError, match="and 3 more"):
        open_run(tmp_path, other)


def test_settings_of_another_version_are_refused(tmp_path: Path) -> None:
    open_run(tmp_path, Config())
    (tmp_path / "metrics.jsonl").write_text("{}")
    settings = json.loads((tmp_path / SETTINGS_FILE).read_text())
    settings["gone"] = 1
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(settings))
    with pytest.raises(FileExistsError, match=r"gone is 1 there and absent here"):
        open_run(tmp_path, Config())


def test_a_setting_that_there_was_not_yet_is_the_default(tmp_path: Path) -> None:
    open_run(tmp_path, Config())
    (tmp_path / "metrics.jsonl").write_text("{}")
    settings = json.loads((tmp_path / SETTINGS_FILE).read_text())
    del settings["training"]["n_steps"], settings["seeds"]
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(settings))
    open_run(tmp_path, Config())
    with pytest.raises(FileExistsError, match=r"n_steps is 10 there and 20 here"):
        open_run(tmp_path, Config(Training(n_steps=20)))
    with pytest.raises(FileExistsError, match=r"seeds is \[0\] there and \[1\] here"):
        open_run(tmp_path, Config(seeds=(1,)))


@dataclass(frozen=True)
class Judged:
    reward: str
    metrics: tuple[str, ...] = ()


def test_an_edited_reward_is_another_run(tmp_path: Path) -> None:
    """And so is an edited metric; a file that no setting names may change."""
    reward, metric, other = (tmp_path / f"{name}.py" for name in ("reward", "metric", "other"))
    for path in (reward, metric, other):
        path.write_text("def f(x): return 1.0")
    config, folder = Judged(f"{reward}:f", (f"{metric}:f",)), tmp_path / "run"
    open_run(folder, config)
    (folder / "metrics.jsonl").write_text("{}")
    other.write_text("")
    open_run(folder, config)
    for path in (reward, metric):
        before = path.read_text()
        path.write_text("def f(x): return 2.0")
        with pytest.raises(FileExistsError, match=rf"by other code: \S*{path.name} changed since"):
            open_run(folder, config)
        path.write_text(before)
    open_run(folder, config)


def test_a_run_that_finished_nothing_leaves_the_folder_new(tmp_path: Path) -> None:
    open_run(tmp_path, Config())
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "rl" / "checkpoints").mkdir(parents=True)
    other = dataclasses.replace(Config(), seeds=(7,))
    open_run(tmp_path, other)
    assert json.loads((tmp_path / SETTINGS_FILE).read_text())["seeds"] == [7]


@pytest.mark.parametrize("settings", [None, "{"])
def test_what_is_no_run_is_left_alone(tmp_path: Path, settings: str | None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if settings:
        (tmp_path / SETTINGS_FILE).write_text(settings)
    with pytest.raises(FileExistsError, match="another output folder, or move what is there away"):
        open_run(tmp_path, Config())
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_folder_made_again_replaces_the_former_when_whole(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with remade(tmp_path / "model") as folder:
            folder.mkdir()
            (folder / "weights").write_text(text)
    with pytest.raises(RuntimeError), remade(tmp_path / "model") as folder:
        folder.mkdir()
        (folder / "weights").write_text("half")
        raise RuntimeError
    assert (tmp_path / "model" / "weights").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
