"""The pool: order, deaths, time limits, mistakes, and what is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pool_rewards import (
    Commands,
    make_cell_edge,
    make_death,
    make_nothing,
    make_slow,
    make_threads,
    make_too_short,
)
from test_rewards_base import batch_of

from crystaljax.rewards import Reward
from crystaljax.rewards.base import RewardError
from crystaljax.rewards.pool import Pool, PoolConfig, WorkerError

TWO = PoolConfig(kind="processes", n_workers=2, chunk=4, attempts=1, timeout=60)
OK = [f"ok {n}" for n in range(20)]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Two workers with `Commands`, which the tests may kill."""
    with Pool(Commands, TWO) as pool:
        yield pool


def gone(pid: int, patience: float = 300) -> bool:
    """Whether a process has ended, or does so soon; one that nobody waited for has ended too."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_results_come_in_order_and_from_both_workers(tmp_path: Path) -> None:
    with Pool(partial(Commands, tmp_path), TWO) as pool:
        batch = pool([f"meet {n}" for n in range(40)])
    np.testing.assert_array_equal(batch.value, np.arange(40))
    assert batch.ok.all() and not batch.transient.any()
    assert len(set(batch.info["pid"])) == 2
    assert os.getpid() not in batch.info["pid"]


def test_workers_stay_between_batches(pool: Pool) -> None:
    first = pool([f"sleep {n}" for n in range(20)])
    second = pool([f"sleep {n}" for n in range(20)])
    assert set(second.info["pid"]) <= set(first.info["pid"])


def test_no_items_and_one_item(pool: Pool) -> None:
    assert len(pool([])) == 0
    np.testing.assert_array_equal(pool(["ok 5"]).value, [5])


def test_crystals_as_inline_and_closed_pools() -> None:
    crystals = batch_of(11).with_slots(3)
    inline = Pool(make_cell_edge)(crystals)
    pool = Pool(make_cell_edge, replace(TWO, n_workers=1))
    batch = pool(crystals)
    np.testing.assert_array_equal(batch.value, inline.value)
    assert set(inline.info["pid"]) == {os.getpid()}
    assert os.getpid() not in batch.info["pid"]
    pool.close()
    assert gone(int(batch.info["pid"][0]))
    with pytest.raises(WorkerError, match="closed"):
        pool(crystals)


def test_items_that_end_their_worker_are_found(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    texts = list(OK)
    texts[8:12] = ["kill 8", "exit 9", "bad 10", "segfault 11"]
    batch = pool(texts)
    np.testing.assert_array_equal(np.flatnonzero(~batch.ok), [8, 9, 10, 11])
    np.testing.assert_array_equal(batch.value[batch.ok], np.delete(np.arange(20), range(8, 12)))
    assert batch.reasons[8:12] == [
        "worker died (signal 9)",
        "worker died (exit code 3)",
        "ValueError: 10 is bad",
        "worker died (signal 11)",
    ]
    np.testing.assert_array_equal(batch.transient[8:12], [True, True, False, True])
    assert "worker died (signal 9) on items 8 to 11" in caplog.text


def test_workers_killed_from_outside_lose_no_item(tmp_path: Path) -> None:
    with Pool(partial(Commands, tmp_path), TWO) as pool:
        pids = {int(pid) for pid in pool([f"meet {n}" for n in range(8)]).info["pid"]}
        (tmp_path / "log").unlink()

        def kill() -> None:
            while not (tmp_path / "log").exists():
                time.sleep(0.01)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            (tmp_path / "go").touch()

        killer = threading.Thread(target=kill)
        killer.start()
        batch = pool([f"wait {n}" for n in range(48)])
        killer.join()
    assert len(pids) == 2
    assert batch.ok.all()
    np.testing.assert_array_equal(batch.value, np.arange(48))
    assert not pids & set(batch.info["pid"])  # new workers did it all


@pytest.mark.slow
def test_workers_that_died_while_idle_are_replaced(pool: Pool) -> None:
    pids = {int(pid) for pid in pool(OK).info["pid"]}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert all(gone(pid) for pid in pids)
    batch = pool(OK)
    assert batch.ok.all()
    assert not set(batch.info["pid"]) & pids


def test_whatever_is_raised_costs_its_item(pool: Pool) -> None:
    texts = [*OK, "bug 7", "quit 8"]
    expected: list[str | None] = [None] * len(OK)
    expected += ["TypeError: 7 met a bug", "SystemExit: 8 quits"]
    for judge in (pool, Pool(Commands)):
        batch = judge(texts)
        assert batch.reasons == expected
        assert batch.transient.tolist() == [reason is not None for reason in expected]
    assert pool(OK).ok.all()


@pytest.mark.slow
def test_several_attempts(tmp_path: Path) -> None:
    config = PoolConfig(kind="processes", n_workers=2, attempts=2, chunk=1)
    with Pool(partial(Commands, tmp_path), config) as pool:
        batch = pool(["once 1", "kill 2"])
    np.testing.assert_array_equal(batch.ok, [True, False])
    judged = (tmp_path / "log").read_text().split()
    assert sorted(judged) == ["1", "1", "2", "2"]


def test_time_limits_end_the_worker_and_its_programs(tmp_path: Path) -> None:
    config = PoolConfig(kind="processes", n_workers=2, chunk=1, attempts=1, timeout=3)
    with Pool(partial(Commands, tmp_path), config) as pool:
        batch = pool(["ok 0", "program 1", "ok 2", "hang 3", "ok 4"])
    np.testing.assert_array_equal(batch.value, [0, np.nan, 2, np.nan, 4])
    assert batch.reasons == [None, "timed out after 3 s", None, "timed out after 3 s", None]
    assert batch.transient[[1, 3]].all()
    assert gone(int((tmp_path / "program").read_text()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_nothing, "(?s)cannot build the reward.*FileNotFoundError: weights.pt is absent"),
        (make_death, r"worker died \(exit code 7\) before the reward was built, 2 times in a row"),
    ],
)
def test_a_reward_that_no_worker_can_build(make: Callable[[], Reward], message: str) -> None:
    config = PoolConfig(kind="processes", n_workers=1, attempts=2)
    with Pool(make, config) as pool, pytest.raises(WorkerError, match=message):
        pool(OK)


def test_a_reward_that_takes_forever_to_build() -> None:
    config = PoolConfig(kind="processes", n_workers=1, attempts=1, start_timeout=0.5)
    with Pool(make_slow, config) as pool, pytest.raises(WorkerError, match="timed out after"):
        pool(OK)


def test_a_reward_of_another_length_is_a_mistake() -> None:
    with pytest.raises(RewardError, match="3 values for 4 items"):
        Pool(make_too_short)(OK[:4])


def test_what_cannot_be_sent_to_processes_is_an_error() -> None:
    with pytest.raises(TypeError, match="make_reward cannot be sent to worker processes"):
        Pool(lambda: Commands(), TWO)  # noqa: PLW0108


@pytest.mark.parametrize("name", ["n_workers", "chunk", "attempts", "threads", "timeout"])
def test_settings_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"PoolConfig: {name} must be"):
        PoolConfig(**{name: 0})


def test_inline_has_the_semantics_of_a_worker() -> None:
    pool = Pool(Commands)
    batch = pool(["ok 1", "bad 2", "ok 3"])
    assert batch.reasons == [None, "ValueError: 2 is bad", None]
    with pytest.raises(FileNotFoundError, match="absent"):
        Pool(make_nothing)


@pytest.mark.slow
def test_workers_keep_to_their_threads() -> None:
    pytest.importorskip("torch")
    before = dict(os.environ)
    with Pool(make_threads, PoolConfig(kind="processes", n_workers=1, threads=1)) as pool:
        batch = pool(["any"])
    assert batch.value[0] == 1
    assert batch.info["platform"][0] != "cpu" or batch.info["eigen"][0] <= 1
    assert dict(os.environ) == before


SCRIPT = """
import signal
from functools import partial
from pathlib import Path

from pool_rewards import Commands

from crystaljax.rewards.base import RewardError
from crystaljax.rewards.pool import Pool, PoolConfig

if __name__ == "__main__":
    # A shell that runs tests in the background has them, and what they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pool = Pool(partial(Commands, Path()), PoolConfig(kind="processes", n_workers=1))
    Path("worker").write_text(str(int(pool(["ok 1"]).info["pid"][0])))
    pool(["program 2"])
"""


def start_script(folder: Path) -> subprocess.Popen[str]:
    """A run whose pool waits for a program that its worker started."""
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_nothing_is_left_of_runs_that_are_ended(tmp_path: Path) -> None:
    runs = {sent: start_script(tmp_path / sent.name) for sent in (signal.SIGINT, signal.SIGKILL)}
    for sent, run in runs.items():
        folder = tmp_path / sent.name
        while not ((folder / "program").exists() and (folder / "program").read_text()):
            assert run.poll() is None, run.stderr and run.stderr.read()
            time.sleep(0.05)
        run.send_signal(sent)
        _, errors = run.communicate()  # all who can write to it have ended
        assert ("KeyboardInterrupt" in errors) == (sent == signal.SIGINT)
        assert all(gone(int((folder / name).read_text())) for name in ("worker", "program"))
