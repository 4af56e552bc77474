"""The pool on a Ray cluster of this machine."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pool_rewards import Commands, make_cell_edge, make_nothing
from test_rewards_base import batch_of

from crystaljax.rewards.pool import Pool, PoolConfig, WorkerError

CONFIG = PoolConfig(kind="ray", n_workers=2, chunk=4, attempts=1, timeout=15)


@pytest.mark.slow
def test_order_deaths_and_mistakes_on_a_cluster_of_its_own(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    texts = [f"sleep {n}" for n in range(20)]
    texts[5], texts[10], texts[12], texts[18] = "bad 5", "hang 10", "once 12", "kill 18"
    with Pool(partial(Commands, tmp_path), CONFIG) as pool:
        batch = pool(texts)
        assert pool(["bug 7", "quit 8"]).reasons == [
            "TypeError: 7 met a bug",
            "SystemExit: 8 quits",
        ]
        np.testing.assert_array_equal(pool(["ok 3", "ok 4"]).value, [3, 4])
    assert not ray.is_initialized()
    failed = [5, 10, 18]
    np.testing.assert_array_equal(np.flatnonzero(~batch.ok), failed)
    np.testing.assert_array_equal(batch.value[batch.ok], np.delete(np.arange(20), failed))
    assert [batch.reasons[n] for n in failed] == [
        "ValueError: 5 is bad",
        "timed out after 15 s",
        "worker died (ActorDiedError)",
    ]
    np.testing.assert_array_equal(batch.transient[failed], [False, True, True])


@pytest.mark.slow
def test_crystals_on_a_cluster_that_is_there() -> None:
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with Pool(make_nothing, CONFIG) as pool, pytest.raises(WorkerError, match="pt is absent"):
            pool(["ok 1"])
        with Pool(make_cell_edge, CONFIG) as pool:
            batch = pool(batch_of(11))
        np.testing.assert_array_equal(batch.value, np.arange(1, 12))
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"crystaljax\[ray\]"):
        Pool(make_cell_edge, CONFIG)
