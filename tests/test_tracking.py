"""Tests of crystaljax.tracking: what survives kills, resumes and a failing W&B."""

import json
import logging
import math
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from crystaljax.tracking import Tracker, TrackingConfig, read_metrics


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key of the person who runs the tests, and no way to ask for one."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_kind_of_scalar_is_written(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        values = {"a": 1, "b": np.float32(0.5), "c": jnp.ones(1), "d": math.nan, "e": True}
        tracker.log(values, step=3)
    assert lines(tmp_path) == [{"step": 3, "a": 1, "b": 0.5, "c": 1.0, "d": None, "e": True}]


@pytest.mark.parametrize("value", [np.zeros(2), "high", None, 1j])
def test_what_is_no_number_is_refused_by_name(tmp_path: Path, value: object) -> None:
    with Tracker(tmp_path) as tracker, pytest.raises(ValueError, match="'reward/mean'"):
        tracker.log({"reward/mean": value}, step=0)


def test_resuming_leaves_every_step_once(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        for step in range(10):
            tracker.log({"loss": 1.0}, step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "lo')  # what a kill in the middle of a write leaves
    with Tracker(tmp_path, resume_step=6) as tracker:
        for step in range(7, 12):
            tracker.log({"loss": 2.0}, step)
    rows = lines(tmp_path)
    assert [row["step"] for row in rows] == list(range(12))
    assert [row["loss"] for row in rows] == [1.0] * 7 + [2.0] * 5


def test_processes_that_share_a_folder_resume_beside_each_other(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log({"loss": 1.0}, 0)
        tracker.log({"loss": 2.0}, 5)
    with ThreadPoolExecutor(8) as workers:
        opened = list(workers.map(lambda _: Tracker(tmp_path, resume_step=0), range(40)))
    for tracker in opened:
        tracker.close()
    assert lines(tmp_path) == [{"step": 0, "loss": 1.0}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_lines_of_another_process_survive_a_resume_that_drops_none(tmp_path: Path) -> None:
    with Tracker(tmp_path) as first:
        first.log({"loss": 1.0}, 0)
        with Tracker(tmp_path, resume_step=0):
            first.log({"loss": 2.0}, 1)
    assert [row["loss"] for row in lines(tmp_path)] == [1.0, 2.0]


def test_resuming_without_a_file_starts_one(tmp_path: Path) -> None:
    with Tracker(tmp_path, resume_step=5) as tracker:
        tracker.log({"loss": 1.0}, 6)
    assert len(lines(tmp_path)) == 1


def test_a_new_run_keeps_the_metrics_of_earlier_ones(tmp_path: Path) -> None:
    for value in range(3):
        with Tracker(tmp_path) as tracker:
            tracker.log({"value": value}, 0)
    assert lines(tmp_path) == [{"step": 0, "value": 2}]
    kept = [tmp_path / f"metrics.{number}.jsonl" for number in (1, 2)]
    assert [json.loads(path.read_text())["value"] for path in kept] == [0, 1]


def test_lines_survive_a_kill(tmp_path: Path) -> None:
    script = f"""
        import os, signal
        from crystaljax.tracking import Tracker
        tracker = Tracker({str(tmp_path)!r})
        for step in range(5):
            tracker.log({{"loss": step}}, step)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert run.returncode != 0
    assert [row["loss"] for row in lines(tmp_path)] == list(range(5))


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_index", lambda: 1)
    with Tracker(tmp_path / "run", TrackingConfig(mode="offline")) as tracker:
        tracker.log({"loss": 1.0}, 0)
    assert not (tmp_path / "run").exists()


def test_read_metrics(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log({"loss": 2.0}, 0)
        tracker.log({"loss": math.inf, "valid": 0.5}, 1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step"')
    series = read_metrics(tmp_path)
    np.testing.assert_array_equal(series["loss"], [[0, 2], [1, math.nan]])
    np.testing.assert_array_equal(series["valid"], [[1, 0.5]])


def test_offline_run_with_table_pictures_and_artifacts(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    picture = tmp_path / "crystal.png"
    Figure().savefig(picture)
    folder = tmp_path / "run"
    config = TrackingConfig(mode="offline", group="study", tags=("test",), name="a run")
    with Tracker(folder, config, {"seed": 1}) as tracker:
        assert tracker.mode == "offline"
        assert tracker.run_id
        tracker.log({"loss": 1.0}, 0)
        columns = {"formula": ["NaCl", "C"], "e_above_hull": np.array([0.0, 0.1])}
        tracker.log_table("structures", columns, 0, pictures=[picture, None])
        tracker.log_images({"figure": picture}, 0)
        tracker.log_artifact(picture, "pictures", "structures")
        tracker.log_artifact(tmp_path / "run" / "metrics.jsonl", "metrics", "metrics")
        with pytest.raises(ValueError, match="2 rows, 1 pictures"):
            tracker.log_table("structures", columns, 0, pictures=[picture])
        with pytest.raises(FileNotFoundError, match="no-checkpoint"):
            tracker.log_artifact(tmp_path / "no-checkpoint", "model", "model")
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert list(folder.glob("wandb/offline-run-*/files/media/table/structures*"))
    assert len(lines(folder)) == 1


def test_run_id_is_kept_on_resume(tmp_path: Path) -> None:
    config = TrackingConfig(mode="offline", run_id="abc123")
    with Tracker(tmp_path, config, resume_step=0) as tracker:
        assert tracker.run_id == "abc123"
    assert Tracker(tmp_path, TrackingConfig(run_id="abc123"), resume_step=0).run_id == "abc123"


def test_a_relative_folder_is_one_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's service keeps the working directory that it was started in."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with Tracker("out", TrackingConfig(mode="offline")) as tracker:
            tracker.log({"x": 1.0}, 1)
        assert list((tmp_path / name / "out").glob("wandb/offline-run-*/*.wandb"))


def test_online_without_a_key_falls_to_offline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        config = TrackingConfig(mode="online", timeout=5)
        with Tracker(tmp_path, config) as tracker:
            assert tracker.mode == "offline"
            tracker.log({"loss": 1.0}, 0)
    assert "no W&B online" in caplog.text
    assert "offline" in caplog.text
    assert len(lines(tmp_path)) == 1


def test_wandb_failing_at_the_start_or_later_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    class Broken:
        id = "broken"
        offline = True

        def log(self, *_: object, **__: object) -> None:
            raise wandb.Error("the service is gone")

    with monkeypatch.context() as patch:
        patch.setattr(wandb, "init", lambda **_: Broken())
        with Tracker(tmp_path / "later", TrackingConfig(mode="offline")) as tracker:
            for step in range(3):
                tracker.log({"loss": 1.0}, step)
            assert tracker.mode == "disabled"
    assert len(lines(tmp_path / "later")) == 3
    assert "the service is gone" in caplog.text

    def fail(**_: object) -> None:
        raise wandb.Error("no service")

    monkeypatch.setattr(wandb, "init", fail)
    with Tracker(tmp_path / "start", TrackingConfig(mode="online")) as tracker:
        tracker.log({"loss": 1.0}, 0)
        assert tracker.mode == "disabled"
    assert "tracked locally alone" in caplog.text


def test_an_exception_marks_the_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    codes = []

    class Run:
        id = "x"
        offline = True

        def finish(self, exit_code: int) -> None:
            codes.append(exit_code)

    monkeypatch.setattr(wandb, "init", lambda **_: Run())
    with pytest.raises(KeyError), Tracker(tmp_path, TrackingConfig(mode="offline")):
        raise KeyError
    with Tracker(tmp_path, TrackingConfig(mode="offline")):
        pass
    assert codes == [1, 0]


def test_importing_brings_no_wandb() -> None:
    code = "import crystaljax.tracking, sys; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
