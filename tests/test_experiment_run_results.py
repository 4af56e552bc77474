"""Tests of crystaljax.experiment.run_results: which runs of a study are computed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from crystaljax.data.files import HeldByAnother, locked
from crystaljax.experiment.run_results import check_parts, check_seeds, chosen, do_run


def test_runs_are_chosen_by_name_each_once() -> None:
    assert chosen(("base", "sft", "sft"), ()) == ["base", "sft"]
    assert chosen(("base", "sft", "joint"), ("joint", "base")) == ["base", "joint"]
    with pytest.raises(ValueError, match=r"has 'ppo', which is not compared here: .* base; sft"):
        chosen(("base", "sft"), ("sft", "ppo"))


@pytest.mark.parametrize("seeds", [(), (0, 1, 0), (-1, 2)])
def test_seeds_that_would_give_no_errors_are_refused(seeds: tuple[int, ...]) -> None:
    check_seeds((0, 2, 1))
    with pytest.raises(ValueError, match="one or more different whole numbers from 0"):
        check_seeds(seeds)


def test_batches_that_training_could_not_split_are_refused() -> None:
    check_parts("rl", 16, 8, 4)
    with pytest.raises(ValueError, match="rl: batch_size 16 cannot be split into n_parts 3"):
        check_parts("rl", 16, 3)
    with pytest.raises(ValueError, match="rl: n_parts 8 cannot be split into n_minibatches 3"):
        check_parts("rl", 16, 8, 3)


SHARED = """
import sys, time
from functools import partial
from pathlib import Path
from crystaljax.experiment.run_results import do_run

output, failures = Path(sys.argv[1]), []

def work(name):
    result = output / name / "result"
    if result.exists():
        return
    if name == "run 3":
        raise FloatingPointError("the loss is nan")
    with (output / "log").open("a") as log:
        log.write(name + chr(10))
    result.parent.mkdir()
    time.sleep(0.3)
    result.touch()

print("ready", flush=True)
while not (output / "go").exists():
    time.sleep(0.01)
for name in [f"run {i}" for i in range(6)]:
    do_run(name, output / name, failures, partial(work, name))
print(failures)
"""


def test_processes_share_runs_and_failures_are_noted(tmp_path: Path) -> None:
    """Each takes what no other has begun; together they do all of it, each run once."""
    command = [sys.executable, "-c", SHARED, str(tmp_path)]
    crew = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.stdout and process.stdout.readline() for process in crew] == ["ready\n"] * 3
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=120)[0] for process in crew]
    assert [process.returncode for process in crew] == [0, 0, 0]
    done = (tmp_path / "log").read_text().splitlines()
    assert sorted(done) == [f"run {i}" for i in (0, 1, 2, 4, 5)]
    assert any("run 3: the loss is nan" in x for x in said)


def test_a_run_is_left_to_who_has_begun_it_and_free_when_that_ends(tmp_path: Path) -> None:
    holder = (
        "import sys, time\nfrom pathlib import Path\nfrom crystaljax.data.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    folder, failures, done = tmp_path / "runs" / "a", [], []
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        do_run("a", folder, failures, lambda: done.append("a"))
        assert (failures, done) == ([], [])
        with pytest.raises(HeldByAnother), locked(folder, wait=False):
            pass
    finally:
        process.kill()  # as by a cluster's time limit
        process.wait()
    do_run("a", folder, failures, lambda: done.append("a"))
    assert (failures, done) == ([], ["a"])


def test_a_mistake_ends_the_study(tmp_path: Path) -> None:
    def mistaken() -> None:
        raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file"):
        do_run("a", tmp_path / "a", [], mistaken)
    failures: list[str] = []
    do_run("a", tmp_path / "a", failures, mistaken, ValueError)
    assert failures == ["a: no such file"]
