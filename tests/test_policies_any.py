"""Consumers of policies work for any of them: here for a table, whose optima have closed forms."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from table_policy import NUMBERS, N, TablePolicy, probabilities, table_crystals
from test_evaluation_policies import Fixed
from token_problem import distance, tilted

import crystaljax
from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.evaluation.evaluate import EvaluationConfig, Reference
from crystaljax.evaluation.policies import assess, by_space_group
from crystaljax.mcmc import MCMCConfig, Moves, run_chains
from crystaljax.policies.base import SamplingConfig, encode_writable
from crystaljax.rewards.base import RewardBatch
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.likelihood import LikelihoodConfig, learn
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.preference import PreferenceConfig, prefer
from crystaljax.training.reinforce import ReinforceConfig, reinforce
from crystaljax.training.rollouts import Clock

PACKAGE = Path(crystaljax.__file__).parent
GENERIC = (
    *("training/tasks.py", "training/crystal_task.py", "training/rollouts.py"),
    *("training/reinforce.py", "training/preference.py", "training/likelihood.py"),
    *("training/iteration.py", "training/rlip.py", "training/tiers.py"),
    *("evaluation/policies.py", "mcmc.py", "experiment/crystals.py", "policies/base.py"),
)
SALT = Condition(elements=("Na", "Cl"))
VALUE = np.random.default_rng(1).normal(size=N * N)
QUICK = OptimizerConfig(
    learning_rate=0.05, schedule="constant", warmup_steps=0, weight_decay=0.0, ema_decay=0.0
)


@pytest.fixture(autouse=True)
def without_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing structures costs more than all the rest here."""
    monkeypatch.setattr("crystaljax.training.crystal_task.compared", lambda *_: {})


def index_of(crystals: Crystals) -> np.ndarray:
    places = (np.asarray(crystals.species)[:, :, None] == NUMBERS).argmax(axis=2)
    return places[:, 0] * N + places[:, 1]


def reward(crystals: Crystals) -> RewardBatch:
    return RewardBatch.from_values(VALUE[index_of(crystals)])


def test_the_table_itself() -> None:
    policy = TablePolicy()
    params = policy.init(0)
    rollout = policy.encode(table_crystals())
    np.testing.assert_array_equal(index_of(table_crystals()), np.arange(16))
    parts = policy.parts(rollout, np.arange(16), 2)
    logp = np.concatenate([policy.log_probs(params, (), x, 8)[0].sum(axis=1) for x in parts])
    np.testing.assert_allclose(logp, policy.log_prob(params, rollout), rtol=1e-5)


@pytest.mark.parametrize("name", GENERIC)
def test_what_is_generic_imports_no_particular_policy(name: str) -> None:
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {x.name for y in ast.walk(tree) if isinstance(y, ast.Import) for x in y.names}
    policies = {x for x in modules if x.startswith("crystaljax.policies")}
    assert policies <= {"crystaljax.policies.base", "crystaljax.policies.loading"}


@pytest.mark.parametrize("n_parts", [1, 4])
def test_ppo_reaches_the_closed_form_optimum(tmp_path: Path, n_parts: int) -> None:
    policy, tau = TablePolicy(), 1.0
    base = policy.init(0)
    task = CrystalTask(policy, base, reward, n_parts=n_parts)
    config = ReinforceConfig(n_steps=80, batch_size=256, tau=tau, optimizer=QUICK, save_every=100)
    tuned = reinforce(task, base, config, tmp_path, lambda *_: None)
    optimum = tilted(probabilities(base), VALUE, tau)
    assert distance(probabilities(base), optimum) > 0.2
    assert distance(probabilities(tuned), optimum) < 0.06


def test_grpo_and_dpo_prefer_what_is_rewarded(tmp_path: Path) -> None:
    policy = TablePolicy()
    base = policy.init(0)
    before = probabilities(base) @ VALUE
    task = CrystalTask(policy, base, reward, n_parts=2)
    grpo = ReinforceConfig(
        algorithm="grpo", n_steps=20, batch_size=64, group_size=8, optimizer=QUICK
    )
    dpo = PreferenceConfig(
        n_iterations=2, n_samples=64, group_size=8, batch_size=8, optimizer=QUICK
    )
    by_grpo = reinforce(task, base, grpo, tmp_path / "grpo", lambda *_: None)
    by_dpo = prefer(task, base, dpo, tmp_path / "dpo", lambda *_: None)
    assert probabilities(by_grpo) @ VALUE > before + 0.3
    assert probabilities(by_dpo) @ VALUE > before + 0.2


def test_samples_that_miss_their_condition_are_not_judged() -> None:
    policy = TablePolicy()
    base = policy.init(0)
    task = CrystalTask(policy, base, reward, [SALT, Condition()])
    found = task.rollout(base, 12, 0, Clock(), repeat=3)
    asked = [condition.asked for condition in found.samples.conditions]
    assert sorted(map(bool, asked)) == [False] * 6 + [True] * 6
    assert all(len(set(asked[i : i + 3])) == 1 for i in range(0, 12, 3))
    missed = ~found.samples.met
    assert 0 < missed.sum() <= 6
    np.testing.assert_array_equal(found.judged.ok, ~missed)
    assert {found.judged.reasons[i] for i in np.flatnonzero(missed)} == {
        "elements that were not allowed"
    }
    assert found.metrics["samples/met"] == pytest.approx(1 - missed.mean())


def test_what_a_policy_cannot_be_asked_is_said_before_anything_is_sampled() -> None:
    policy = TablePolicy()
    with pytest.raises(ValueError, match="cannot be asked for formula"):
        CrystalTask(policy, policy.init(0), reward, [Condition(formula="NaCl")])
    with pytest.raises(ValueError, match="no conditions: "):
        CrystalTask(policy, policy.init(0), reward, [])


def test_chains_reach_the_tilted_distribution_of_a_policy(tmp_path: Path) -> None:
    """Most proposals cannot be written by the policy, and are rejected."""
    policy, tau = TablePolicy(), 1.0
    base = policy.init(0)
    config = MCMCConfig(n_chains=400, n_steps=25, tau=tau, moves=Moves(), save_every=100)
    end = run_chains(CrystalTask(policy, base, reward), base, config, tmp_path, lambda *_: None)
    optimum = tilted(probabilities(base), VALUE, tau)
    reached = np.bincount(index_of(end), minlength=16) / config.n_chains
    assert distance(probabilities(base), optimum) > 0.2
    assert distance(reached, optimum) < 0.12


def test_chains_stay_in_their_conditions(tmp_path: Path) -> None:
    policy = TablePolicy()
    base = policy.init(0)
    task = CrystalTask(policy, base, reward, [SALT])
    config = MCMCConfig(n_chains=100, n_steps=10, save_every=100)
    asked = [SALT] * 100
    start = policy.sample(base, asked, config.seed)
    end = run_chains(task, base, config, tmp_path, lambda *_: None)
    met = np.isin(end.species, [11, 17]).all(axis=1)
    assert start.met.any() and met[start.met].all()
    assert (end.species != start.crystals.species).any()


def test_what_can_be_written_of_many() -> None:
    policy, crystals = TablePolicy(), table_crystals()
    lattice = crystals.lattice.copy()
    lattice[[3, 9]] *= 1.1
    damaged = replace(crystals, lattice=lattice)
    rollout, rows = encode_writable(policy, damaged, np.arange(1, 16))
    assert rollout is not None and len(rollout) == 13
    assert rows.tolist() == [i for i in range(1, 16) if i not in (3, 9)]
    assert encode_writable(policy, damaged, np.array([3, 9]))[0] is None


def test_likelihood_on_crystals(tmp_path: Path) -> None:
    policy = TablePolicy()
    crystals = policy.crystals[np.array([1, 1, 1, 6] * 8)]
    config = LikelihoodConfig(n_epochs=60, batch_size=16, n_parts=2, optimizer=QUICK)
    lines: dict[int, Any] = {}
    last = learn(
        *(policy, crystals, crystals, config, tmp_path),
        lambda metrics, step: lines.update({step: metrics}),
        start=policy.init(0),
    )
    p = probabilities(last.averaged)
    assert p[1] == pytest.approx(0.75, abs=0.05) and p[6] == pytest.approx(0.25, abs=0.05)
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    assert lines[120]["validation/nll"] == pytest.approx(entropy, abs=0.05)
    jax.tree.map(np.testing.assert_array_equal, last.params, last.averaged)


def test_a_run_is_the_same_whether_steps_or_epochs_say_how_long_it_is(tmp_path: Path) -> None:
    """Also its learning rate, which falls until the last step."""
    policy = TablePolicy()
    crystals = policy.crystals[np.array([1, 1, 1, 6] * 8)]
    falling = replace(QUICK, schedule="cosine", final_fraction=0.0)
    config = LikelihoodConfig(n_epochs=3, batch_size=16, optimizer=falling)
    found = []
    for name, one in {"epochs": config, "steps": replace(config, n_epochs=1, n_steps=6)}.items():
        none = lambda *_: None  # noqa: E731 (no metrics are looked at)
        start = policy.init(0)
        last = learn(policy, crystals, crystals, one, tmp_path / name, none, start=start)
        found.append(last.params)
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_assessing_any_policy() -> None:
    policy = TablePolicy()
    reference = Reference.of(policy.crystals[:4], "four salts")
    quiet = EvaluationConfig(progress=False)
    found = assess(
        *(policy, policy.init(0), Fixed("teacher", -1), reference),
        n=16,
        seed=1,
        conditions=[SALT],
        sampling=SamplingConfig(),
        config=quiet,
    )
    salt = np.isin(found.crystals.species, [11, 17]).all(axis=1)
    assert found.evaluation["as asked"].value == pytest.approx(salt.mean())
    assert found.evaluation["stable"].value == 1
    with pytest.raises(ValueError, match="cannot be asked for space_group"):
        by_space_group(
            *(policy, policy.init(0), Fixed("teacher", 1), reference.structures),
            groups=(225,),
            n=4,
            seed=0,
        )
