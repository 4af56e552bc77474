"""A potential, an objective and a metric in a user's file: each found, checked, and used in a run.

Those of rewards are in tests/test_training_user_rewards.py, of text formats and templates in
tests/test_policies_user_format.py and tests/test_experiments_tokenizations.py.
"""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import SCRIPTS, load_script
from small import SMALL
from token_problem import SEQUENCES, actions, log_probs, tables

from crystaljax.cli import main
from crystaljax.data.dataset import load
from crystaljax.data.writers import write
from crystaljax.evaluation.evaluate import EvaluationConfig, evaluate
from crystaljax.evaluation.rates import Measure, Rate
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.potentials import create_potential
from crystaljax.rewards.stability import StabilityConfig, StabilityReward
from crystaljax.symmetry.orbits import n_atoms
from crystaljax.training.optimizer import OptimizerConfig, TrainState
from crystaljax.training.preference import DpoConfig
from crystaljax.training.preference import make_update as make_preference_update
from crystaljax.training.reinforce import ReinforceConfig, ReinforceState, make_update

FILE = '''
import jax.numpy as jnp
import numpy as np

from crystaljax import objectives
from crystaljax.evaluation.rates import Measure, Rate
from crystaljax.rewards.potentials.base import Energies, no_relaxation
from crystaljax.structures import to_cells
from crystaljax.symmetry.orbits import n_atoms

class Dense:
    """Energies that fall with the density of atoms, not without end; none of iron."""
    name, level, elements = "dense", "MP2020", np.arange(1, 95)

    def energies(self, crystals):
        reasons = ["iron" if 26 in x.species else None for x in to_cells(crystals)]
        cells = list(to_cells(crystals))
        volume = [abs(np.linalg.det(cell.matrix)) / len(cell.species) for cell in cells]
        ok = np.array([reason is None for reason in reasons])
        return Energies(np.where(ok, -4 / np.maximum(volume, 1), np.nan), ok, reasons)

    def relax(self, crystals, *, fmax=0.02, max_steps=500):
        return no_relaxation(["dense crystals stay as they are"] * len(crystals))

class NoEnergies:
    name, level, elements = "none", "MP2020", np.arange(1, 95)

def likelihood_ratio(logp, logp_old, logp_base, advantage, weight, clip, kl_weight):
    """The surrogate without a clip."""
    ratio = jnp.exp(logp - logp_old)
    return -(weight * ratio * advantage[:, None]).sum(), {"largest_ratio": ratio.max()}

def the_same(*arguments):
    return objectives.grpo(*arguments)

def hinge(logp_chosen, logp_rejected, reference_chosen, reference_rejected, beta, smoothing, anchor,
          n_chosen):
    gap = logp_chosen - reference_chosen - logp_rejected + reference_rejected
    return jnp.maximum(0, 1 - beta * gap).mean(), {"gap": gap.mean()}

def of_two(logp, logp_old):
    return logp.mean(), {}

def small(crystals):
    """Two metrics."""
    n = np.asarray(n_atoms(crystals, primitive=True))
    return [
        Rate.of("small cell", (n > 0) & (n <= 4), "a primitive cell of 4 atoms at most"),
        Measure.mean("mean atoms", np.where(n > 0, n, np.nan), "atoms", "of the primitive cell"),
    ]

def raises(crystals):
    return 1 / 0

def number(crystals):
    return 3.0

def taken(crystals):
    return Rate.of("unique", np.ones(len(crystals), bool), "all of them")
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user") / "mine.py"
    path.write_text(FILE)
    return path


def test_a_potential(file: Path, tmp_path: Path) -> None:
    crystals = load("prototypes").crystals[:40:2]
    config = StabilityConfig(f"{file}:Dense", cache=tmp_path / "energies.sqlite")
    with StabilityReward(config) as stability:
        found = stability(crystals)
        assert stability.label.endswith(", dense")
    iron = (crystals.species == 26).any(axis=1)
    assert {found.reasons[row] for row in np.flatnonzero(iron)} <= {"iron"}
    assert found.ok.any() and not found.ok[iron].any()
    copy = tmp_path / "mine.py"
    copy.write_text(FILE.replace("-4 /", "-5 /"))
    with StabilityReward(StabilityConfig(f"{copy}:Dense", cache=config.cache)) as stability:
        other = stability(crystals)
        copy.write_text(FILE)  # what is kept belongs to the text of the file
    assert (other.info["energy_per_atom"] < found.info["energy_per_atom"])[found.ok].all()
    with StabilityReward(StabilityConfig(f"{copy}:Dense", cache=config.cache)) as stability:
        again = stability(crystals)
    np.testing.assert_array_equal(again.value, found.value)


@pytest.mark.slow
def test_a_potential_in_workers(file: Path) -> None:
    crystals = load("prototypes").crystals[:6]
    pool = PoolConfig(kind="processes", n_workers=1)
    with StabilityReward(StabilityConfig(f"{file}:Dense", pool=pool)) as stability:
        found = stability(crystals)
    with StabilityReward(StabilityConfig(f"{file}:Dense")) as stability:
        np.testing.assert_allclose(found.value, stability(crystals).value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoEnergies", "is no potential: its class lacks energies, relax"),
        ("Absent", "defines no class 'Absent'"),
        ("Dense@MP", "names no class"),
    ],
)
def test_what_is_no_potential(file: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StabilityReward(StabilityConfig(f"{file}:{name}"))
    with pytest.raises(FileNotFoundError):
        create_potential("absent.py:Dense")
    with pytest.raises(ValueError, match=r"no potential is named 'dense': .*or FILE\.py:CLASS"):
        create_potential("dense")


def policy_gradient(config: ReinforceConfig, n_steps: int = 4) -> tuple[Any, dict]:
    """Parameters and metrics of the toy problem after some steps."""
    base, reward = tables(0), jnp.asarray(np.random.default_rng(1).normal(size=len(SEQUENCES)))
    optimizer = OptimizerConfig(learning_rate=0.02, warmup_steps=0).build(n_steps)
    update, state = make_update(actions, optimizer, config), ReinforceState.create(base, optimizer)
    for _ in range(n_steps):
        state, metrics = update(state, base, (), jnp.asarray(SEQUENCES)[None], reward)
    return state.train.params, metrics


def test_an_objective_of_policy_gradients(file: Path) -> None:
    grpo = ReinforceConfig(algorithm="grpo", batch_size=27, group_size=27)
    known, _ = policy_gradient(grpo)
    same, _ = policy_gradient(replace(grpo, objective=f"{file}:the_same"))
    jax.tree.map(np.testing.assert_array_equal, known, same)
    other, metrics = policy_gradient(replace(grpo, objective=f"{file}:likelihood_ratio"))
    assert metrics["largest_ratio"] > 1
    assert not np.allclose(log_probs(other, SEQUENCES), log_probs(known, SEQUENCES))


def test_an_objective_of_pairs(file: Path) -> None:
    base, optimizer = tables(0), OptimizerConfig(learning_rate=0.05, warmup_steps=0).build(40)
    config = DpoConfig(objective=f"{file}:hinge", beta=1.0)
    update = make_preference_update(actions, optimizer, config, 0.0)
    state, pair = TrainState.create(base, optimizer), jnp.asarray(SEQUENCES[[3, 14]])
    before = np.asarray(log_probs(base, pair))
    for _ in range(40):
        state, metrics = update(state, (), pair[None], jnp.asarray(before)[None])
    change = np.asarray(log_probs(state.params, pair)) - before
    assert change[0] - change[1] > 1 and metrics["gap"] > 1
    assert metrics["loss"] == 0  # as that of DPO is never


def test_what_is_no_objective(file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ReinforceConfig(objective="absent.py:mine")
    with pytest.raises(ValueError, match="names no function"):
        DpoConfig(objective=str(file))
    with pytest.raises(ValueError, match=r"of_two is called with \(logp, logp_old, logp_base, adv"):
        ReinforceConfig(objective=f"{file}:of_two")


def test_metrics(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    crystals = load("prototypes").crystals[:5].padded(6)
    names = ("small", "raises", "number", "taken")
    sources = tuple(f"{file}:{name}" for name in names)
    found = evaluate(crystals, config=EvaluationConfig(progress=False, metrics=sources))
    n = np.asarray(n_atoms(crystals, primitive=True))
    rate, mean = found["small cell"], found["mean atoms"]
    assert isinstance(rate, Rate) and isinstance(mean, Measure)
    assert (rate.count, rate.total) == (np.sum(n[:5] <= 4), 6)
    assert mean.value == pytest.approx(n[:5].mean())
    notes = "\n".join(found.context)
    assert "mine.py:raises failed: ZeroDivisionError" in notes
    assert "mine.py:number failed: TypeError: it returned float, not a Rate or a Measure" in notes
    assert "mine.py:taken failed: ValueError: there is a metric 'unique' already" in notes
    assert caplog.text.count("failed") == 3
    with pytest.raises(FileNotFoundError):
        EvaluationConfig(metrics=("absent.py:small",))
    with pytest.raises(ValueError, match="is called with"):
        EvaluationConfig(metrics=(f"{file}:of_two",))


def test_a_metric_from_a_shell(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(load("prototypes").crystals[:6], "some.csv", {})
    options = f"--potential {file}:Dense --metrics {file}:small".split()
    main(["evaluate", "some.csv", *options, "--debug"])
    report = json.loads(Path("evaluation/report.json").read_text(encoding="utf-8"))
    names = {metric["name"] for metric in report["evaluations"]["samples"]["metrics"]}
    assert {"small cell", "mean atoms", "stable"} <= names


@pytest.mark.slow
def test_all_in_one_experiment(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick start with potential, objective and metric of a user's, from its command line."""
    load_script("quickstart.py")
    monkeypatch.chdir(tmp_path)
    policy = WyckoffPolicy(SMALL, load("prototypes").space_group_counts)
    policy.save("model", policy.init(0))
    options = (
        f"--setup.model model --setup.stability.potential {file}:Dense"
        f" --setup.metrics {file}:small --rl.objective {file}:likelihood_ratio --output out"
        " --setup.n-samples 8 --setup.sampling.batch-size 8 --rl.n-steps 1 --rl.batch-size 8"
    )
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *options.split()])
    runpy.run_path(str(SCRIPTS["quickstart.py"]), run_name="__main__")
    report = Path("out/report.md").read_text(encoding="utf-8")
    assert "small cell" in report and "a primitive cell of 4 atoms at most" in report
    assert (
        "dense"
        in json.loads(Path("out/report.json").read_text())["provenance"]["inputs"]["energies"]
    )
    lines = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    assert any("rl/largest_ratio" in line for line in lines)
