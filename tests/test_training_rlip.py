"""RLIP on a policy in a table: what is paired, what is learnt, and runs that are killed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from grouped_table import CESIUM_CHLORIDE, SALT, GroupedTable
from table_policy import NUMBERS, N, probabilities

from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.evaluation.matching import StructureSet
from crystaljax.policies.base import SamplingConfig
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.guards import Guards, Verdict
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.iteration_files import Iteration, read_iterations
from crystaljax.training.optimizer import fine_tuning
from crystaljax.training.rlip import RlipConfig, rlip
from crystaljax.training.rollouts import NothingJudged
from crystaljax.training.tiers import (
    KINDS,
    METASTABLE,
    STABLE,
    UNKNOWN,
    UNSTABLE,
    PairConfig,
)

KNOWN = (1, 2, 4, 8)
"""NaCl and KNa, which are in the reference set, and what is the same."""

ABOVE = np.full(N * N, 0.5)
ABOVE[[2, 8, 3, 7]] = -0.1  # NaCl, NaBr, KBr
ABOVE[[6, 11]] = 0.05  # KCl, ClBr
CONFIG = RlipConfig(
    n_iterations=3,
    batch_size=8,
    optimizer=fine_tuning(0.02),
    n_unconditional=24,
    n_per_group=12,
    groups=(SALT, CESIUM_CHLORIDE),
    group_size=1,
)


def index_of(crystals: Crystals) -> np.ndarray:
    places = (np.asarray(crystals.species)[:, :, None] == NUMBERS).argmax(axis=2)
    return places[:, 0] * N + places[:, 1]


def energies(crystals: Crystals) -> RewardBatch:
    above = ABOVE[index_of(crystals)]
    return RewardBatch.from_values(-above, {"e_above_hull": above})


def task_of(config: RlipConfig, reward: Any = energies, **given: Any) -> tuple[CrystalTask, Any]:
    policy = GroupedTable()
    base = policy.init(0)
    reference = StructureSet.from_crystals(policy.crystals[np.array(KNOWN[:3])], "known")
    options: dict[str, Any] = {"reference": reference, "judge_all": True, **given}
    return CrystalTask(policy, base, reward, config.prompts(), **options), base


def run(folder: Path, config: RlipConfig = CONFIG, reward: Any = energies, **more: Any) -> Any:
    """The last parameters, and the metrics of each iteration."""
    task, base = task_of(config, reward)
    lines: dict[int, dict[str, float]] = {}

    def track(metrics: dict[str, Any], step: int) -> None:
        lines[step] = {k: x for k, x in metrics.items() if not k.startswith("seconds")}

    return rlip(task, base, config, folder, track, **more), lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, dict[int, Any]]:
    """A run that nothing disturbs: its folder, parameters and metrics."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder)


def test_stable_and_novel_crystals_become_likely(tmp_path: Path) -> None:
    """Without samples of given space groups, whose preferences a table cannot tell apart."""
    config = replace(CONFIG, n_per_group=0, n_unconditional=48)
    params, _ = run(tmp_path, config)
    before, after = probabilities(GroupedTable().init(0)), probabilities(params)
    stable, unstable, novel = [2, 3, 7, 8], np.flatnonzero(ABOVE > 0.4), [3, 7]
    assert after[stable].sum() > before[stable].sum() + 0.1
    assert after[unstable].sum() < before[unstable].sum() - 0.1
    assert after[novel].sum() > before[novel].sum() + 0.03


def test_iterations_are_what_was_drawn_and_found(
    whole: tuple[Path, Any, dict[int, Any]],
) -> None:
    folder, _, lines = whole
    found = read_iterations(folder)
    assert [x.number for x in found] == [0, 1, 2]
    assert [x.temperature for x in found] == pytest.approx([1.0, 1.0, 1.2])
    assert lines[1]["dpo/kl_base"] == pytest.approx(0, abs=1e-4) and lines[3]["dpo/kl_base"] > 0
    for x in found:
        index = index_of(x.crystals)
        np.testing.assert_array_equal(x.e_above_hull, ABOVE[index])
        np.testing.assert_array_equal(x.novel, ~np.isin(index, KNOWN))
        assert np.bincount(x.asked).nonzero()[0].tolist() == [0, CESIUM_CHLORIDE, SALT]
        first, second = index // N, index % N
        declared = np.where(second == N - 1, CESIUM_CHLORIDE, SALT)
        assert (x.found == declared)[first != second].all()
        assert (x.found != SALT)[first == second].all()  # one element: more symmetry
        chosen, rejected = x.lessons.T
        assert (x.asked[chosen] == x.asked[rejected]).all()
        assert (x.tier[chosen] <= x.tier[rejected]).all()
        assert lines[x.number + 1]["dpo/pairs"] == len(x.lessons)
        assert sum(x.pairs_of.values()) == len(x.lessons) > 0
    assert {name for name, n in found[0].pairs_of.items() if n} == set(KINDS)


class Killed(BaseException):
    """As a signal: nothing catches it."""


@pytest.mark.parametrize(
    "place",
    ["after", *(pytest.param(place, marks=pytest.mark.slow) for place in ("reward", "track"))],
)
def test_a_run_that_is_killed_goes_on_with_the_same_pairs_and_losses(
    place: str, whole: tuple[Path, Any, dict[int, Any]], tmp_path: Path
) -> None:
    at = 1
    calls = {"reward": 0}

    def reward(crystals: Crystals) -> RewardBatch:
        calls["reward"] += 1
        if place == "reward" and calls["reward"] == at + 1:
            raise KeyboardInterrupt
        return energies(crystals)

    task, base = task_of(CONFIG, reward)
    lines: dict[int, dict[str, float]] = {}

    def track(metrics: dict[str, Any], step: int) -> None:
        lines[step] = {k: x for k, x in metrics.items() if not k.startswith("seconds")}
        if place == "track" and step == at + 1:
            raise Killed

    def after(done: int, _: Any) -> None:
        if place == "after" and done == at + 1:
            raise Killed

    folder = tmp_path / "killed"
    with pytest.raises((Killed, KeyboardInterrupt)):
        rlip(task, base, CONFIG, folder, track, after=after)
    _, rest = run(folder)
    assert sorted(rest) == list(range(at + 1, CONFIG.n_iterations + 1))
    assert lines | rest == whole[2]
    for one, other in zip(read_iterations(whole[0]), read_iterations(folder), strict=True):
        np.testing.assert_array_equal(one.lessons, other.lessons)
        np.testing.assert_array_equal(one.kind, other.kind)


def killed_run(folder: str, at: int) -> None:
    """A run whose process is killed while it judges the samples of iteration `at`."""
    calls = []

    def reward(crystals: Crystals) -> RewardBatch:
        calls.append(0)
        if len(calls) > at:
            os.kill(os.getpid(), signal.SIGKILL)
        return energies(crystals)

    run(Path(folder), CONFIG, reward)


@pytest.mark.slow
def test_a_process_that_is_killed(whole: tuple[Path, Any, dict[int, Any]], tmp_path: Path) -> None:
    code = f"from test_training_rlip import killed_run; killed_run({str(tmp_path)!r}, at=2)"
    there = str(Path(__file__).parent)
    path = os.pathsep.join(x for x in (there, os.environ.get("PYTHONPATH")) if x)
    environment = {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(read_iterations(tmp_path)) == 2
    _, rest = run(tmp_path)
    assert rest and rest == {step: whole[2][step] for step in rest}  # the last save may be lost
    for one, other in zip(read_iterations(whole[0]), read_iterations(tmp_path), strict=True):
        np.testing.assert_array_equal(one.lessons, other.lessons)


def no_better(crystals: Crystals) -> RewardBatch:
    return RewardBatch.from_values(
        np.full(len(crystals), -1.0), {"e_above_hull": np.ones(len(crystals))}
    )


def test_without_a_stable_sample_nothing_changes_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(CONFIG, n_iterations=1)
    with caplog.at_level(logging.WARNING):
        params, lines = run(tmp_path, config, no_better)
    for old, new in zip(
        jax.tree.leaves(GroupedTable().init(0)), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    assert lines[1]["dpo/pairs"] == 0 and "dpo/loss" not in lines[1]
    assert "none of the 24 samples drawn freely is stable" in caplog.text
    assert "none of the 24 samples asked for a space group is stable" in caplog.text
    assert "nothing to learn from" in caplog.text


def test_a_space_group_that_is_never_hit_and_a_class_that_is_not_judged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(CONFIG, n_iterations=1, groups=(SALT, 1))

    def no_bromides(crystals: Crystals) -> RewardBatch:
        above = ABOVE[index_of(crystals)].copy()
        above[np.asarray(crystals.space_group) == CESIUM_CHLORIDE] = np.nan
        reasons = [None if x else "no bromine" for x in np.isfinite(above)]
        return RewardBatch.from_values(-above, {"e_above_hull": above}, reasons)

    with caplog.at_level(logging.WARNING):
        run(tmp_path, config, no_bromides)
    assert "none of the 12 samples asked for space group 1 has it" in caplog.text
    (x,) = read_iterations(tmp_path)
    assert (x.tier[x.asked == 1] != UNKNOWN).any()  # judged, though not what was asked for
    unknown = np.flatnonzero(x.tier == UNKNOWN)
    assert len(unknown) and (x.reasons[unknown] == "no bromine").all()
    assert not np.isin(x.lessons, unknown).any() and len(x.lessons)
    assert x.metrics["rlip/not_judged"] > 0


def iteration(asked: np.ndarray, tier: np.ndarray, reasons: list[str]) -> Iteration:
    """Samples of which only this is known."""
    n, none = len(asked), np.zeros(len(asked), int)
    crystals = GroupedTable().crystals[np.arange(n)].to_numpy()
    judged = np.where(tier == UNKNOWN, np.nan, 0.0)
    return Iteration(
        *(0, 1.0, crystals, asked, asked, none, judged, np.array(reasons), tier),
        *(none > 0, np.arange(n), np.zeros((0, 2), int), none[:0]),
    )


def test_free_samples_that_are_not_judged_are_told_though_others_are() -> None:
    asked = np.array([0, 0, 0, SALT, SALT])
    failed = ["no neutral state", "no crystal", "no neutral state", "", ""]
    x = iteration(asked, np.array([UNKNOWN] * 3 + [STABLE, UNSTABLE]), failed)
    assert list(x.lacks((SALT,))) == [
        "none of the 3 samples drawn freely could be judged (no neutral state)",
        "none of the 2 samples asked for a space group is metastable",
    ]
    assert x.unjudged == {"no neutral state": 2, "no crystal": 1}


def test_tiers_of_free_and_of_requested_samples_are_counted_apart() -> None:
    tiers = np.array([METASTABLE, UNSTABLE, STABLE, METASTABLE, UNSTABLE])
    x = iteration(np.array([0, 0, SALT, SALT, SALT]), tiers, [""] * 5)
    assert list(x.lacks((SALT,))) == ["none of the 2 samples drawn freely is stable"]
    assert not x.unjudged


def test_a_space_group_that_all_samples_have_is_not_one_that_some_are_asked_for() -> None:
    """Such samples are drawn freely: they are paired by stability and novelty alone."""
    config = replace(CONFIG, groups=())
    asked = config.prompts(Condition(space_group=SALT))
    assert config.requested_groups == () and not config.groups_asked(asked).any()
    assert CONFIG.groups_asked(CONFIG.prompts()).any()


@pytest.mark.parametrize(
    ("change", "condition", "message"),
    [
        (
            {"temperature_step": -0.5, "temperature_every": 1},
            Condition(),
            "iteration 3 would sample at temperature 0,",
        ),
        ({}, Condition(space_group=SALT), "leave it out"),
    ],
)
def test_settings_that_would_end_a_run_later_are_refused(
    change: dict[str, Any], condition: Condition, message: str
) -> None:
    CONFIG.check_with(Condition(), SamplingConfig())
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change).check_with(condition, SamplingConfig())


def test_guards_that_discount_are_refused(tmp_path: Path) -> None:
    """They would be counted, and change no pair."""

    def half(crystals: Crystals, judged: RewardBatch) -> Verdict:
        return Verdict(np.full(len(crystals), 0.5), [None] * len(crystals))

    task, base = task_of(CONFIG, guards=Guards({"half": half}))
    with pytest.raises(ValueError, match=r"the guard half leaves 0\.5 of a reward"):
        rlip(task, base, CONFIG, tmp_path, lambda *_: None)
    assert not read_iterations(tmp_path)


def test_a_reward_that_fails_for_all_is_told(tmp_path: Path) -> None:
    def broken(crystals: Crystals) -> RewardBatch:
        raise ValueError("no potential")

    with pytest.raises(NothingJudged, match="no potential"):
        run(tmp_path, CONFIG, broken)


@pytest.mark.parametrize(
    "change",
    [
        {"learn": "sft"},
        {"n_per_group": 0},
        {"n_unconditional": 0},
        {"pairs": PairConfig(stable_metastable=0, novel_known=0)},
        {"temperature_step": 0.1, "temperature_every": 1},
        {"distinct": True},
    ],
    ids=lambda x: next(iter(x)),
)
def test_ablations(change: dict[str, Any], tmp_path: Path) -> None:
    config = replace(CONFIG, n_iterations=2, **change)
    params, lines = run(tmp_path, config)
    found = read_iterations(tmp_path)
    name = config.learn
    assert all(np.isfinite(line[f"{name}/loss"]) for line in lines.values())
    for x in found:
        assert len(x.tier) == config.n_samples == (x.asked == 0).sum() + (x.asked > 0).sum()
        assert ("rlip/SUN" in x.metrics) == (config.n_unconditional > 0)
        used = {kind for kind, n in x.pairs_of.items() if n}
        if name == "sft":
            (rows,) = x.lessons.T
            assert (x.tier[rows] < UNSTABLE).all() and (x.tier[rows] >= STABLE).all()
            assert ((x.asked == 0) | (x.found == x.asked))[rows].all()
            assert not used
        assert all(config.pairs(KINDS.index(kind)) for kind in used)
        if config.distinct:
            taken = np.unique(x.lessons)
            same = zip(x.tier[taken], x.cluster[taken], x.asked[taken], strict=True)
            assert len(taken) == len(set(same))
    assert found[1].temperature == pytest.approx(1 + config.temperature_offset(1))
    assert any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(
            jax.tree.leaves(GroupedTable().init(0)), jax.tree.leaves(params), strict=True
        )
    )


def test_the_reference_is_the_one_that_is_asked_for(
    whole: tuple[Path, Any, dict[int, Any]], tmp_path: Path
) -> None:
    """From the second iteration: the last one's policy, or the base."""
    _, fixed = run(tmp_path, replace(CONFIG, n_iterations=2, reference="base"))
    assert whole[2][1] == fixed[1]
    assert whole[2][2]["dpo/loss"] != fixed[2]["dpo/loss"]
    assert whole[2][2]["dpo/kl_base"] == fixed[2]["dpo/kl_base"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_size": 5}, "multiple of group_size"),
        ({"n_unconditional": 0, "groups": ()}, "no samples"),
        ({"groups": (231,)}, "231"),
        ({"temperature_every": 0}, "temperature_every"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


def test_tasks_that_are_not_of_rlip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave it out"):
        CONFIG.prompts(Condition(space_group=SALT))

    def start(**options: Any) -> None:
        task, base = task_of(CONFIG, **options)
        rlip(task, base, CONFIG, tmp_path, lambda *_: None)

    with pytest.raises(ValueError, match="reference set"):
        start(reference=None)
    with pytest.raises(ValueError, match="judge_all"):
        start(judge_all=False)
    with pytest.raises(ValueError, match="e_above_hull"):
        start(reward=lambda x: RewardBatch.from_values(np.zeros(len(x))))


def test_iterations_are_kept(whole: tuple[Path, Any, dict[int, Any]], tmp_path: Path) -> None:
    x = read_iterations(whole[0])[0]
    again = Iteration.load(replace(x, number=7).save(tmp_path))
    assert again.number == 7 and again.temperature == x.temperature
    for name in ("asked", "found", "e_above_hull", "reasons", "lessons", "kind", "cluster"):
        np.testing.assert_array_equal(getattr(again, name), getattr(x, name))
    np.testing.assert_array_equal(again.crystals.frac, x.crystals.frac)
