"""Users' rewards from files of their own, run by a tiny PPO from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import SMALL

from crystaljax.data.dataset import load
from crystaljax.policies.base import Rollout, SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import UNBOUNDED, RewardBounds
from crystaljax.rewards.ehull import E_ABOVE_HULL
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.user import UserReward
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.preference import PreferenceConfig, prefer
from crystaljax.training.reinforce import ReinforceConfig, reinforce
from crystaljax.training.rollouts import (
    MAX_UNJUDGED,
    Clock,
    FlatRewards,
    NothingJudged,
    Unjudged,
    prepare,
)

FILE = '''
import sys
from pathlib import Path
from crystaljax import Crystals
from crystaljax.rewards.user import reward

@reward("user_density", unit="g/cm³")
def density(structure):
    return structure.density

def constant(structure):
    return 3.0

def nan(structure):
    return float("nan")

def quits(structure):
    if len(structure) % 2:
        sys.exit("odd")
    return structure.density

def broken(structure):
    return structure.no_such_thing

def at_first(structure):
    """Judges as many crystals as the file beside this one says."""
    counter = Path(__file__).with_suffix(".count")
    left = int(counter.read_text())
    counter.write_text(str(left - 1))
    if left <= 0:
        raise RuntimeError("the machine is broken")
    return structure.density

def volumes(crystals: Crystals):
    return crystals.lattice[:, :3].prod(axis=1)
'''
BATCH = 16
INLINE = PoolConfig()
SAMPLING = SamplingConfig(batch_size=BATCH)


class OfPrototypes(WyckoffPolicy):
    """Samples of real crystals, the first of them crushed, so that there is much to judge."""

    def sample(
        self, params: Any, conditions: Any, seed: int, sampling: Any = None, repeat: int = 1
    ) -> Rollout:
        crystals = load("prototypes").crystals
        crystals = crystals[np.asarray(crystals.n_sites) <= SMALL.max_sites]
        rows = np.random.default_rng(seed).integers(len(crystals), size=len(conditions))
        crystals = crystals[np.repeat(rows, repeat)]
        lattice = crystals.lattice.copy()
        lattice[0, :3] /= 20
        return self.encode(replace(crystals, lattice=lattice))


@pytest.fixture(scope="module")
def policy() -> WyckoffPolicy:
    return OfPrototypes(SMALL, load("prototypes").space_group_counts)


@pytest.fixture(scope="module")
def base(policy: WyckoffPolicy) -> Any:
    return policy.init(0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user") / "my_rewards.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def task(policy: WyckoffPolicy, base: Any, file: Path) -> Iterator[Any]:
    """Makes the task of a function of the file."""
    with ExitStack() as stack:

        def make(
            name: str,
            bounds: RewardBounds | None = None,
            pool: PoolConfig = INLINE,
            cache: Path | None = None,
        ) -> CrystalTask:
            reward = stack.enter_context(UserReward(f"{file}:{name}", pool, cache))
            return CrystalTask(policy, base, reward, sampling=SAMPLING, bounds=bounds)

        yield make


def ppo(task: CrystalTask, base: Any, folder: Path, n_steps: int = 2) -> dict[int, dict]:
    """What PPO tracks."""
    lines: dict[int, dict] = {}
    config = ReinforceConfig(n_steps=n_steps, batch_size=BATCH, inner_steps=1)
    reinforce(task, base, config, folder, lambda metrics, step: lines.update({step: metrics}))
    return lines


@pytest.mark.slow
def test_a_reward_of_any_size_arrives_as_it_was_written(
    task: Any, base: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ppo(task("density"), base, tmp_path)
    for line in lines.values():
        assert line["reward/q90"] > 1  # beyond the bounds of energies above hull
        assert line["reward/q90"] > line["reward/median"]
        assert line["reward/clipped"] == 0
        assert line["reward/not_ok"] == pytest.approx(1 / BATCH)
        assert line["reward/skipped"] == 0
    assert not caplog.records
    assert task("volumes").rollout(base, BATCH, 0, Clock()).metrics["reward/q90"] > 10


def test_what_says_little_warns(task: Any, base: Any, caplog: pytest.LogCaptureFixture) -> None:
    bounded = task("density", RewardBounds(low=-1.0, high=0.5))
    rollout = bounded.rollout(base, BATCH, 0, Clock())
    judged = 1 - rollout.metrics["reward/not_ok"]
    assert judged / 2 < rollout.metrics["reward/clipped"] <= judged
    bounded.rollout(base, BATCH, 1, Clock())
    assert caplog.text.count("are clipped: their differences are lost") == 1  # not at every step
    caplog.clear()
    task("constant").rollout(base, BATCH, 0, Clock())
    assert "nothing to learn but to be judged" in caplog.text


@pytest.mark.parametrize("name", ["nan", "broken"])
def test_a_run_that_can_judge_nothing_stops_with_the_reasons(
    task: Any, base: Any, tmp_path: Path, name: str
) -> None:
    reason = {"nan": "the reward is nan", "broken": "AttributeError: .*no_such_thing"}[name]
    message = rf"none of {BATCH} samples could be judged \(.*\d+ × {reason}"
    with pytest.raises(NothingJudged, match=message):
        ppo(task(name), base, tmp_path / "ppo")
    config = PreferenceConfig(n_iterations=2, n_samples=BATCH, group_size=4, batch_size=2)
    with pytest.raises(NothingJudged, match=message):
        prefer(task(name), base, config, tmp_path / "dpo", lambda *_: None)


@pytest.mark.slow
def test_an_exception_costs_its_item_in_any_pool(task: Any, base: Any, tmp_path: Path) -> None:
    pool = PoolConfig(kind="processes", n_workers=1)
    pooled = ppo(task("quits", None, pool, tmp_path / "cache.sqlite"), base, tmp_path)[1]
    inline = task("quits").rollout(base, BATCH, seed_of(1), Clock())
    usual = task("density").rollout(base, BATCH, seed_of(1), Clock())
    assert inline.judged.failures().keys() > usual.judged.failures().keys()
    assert "SystemExit: odd" in inline.judged.failures()
    assert pooled["reward/not_ok"] == pytest.approx(inline.metrics["reward/not_ok"])
    assert pooled["reward/not_ok"] < 1


def seed_of(step: int) -> int:
    """Of PPO's rollout of a step, of seed 0."""
    return int(np.random.default_rng([0, 2, step - 1]).integers(2**31))


@pytest.mark.slow
def test_later_rollouts_of_which_nothing_is_judged_are_skipped(
    task: Any, base: Any, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.with_suffix(".count").write_text("4")  # fewer than the first rollout's
    with pytest.raises(NothingJudged, match=f"broken.*{MAX_UNJUDGED} rollouts in a row"):
        ppo(task("at_first"), base, tmp_path, n_steps=20)
    assert caplog.text.count("this rollout is skipped") == MAX_UNJUDGED - 1


def judged(*values: float) -> RewardBatch:
    return RewardBatch.from_values(np.array(values))


def test_shares_are_of_all_samples(caplog: pytest.LogCaptureFixture) -> None:
    value, metrics = prepare(judged(-3.0, -0.2, 2.0, 0.1, np.nan), E_ABOVE_HULL.bounds)
    np.testing.assert_allclose(value[:4], [-1, -0.2, 0.5, 0.1])
    assert metrics["reward/clipped"] == pytest.approx(0.4)
    assert metrics["reward/not_ok"] == pytest.approx(0.2)
    _warn(judged(-3.0, -0.2, 2.0, 0.1, np.nan), E_ABOVE_HULL.bounds)
    assert not caplog.records
    _warn(judged(-3.0, -2.0, 2.0, 0.1, np.nan), E_ABOVE_HULL.bounds)
    assert "3 of 5 rewards (75 % of those judged) lie outside [-1, 0.5]" in caplog.text


def _warn(batch: RewardBatch, bounds: RewardBounds) -> None:
    FlatRewards()(batch, bounds(batch), bounds)


def test_rewards_that_are_all_equal_warn(caplog: pytest.LogCaptureFixture) -> None:
    _warn(judged(2.0, np.nan), UNBOUNDED)
    _warn(judged(2.0, 2.1, np.nan), UNBOUNDED)
    assert not caplog.records
    _warn(judged(2.0, 2.0, np.nan), UNBOUNDED)
    assert "all 2 rewards of 3 samples are 2" in caplog.text


def test_a_run_is_warned_once_of_each_kind(caplog: pytest.LogCaptureFixture) -> None:
    """Shares of clipped rewards go up and down around the limit from rollout to rollout."""
    clipped, fine, equal = judged(-3.0, -2.0, 0.1), judged(-3.0, -0.2, 0.1), judged(0.2, 0.2)
    warn = FlatRewards()
    for batch in (clipped, fine, clipped, equal, clipped, fine, equal):
        warn(batch, E_ABOVE_HULL.bounds(batch), E_ABOVE_HULL.bounds)
    assert len(caplog.records) == 2


def test_infos_of_any_kind_are_measured_or_left_out() -> None:
    info = {
        "good": np.array([True, False]),
        "size": np.array([3, 5]),
        "name": np.array(["a", "b"]),
        "any": np.array([None, ()], object),
    }
    batch = RewardBatch.from_values(np.array([1.0, 2.0]), info)
    metrics = prepare(batch, UNBOUNDED)[1]
    assert metrics["reward/good"] == 0.5 and metrics["reward/median_size"] == 4
    assert not {"reward/median_name", "reward/median_any"} & set(metrics)


def test_rollouts_without_a_judgement_are_counted() -> None:
    none, some = judged(np.nan), judged(np.nan, 1.0)
    with pytest.raises(NothingJudged, match=r"none of 1 samples .*1 × the reward is nan"):
        Unjudged()(none)
    unjudged = Unjudged()
    assert not unjudged(some)
    for _ in range(2):
        assert [unjudged(none) for _ in range(MAX_UNJUDGED - 1)] == [True] * (MAX_UNJUDGED - 1)
        assert not unjudged(some)
    assert Unjudged(done=3)(none)  # a run that goes on has judged something before
