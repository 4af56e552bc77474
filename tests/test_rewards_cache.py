"""Rewards on disk: nothing computed twice, and files, disks and processes that fail."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pool_rewards import make_cached_commands
from test_rewards_base import batch_of

from crystaljax.crystal import Crystals
from crystaljax.rewards import RewardBatch
from crystaljax.rewards.cache import Cached, CacheError
from crystaljax.rewards.compose import Guarded, InvalidPenalty
from crystaljax.rewards.pool import Pool, PoolConfig


@dataclass
class Counting:
    """The cell edge and columns of several kinds; 3 Å is bad, 4 Å is the machine's fault."""

    judged: list[float] = field(default_factory=list)

    def __call__(self, crystals: Crystals) -> RewardBatch:
        a = np.asarray(crystals.lattice[:, 0], np.float64)
        self.judged += a.tolist()
        info = {
            "f4": np.float32(a) / 3,
            "n": np.arange(len(a)),
            "even": a % 2 == 0,
            "text": np.array([f"{x:g} Å" for x in a]),
            "vector": np.stack([a, -a], axis=1),
            "missing": np.full(len(a), np.nan),
        }
        reasons = [{3: "three", 4: "disk"}.get(int(x)) for x in a]
        return RewardBatch.from_values(a / 7, info, reasons, a == 4)


def assert_same(first: RewardBatch, second: RewardBatch) -> None:
    np.testing.assert_array_equal(first.value, second.value)
    np.testing.assert_array_equal(first.ok, second.ok)
    assert first.reasons == second.reasons
    assert set(first.info) == set(second.info)
    for name, column in first.info.items():
        np.testing.assert_array_equal(column, second.info[name])
        assert column.dtype.kind == second.info[name].dtype.kind
        assert column.dtype.kind == "U" or column.dtype == second.info[name].dtype


def test_a_second_run_computes_only_what_may_succeed_now(tmp_path: Path) -> None:
    crystals = batch_of(6)
    first = Cached(Counting(), tmp_path / "folder" / "cache.sqlite", "edge")(crystals)
    assert_same(first, Counting()(crystals))

    counting = Counting()
    cached = Cached(counting, tmp_path / "folder" / "cache.sqlite", "edge")
    second = cached(crystals.with_slots(4))
    assert counting.judged == [4]
    assert second.reasons == [None, None, "three", "disk", None, None]
    np.testing.assert_array_equal(second.transient, first.transient)
    rows = np.array([5, 0, 2, 5])
    assert_same(cached(crystals[rows]), first[rows])
    assert counting.judged == [4]


def test_another_identity_shares_nothing(tmp_path: Path) -> None:
    Cached(Counting(), tmp_path / "cache", "edge")(batch_of(2))
    counting = Counting()
    Cached(counting, tmp_path / "cache", "edge, second version")(batch_of(2))
    assert counting.judged == [1, 2]
    with pytest.raises(ValueError, match="identity"):
        Cached(counting, tmp_path / "cache", "")
    with pytest.raises(ValueError, match="save_every"):
        Cached(counting, tmp_path / "cache", "edge", save_every=0)


def test_items_that_occur_several_times_are_judged_once(tmp_path: Path) -> None:
    counting = Counting()
    rows = np.array([1, 0, 1, 1, 4, 0])
    batch = Cached(counting, tmp_path / "cache", "edge")(batch_of(5)[rows])
    assert counting.judged == [2, 1, 5]
    np.testing.assert_allclose(batch.value, (rows + 1) / 7)
    assert len(Cached(counting, tmp_path / "cache", "edge")(batch_of(1)[:0])) == 0


def test_only_failures_of_the_item_are_kept(tmp_path: Path) -> None:
    calls: Counter[str] = Counter()

    def fragile(texts: Sequence[str]) -> RewardBatch:
        calls.update(texts if len(texts) == 1 else ())
        if "bad" in texts:
            raise ValueError("bad \ud800")
        if "full" in texts:
            raise OSError("no space")
        return RewardBatch.from_values(np.ones(len(texts)))

    cached = InvalidPenalty(Cached(Guarded(fragile), tmp_path / "cache", "fragile"), -5.0)
    for _ in range(2):
        batch = cached(["good", "bad", "full"])  # type: ignore[arg-type]
        np.testing.assert_array_equal(batch.value, [1, -5, -5])
    assert calls == {"good": 1, "bad": 1, "full": 2}
    assert batch.reasons[1] == "ValueError: bad \\ud800"


@given(
    values=st_numpy.arrays(np.float64, 5),
    ok=st_numpy.arrays(bool, 5),
    dtype=st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_, "U3"]),
    data=st.data(),
)
def test_whatever_is_kept_comes_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory,
    values: np.ndarray,
    ok: np.ndarray,
    dtype: type,
    data: st.DataObject,
) -> None:
    column = data.draw(st_numpy.arrays(dtype, 5))
    batch = RewardBatch(values, ok, {"column": column})
    path = tmp_path_factory.mktemp("cache") / "cache"
    items = list("abcde")
    Cached(lambda _: batch, path, "x")(items)
    second = Cached(lambda _: pytest.fail("computed again"), path, "x")(items)
    np.testing.assert_array_equal(second.value, values)
    np.testing.assert_array_equal(second.ok, ok & np.isfinite(values))
    np.testing.assert_array_equal(second.info["column"], column)
    assert second.info["column"].dtype == column.dtype


def test_columns_that_no_file_can_hold_are_an_error(tmp_path: Path) -> None:
    def strange(texts: Sequence[str]) -> RewardBatch:
        return RewardBatch.from_values(np.ones(1), {"x": np.array([object()])})

    with pytest.raises(TypeError, match="object"):
        Cached(strange, tmp_path / "cache", "x")(["a"])


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_nothing_but_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counting = Counting()
    cached = Cached(counting, tmp_path / "cache", "edge", save_every=50)
    cached(batch_of(2))
    with largest_file((tmp_path / "cache-wal").stat().st_size + 5000):
        batch = cached(batch_of(1000))
    np.testing.assert_allclose(batch.value[4:], np.arange(5, 1001) / 7)
    assert len(counting.judged) == 1000
    assert len(caplog.records) == 1
    assert "cache: " in caplog.text and "not kept" in caplog.text

    cached(batch_of(1000))  # now there is room, and what was there is there still
    assert len(counting.judged) - 1000 > 900
    counting.judged.clear()
    Cached(counting, tmp_path / "cache", "edge")(batch_of(1000))
    assert counting.judged == [4]


def test_sqlite_s_own_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cached = Cached(Counting(), tmp_path / "cache", "edge", save_every=100)
    cached(batch_of(2))
    connection = cached.store._connection
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 8")
    np.testing.assert_allclose(cached(batch_of(500)).value[4:], np.arange(5, 501) / 7)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "database or disk is full" in caplog.text


def test_a_folder_that_takes_no_file(caplog: pytest.LogCaptureFixture) -> None:
    path = "/proc/cache"  # where not even root can write
    if not Path("/proc").is_dir():
        pytest.skip("no /proc on this system")
    cached = Cached(Counting(), path, "edge")
    for _ in range(2):
        np.testing.assert_allclose(cached(batch_of(2)).value, [1 / 7, 2 / 7])
    assert len(caplog.records) == 1
    assert "/proc/cache: unable to open database file" in caplog.text


def test_a_file_that_is_no_cache_is_an_error(tmp_path: Path) -> None:
    text, other = tmp_path / "text", tmp_path / "other"
    text.write_text("this is a text, and long enough to see that it is no database\n" * 20)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE results (a)")
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(CacheError, match=rf"{path}: no reward cache.*move it away"):
            Cached(Counting(), path, "edge")(batch_of(2))
        assert path.read_bytes() == before


def test_a_damaged_cache_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    cached = Cached(Counting(), path, "edge")
    cached(batch_of(2000))
    cached.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(CacheError, match=rf"{path}: no reward cache, or a damaged one"):
        Guarded(Cached(Counting(), path, "edge"))(batch_of(2000))


SCRIPT = """
from pathlib import Path

from pool_rewards import make_cached_commands

make_cached_commands(Path())([f"{'wait' if n > 20 else 'ok'} {n}" for n in range(60)])
"""


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    log = tmp_path / "log"
    while not (log.exists() and len(log.read_text().split()) > 21):
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    before = log.read_text().split()
    assert before == [str(n) for n in range(22)]

    (tmp_path / "go").touch()
    texts = [f"{'wait' if n > 20 else 'ok'} {n}" for n in range(60)]
    batch = make_cached_commands(tmp_path)(texts)  # type: ignore[arg-type]
    np.testing.assert_array_equal(batch.value, np.arange(60))
    again = Counter(log.read_text().split())
    assert sum(again.values()) - 60 <= 2  # what was not on disk yet: at most save_every items
    assert set(before) <= set(again)


def test_several_processes_share_a_file_and_may_be_killed(tmp_path: Path) -> None:
    texts = [f"sleep {n}" for n in range(40)] + [f"once {n}" for n in (41, 42)]
    config = PoolConfig(kind="processes", n_workers=3, chunk=4)
    with Pool(partial(make_cached_commands, tmp_path), config) as pool:
        batch = pool(texts)
    np.testing.assert_array_equal(batch.value, [*range(40), 41, 42])
    judged = len((tmp_path / "log").read_text().split())
    again = make_cached_commands(tmp_path)(texts)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.value, batch.value)
    assert len((tmp_path / "log").read_text().split()) == judged
    with sqlite3.connect(tmp_path / "cache") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
