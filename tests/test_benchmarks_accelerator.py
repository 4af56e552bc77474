"""The script that users check their device with: its pure parts, and tiny runs of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small import SMALL

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "benchmarks" / "accelerator.py"
sys.path.insert(0, str(SCRIPT.parent))

from accelerator_sections import agree, crystals, pretraining  # noqa: E402
from accelerator_sections.agreement import TOLERANCES, Tolerance, compare  # noqa: E402
from accelerator_sections.run import Budget, Found, Measurement, Run, Section, timed  # noqa: E402

from crystaljax.data.prototypes import prototypes  # noqa: E402
from crystaljax.policies.wyckoff import WyckoffPolicy, load_wyckoff  # noqa: E402
from crystaljax.roofline import Peak, Work  # noqa: E402

FORBIDDEN = (
    *("pymatgen", "torch", "gemmi", "spglib", "moyopy", "wandb", "tyro", "pyxtal", "ase", "smact"),
    *("pandas", "pyarrow", "matplotlib", "transformers", "tokenizers", "safetensors", "qwix"),
    *("nequix", "equinox", "pycalphad"),
)
"""Packages that a machine with jax, flax, optax and numpy alone does not have."""

BARE = """
import importlib.abc, runpy, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[2:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def quiet(budget: float = 100.0, output: Path | None = None) -> Run:
    return Run({}, Budget(budget), output, say=lambda line: None)


def section(*measurements: Measurement) -> Section:
    def yields(run: Run, budget: Budget) -> Iterator[Measurement]:
        yield from measurements

    return yields


def fails(error: Exception) -> Callable[[], Found]:
    def measure() -> Found:
        raise error

    return measure


def test_a_budget_is_shared_out_and_never_negative() -> None:
    clock = Clock()
    budget = Budget(100.0, clock)
    part = budget.part(0.25)
    assert part.left == 25
    clock.now = 30.0
    assert part.left == 0
    assert budget.left == 70
    assert budget.part(3.0).left == 70


def test_what_a_section_leaves_over_the_others_share() -> None:
    found: list[float] = []

    def note(run: Run, budget: Budget) -> Iterator[Measurement]:
        found.append(budget.left)
        yield "nothing", lambda: Found(0.0, "")

    quiet(120.0).sections({"a": (1.0, note), "b": (2.0, note), "c": (3.0, note)})
    np.testing.assert_allclose(found, [20, 48, 120], atol=1)


def test_failures_and_absences_cost_their_own_rows(tmp_path: Path) -> None:
    def cannot_start(run: Run, budget: Budget) -> Iterator[Measurement]:
        yield "first", lambda: Found(1.0, "")
        raise ImportError("no such package")

    output = tmp_path / "found.json"
    run = quiet(output=output)
    within = section(
        ("broken", fails(ValueError("out of range\nmore"))),
        ("absent", fails(ModuleNotFoundError("no nequix"))),
        ("no file", fails(FileNotFoundError("no weights"))),
        ("differs", lambda: Found(1.0, "", agrees=False)),
        ("agrees", lambda: Found(float("nan"), "", agrees=True)),
        ("two", lambda: {"one": Found(1.0, ""), "other": Found(2.0, "")}),
    )
    run.sections({"a": (1.0, within), "b": (1.0, cannot_start)})
    status = {row.name: row.status for row in run.rows}
    assert status == {
        "broken": "failed",
        "absent": "skipped",
        "no file": "skipped",
        "differs": "differs",
        "agrees": "agrees",
        "one": "measured",
        "other": "measured",
        "first": "measured",
        "all of it": "skipped",
    }
    assert run.faults == 2
    assert run.rows[0].note == "ValueError: out of range"
    kept = json.loads(output.read_text())
    assert kept == json.loads(run.report())
    assert kept["rows"][4]["value"] is None  # not a number, which JSON has none of


def test_rows_are_kept_one_by_one(tmp_path: Path) -> None:
    output = tmp_path / "found.json"

    def second() -> Found:
        assert [row["name"] for row in json.loads(output.read_text())["rows"]] == ["first"]
        return Found(2.0, "")

    run = quiet(output=output)
    run.section("a", section(("first", lambda: Found(1.0, "")), ("second", second)), Budget(10.0))
    assert [row.status for row in run.rows] == ["measured", "measured"]


def test_what_does_not_fit_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)

    def takes(seconds: float) -> Callable[[], Found]:
        def measure() -> Found:
            clock.now += seconds
            return Found(seconds, "s")

        return measure

    run = quiet()
    budget = Budget(20.0, clock)
    run.section("a", section(("12 s", takes(12)), ("more", takes(1)), ("again", takes(1))), budget)
    run.section("b", section(("later", takes(1))), Budget(0.0, clock))
    assert [row.status for row in run.rows] == ["measured", "skipped", "skipped"]
    assert "8 s left" in run.rows[1].note and run.rows[1].name == "more, and 1 more"
    assert run.rows[1].details == {"skipped": ["more", "again"]}
    assert run.rows[2].name == "all of it"


def test_a_run_ends_in_time_with_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    run = Run({}, Budget(0.05), say=lines.append)
    run.section("a", section(("wrong", lambda: Found(1.0, "", agrees=False))), Budget(1.0))
    run.stop_at_the_end().join()
    assert ended == [1]
    rows = json.loads(lines[-1])["rows"]
    assert [row["name"] for row in rows] == ["wrong", "stopped"]
    assert rows[-1]["note"].endswith("a, wrong")


def test_the_first_time_is_told_apart() -> None:
    calls: list[int] = []
    timing = timed(lambda: calls.append(1), Budget(0.0), at_least=4)
    assert timing.n == 4 and len(calls) == 5


def test_limits_are_of_the_measured_peaks() -> None:
    run = quiet()
    assert run.limit(Work({"float32": 1.0}, 1.0), 1.0) == ("no peaks were measured", {})
    run.peak = Peak({"float32": 10.0}, 100.0)
    line, shares = run.limit(Work({"float32": 8.0}, 10.0), 1.0)
    assert "arithmetic" in line
    assert shares == {"share_of_peak": 0.8, "share_of_bandwidth": 0.1}


def test_agreement_is_in_norm_and_by_sample() -> None:
    expected = {"tokens": np.array([[1, 2], [3, 4]]), "x": np.array([[3.0, 4.0], [1.0, 1.0]])}
    assert compare(expected, expected).within(Tolerance(0.0, 0.0))
    found = {"tokens": np.array([[1, 2], [3, 5]]), "x": np.array([[3.0, 4.5], [9.0, 9.0]])}
    other = compare(found, expected)  # the second sample is another one, with its numbers
    assert (other.error, other.changed, other.worst) == (0.1, 0.5, "x")
    assert not other.within(Tolerance(0.2, 0.4)) and not other.within(Tolerance(0.05, 0.6))
    assert other.within(Tolerance(0.2, 0.6))
    nan = compare({"x": np.array([np.nan])}, {"x": np.array([1.0])})
    assert nan.error == np.inf and not nan.within(TOLERANCES["bfloat16"])
    with pytest.raises(ValueError, match="--write-expected"):
        compare({"x": np.zeros(2)}, {"x": np.zeros(3)})


def test_results_are_stored_for_every_step() -> None:
    checks = agree.checks_of(None)
    assert not checks.absent
    stored = {name for name in agree.read_expected() if not name.startswith(agree.POTENTIAL)}
    assert stored == set(checks.steps)


def test_crystals_come_back(tmp_path: Path) -> None:
    given = prototypes().crystals
    stored = crystals.read(crystals.DEFAULT)
    assert (len(stored.train), len(stored.validation)) == (1825, 202)
    rows = np.arange(len(given)) % crystals.HELD_OUT == crystals.HELD_OUT - 1
    jax.tree.map(np.testing.assert_array_equal, stored.train, given[~rows].to_numpy())
    jax.tree.map(np.testing.assert_array_equal, stored.validation, given[rows].to_numpy())
    with pytest.raises(FileNotFoundError, match="--encode"):
        crystals.read(tmp_path / "none.npz")
    other = tmp_path / "other.npz"
    np.savez(other, x=np.zeros(3))
    with pytest.raises(ValueError, match="holds no crystals"):
        crystals.read(other)


def test_a_model_in_one_file_becomes_a_folder(tmp_path: Path) -> None:
    policy = WyckoffPolicy(SMALL, np.arange(230))
    params = policy.init(0)
    pretraining.write_model(tmp_path / "model.npz", policy, params)
    pretraining.unpack(tmp_path / "model.npz", tmp_path / "model")
    again, read = load_wyckoff(tmp_path / "model")
    assert again.metadata == policy.metadata
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-7), read, params)


def run_bare(*options: str) -> tuple[int, dict[str, Any]]:
    """The script where most packages are absent: its exit status, and its last line."""
    # Code that is compiled faster and runs slower.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    done = subprocess.run(
        [sys.executable, "-c", BARE, ",".join(FORBIDDEN), str(SCRIPT), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    return done.returncode, json.loads(lines[-1])


def test_little_is_needed_to_begin() -> None:
    status, found = run_bare("--minutes", "1", "--size", "tiny", "--sections", "peaks", "potential")
    assert status == 0
    rows = {row["section"]: row for row in found["rows"]}
    assert rows["peaks"]["status"] == "measured" and rows["peaks"]["value"] > 0
    assert rows["potential"]["status"] == "skipped" and "--nequix" in rows["potential"]["note"]


@pytest.mark.slow
def test_every_section_runs_with_little_installed(tmp_path: Path) -> None:
    """With time enough for all of them, on a busy machine too."""
    model, output = tmp_path / "model.npz", tmp_path / "found.json"
    status, found = run_bare(
        *("--minutes", "30", "--size", "tiny", "--output", str(output), "--pretrain", str(model)),
        *("--sections", "peaks", "training", "sampling", "ppo", "llm"),
    )
    assert status == 0, found
    assert json.loads(output.read_text()) == found
    rows = found["rows"]
    assert {row["status"] for row in rows} <= {"measured", "agrees"}
    assert {row["section"] for row in rows} == {
        *("peaks", "training", "sampling", "ppo", "llm", "pretrain")
    }
    policy, params = pretraining.read_model(model)
    assert policy.config.n_layers == 2 and len(jax.tree.leaves(params)) > 10


@pytest.mark.slow
def test_steps_agree_where_little_is_installed() -> None:
    """As many as there is time for: this takes all of it."""
    status, found = run_bare("--minutes", "0.7", "--size", "tiny", "--sections", "agreement")
    assert status == 0, found
    assert found["counts"]["agrees"] >= 1 and not {"differs", "failed"} & set(found["counts"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sampling", "Llama logits", "decoding with a cache"])
def test_what_is_stored_is_up_to_date(name: str) -> None:
    """Otherwise: accelerator.py --write-expected."""
    run = quiet()

    def only(run: Run, budget: Budget) -> Iterator[Measurement]:
        yield from (each for each in agree.agree(run, budget) if each[0] == f"{name}, full")

    run.section("agreement", only, Budget(1e6))
    assert [row.status for row in run.rows] == ["agrees"], run.rows
