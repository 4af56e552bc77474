"""Guards in training: counted, in checkpoints, exact after a resume, and outside the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from resuming import killed_and_resumed
from table_policy import TablePolicy, probabilities, table_crystals

from crystaljax.checkpoints import RunCheckpoints
from crystaljax.composition import formulas
from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.mcmc import MCMCConfig, run_chains
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.rewards.cache import Cached
from crystaljax.rewards.ehull import E_ABOVE_HULL
from crystaljax.rewards.guards import Guarding, create_guards
from crystaljax.rewards.hull import Hull
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.preference import PreferenceConfig, prefer
from crystaljax.training.reinforce import ReinforceConfig, reinforce
from crystaljax.training.rollouts import Clock, NothingJudged

HULL = Hull.from_entries(["Na", *["NaCl"] * 12, "K", "Cl", "Br"], [0.0] * 16)
QUICK = OptimizerConfig(
    learning_rate=0.05, schedule="constant", warmup_steps=0, weight_decay=0.0, ema_decay=0.0
)
POLICY = TablePolicy()
BASE = POLICY.init(0)


@pytest.fixture(autouse=True)
def without_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing structures for the shares of unique samples costs more than all the rest here."""
    monkeypatch.setattr("crystaljax.training.crystal_task.sample_metrics", lambda *_: {})


class Energy:
    """Elements lie 0.3 eV/atom below the hull, Na and Cl together on it, the others 0.1 above."""

    quantity = E_ABOVE_HULL
    calls = 0

    def __call__(self, crystals: Crystals) -> RewardBatch:
        self.calls += len(crystals)
        names = formulas(crystals)
        above = [0.0 if x == "NaCl" else 0.1 if len(x) > 2 else -0.3 for x in names]
        return RewardBatch.from_values(-np.array(above), {"e_above_hull": np.array(above)})


def task(*names: str, reward: Any = None, bounds: RewardBounds | None = None) -> CrystalTask:
    guards = create_guards(names, Guarding(HULL, E_ABOVE_HULL))
    return CrystalTask(POLICY, BASE, reward or Energy(), bounds=bounds, guards=guards)


def test_what_guards_leave_is_trained_on_and_counted() -> None:
    one = task("pure-elements", "sparse-hull", bounds=RewardBounds(invalid=-2.0))
    found = one.rollout(BASE, 40, 0, Clock())
    names = np.array(formulas(found.samples.crystals))
    salt = names == "NaCl"
    pure = np.array([len(name) <= 2 for name in names])
    assert salt.any() and pure.any() and not (salt | pure).all()
    np.testing.assert_array_equal(found.judged.ok, salt)
    np.testing.assert_array_equal(found.reward, np.where(salt, 0.0, -2.0))
    assert found.metrics["guard/pure-elements"] == pytest.approx(pure.mean())
    assert found.metrics["guard/sparse-hull"] == pytest.approx(1 - pure.mean() - salt.mean())
    assert found.metrics["reward/not_ok"] == pytest.approx(1 - salt.mean())


def share_of_elements(params: Any) -> float:
    crystals = table_crystals()
    return float(probabilities(params)[crystals.species[:, 0] == crystals.species[:, 1]].sum())


def test_a_policy_learns_to_cheat_only_without_the_guard(tmp_path: Path) -> None:
    config = ReinforceConfig(n_steps=15, batch_size=64, tau=0.0, optimizer=QUICK)

    def learnt(*names: str) -> float:
        folder = tmp_path / "-".join(["run", *names])
        return share_of_elements(reinforce(task(*names), BASE, config, folder, lambda *_: None))

    assert learnt() > share_of_elements(BASE) + 0.2
    assert learnt("pure-elements") < share_of_elements(BASE) - 0.05


@pytest.mark.parametrize("loop", ["ppo", "grpo", "dpo"])
def test_a_resumed_run_remembers_what_it_has_seen(tmp_path: Path, loop: Any) -> None:
    guards = ("seen-compositions:2", "seen-structures")

    def run(folder: Path, track: Any) -> None:
        if loop == "dpo":
            dpo = PreferenceConfig(
                n_iterations=4, n_samples=16, group_size=4, batch_size=4, optimizer=QUICK
            )
            prefer(task(*guards), BASE, dpo, folder, track)
            return
        config = ReinforceConfig(
            algorithm=loop, n_steps=4, batch_size=16, group_size=4, save_every=1, optimizer=QUICK
        )
        reinforce(task(*guards), BASE, config, folder, track)

    whole, first, second = killed_and_resumed(run, tmp_path, stop_after=3)
    assert sorted(second) == [3, 4]  # step 3 was tracked but not saved
    assert first | second == whole
    with RunCheckpoints(tmp_path / "killed" / "checkpoints") as checkpoints:
        memory = checkpoints.memory()
    for guard in ("seen-compositions", "seen-structures"):
        assert memory[f"{guard}/counts"].sum() == 4 * 16


def test_the_memory_of_other_guards_is_refused(tmp_path: Path) -> None:
    config = ReinforceConfig(n_steps=1, batch_size=16, inner_steps=1, optimizer=QUICK)
    reinforce(task("seen-compositions"), BASE, config, tmp_path, lambda *_: None)
    with pytest.raises(ValueError, match=r"memory of the guard seen-compositions, .*\(none\)"):
        reinforce(task(), BASE, config, tmp_path, lambda *_: None)


def test_a_new_run_has_seen_nothing(tmp_path: Path) -> None:
    one = task("seen-compositions")
    config = ReinforceConfig(n_steps=1, batch_size=16, inner_steps=1, optimizer=QUICK)
    lines: list[dict] = []
    for name in ("first", "second"):
        reinforce(one, BASE, config, tmp_path / name, lambda x, _: lines.append(x))
    assert lines[0]["guard/seen-compositions"] == lines[1]["guard/seen-compositions"] < 1
    assert lines[0]["reward/mean"] == lines[1]["reward/mean"]


def test_the_cache_has_the_rewards_own_values(tmp_path: Path) -> None:
    energy = Energy()
    cached = Cached(energy, tmp_path / "cache.sqlite", "energies")  # type: ignore[arg-type]
    one = task("too-good", "seen-compositions", reward=cached)
    found = [one.rollout(BASE, 16, 0, Clock()) for _ in range(2)]
    assert energy.calls <= 16
    assert found[1].reward.sum() < found[0].reward.sum()
    for rollout in found:
        expected = Energy()(rollout.samples.crystals)
        np.testing.assert_array_equal(cached(rollout.samples.crystals).value, expected.value)
        ok = expected.info["e_above_hull"] >= -0.1
        np.testing.assert_array_equal(rollout.judged.ok, ok)
        np.testing.assert_array_equal(rollout.judged.value[ok], expected.value[ok])


def test_chains_do_not_go_where_a_guard_believes_nothing(tmp_path: Path) -> None:
    config = MCMCConfig(n_chains=60, n_steps=15, tau=0.1, save_every=100)
    one = task("too-good", "seen-compositions")
    end = run_chains(one, BASE, config, tmp_path, lambda *_: None)
    start = POLICY.sample(BASE, [Condition()] * 60, 0)
    pure = [(x.species[:, 0] == x.species[:, 1]).mean() for x in (start.crystals, end)]
    assert pure[0] > 0.1 and pure[1] < pure[0]
    assert one.memory == {}


def test_a_run_whose_guards_believe_nothing_says_so(tmp_path: Path) -> None:
    config = ReinforceConfig(n_steps=2, batch_size=16, optimizer=QUICK)
    with pytest.raises(NothingJudged, match="sparse-hull: fewer than 100 hull entries"):
        reinforce(task("sparse-hull:100"), BASE, config, tmp_path, lambda *_: None)
