"""The comparison of tokenizations from its command line to its report, at a tiny size."""

import csv
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scripts import SCRIPTS, load_script
from user_format import FORMAT

pytestmark = pytest.mark.slow

NAME = "tokenizations.py"
TINY = (
    "small --tokenizations wyckoff wyckoff-text --core.n-layers 1 --core.n-heads 1 "
    "--data.n-train 200 --data.n-validation 20 --data.max-sites 2 --budget.flops 1e11 "
    "--budget.search 0.2 --budget.learning-rates 0.005 0.02 --samples.n 8 "
    "--rl.dpo.n-iterations 1 --rl.dpo.n-samples 16 --rl.dpo.batch-size 2 --rl.grpo.n-steps 1 "
    "--rl.grpo.batch-size 16 --rl.grpo.group-size 4 --rl.grammar --debug "
    "--output out"
)


def run(monkeypatch: pytest.MonkeyPatch, *options: str, settings: str = TINY) -> None:
    load_script(NAME)  # skips if an extra is absent
    monkeypatch.setattr(sys, "argv", [NAME, *" ".join([settings, *options]).split()])
    runpy.run_path(str(SCRIPTS[NAME]), run_name="__main__")


def times(folder: Path) -> dict[str, int]:
    """When each result was written."""
    found = folder.glob("runs/*/*/result.json")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def test_a_comparison_and_what_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "out"
    run(monkeypatch, "--only wyckoff")
    first = times(output)
    assert {Path(name).parts[1] for name in first} == {"wyckoff-hybrid-canonical"}
    assert "runs are not finished" in (output / "report.md").read_text(encoding="utf-8")

    run(monkeypatch, "--stages train evaluate rl")
    second = times(output)
    assert first.items() <= second.items()  # nothing that was finished is done again
    stages = {name.split("/")[2].split("-")[0] for name in second}
    assert stages == {"ceiling", "search", "train", "free", "grammar", "dpo", "grpo"}
    learnt = [name for name in second if "/dpo-" in name or "/grpo-" in name]
    assert len(learnt) == 4

    text = output / "runs/wyckoff-text-own-canonical"
    trained = json.loads((text / "train-seed0/result.json").read_text(encoding="utf-8"))
    (text / "train-seed0/result.json").unlink()  # as if it had been killed at its very end
    run(monkeypatch)
    again = json.loads((text / "train-seed0/result.json").read_text(encoding="utf-8"))
    assert again["nll"] == pytest.approx(trained["nll"], rel=1e-5)
    assert again["curve"] == trained["curve"]
    shutil.rmtree(text / "train-seed0")  # alone, without the searches before it
    run(monkeypatch)
    alone = json.loads((text / "train-seed0/result.json").read_text(encoding="utf-8"))
    assert alone["nll"] == pytest.approx(trained["nll"], rel=1e-5)
    np.testing.assert_allclose(alone["curve"], trained["curve"], rtol=1e-5)
    unchanged = {k: x for k, x in second.items() if "text-own-canonical/train" not in k}
    assert unchanged.items() <= times(output).items()

    cost = {}
    for folder in ("wyckoff-hybrid-canonical", "wyckoff-text-own-canonical"):
        path = output / "runs" / folder / "train-seed0/result.json"
        cost[folder] = json.loads(path.read_text(encoding="utf-8"))
    flops = [result["flops"] for result in cost.values()]
    np.testing.assert_allclose(flops, 1e11, rtol=0.05)
    sizes = [result["non_embedding"] for result in cost.values()]
    assert abs(sizes[0] - sizes[1]) <= 0.03 * min(sizes)
    with (output / "comparison.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {line["tokenization"] for line in lines} == {"wyckoff", "wyckoff-text"}
    report = (output / "report.md").read_text(encoding="utf-8")
    assert "runs are not finished" not in report
    for name in ("trade_off", "curves", "dpo", "grpo"):
        assert (output / f"{name}.png").stat().st_size > 1000


def test_processes_share_a_comparison(tmp_path: Path) -> None:
    """Started at once, they train each variant and seed once, and search once for all seeds."""
    load_script(NAME)
    settings = TINY.replace("--debug", "--stages train --seeds 0 1")
    command = [sys.executable, str(SCRIPTS[NAME]), *settings.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    crew = [subprocess.Popen(command, cwd=tmp_path, **pipes) for _ in range(2)]
    said = [process.communicate(timeout=1200)[0] for process in crew]
    assert [process.returncode for process in crew] == [0, 0], said
    begun = re.findall(r"^(\S+): \d+ steps at", "\n".join(said), re.MULTILINE)
    assert sorted(begun) == sorted(
        f"{variant}-canonical/{run}"
        for variant in ("wyckoff-hybrid", "wyckoff-text-own")
        for run in ("search-lr0.005-seed0", "search-lr0.02-seed0", "train-seed0", "train-seed1")
    )
    assert len([x for x in times(tmp_path / "out") if "/train-" in x]) == 4


def test_a_format_of_a_user_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, sampled and trained by reward, from a file outside the package."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text(FORMAT, encoding="utf-8")
    name = f"{file}:OneLine"
    settings = TINY.replace("wyckoff wyckoff-text", name).replace("0.005 0.02", "0.01")
    run(monkeypatch, "--stages train evaluate rl", settings=settings)
    stages = {Path(path).parts[2].split("-")[0] for path in times(tmp_path / "out")}
    assert stages == {"ceiling", "train", "free", "grammar", "dpo", "grpo"}
    with (tmp_path / "out/comparison.csv").open(encoding="utf-8") as lines:
        found = {(x["stage"], x["name"]): x for x in csv.DictReader(lines)}
    assert {x["tokenization"] for x in found.values()} == {name}
    ceiling = found["ceiling", "round trip"]
    assert float(ceiling["value"]) == 1
    report = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert "runs are not finished" not in report and "Before and after 16 rewards" in report


def test_a_budget_that_is_too_small_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="raise the budget"):
        run(monkeypatch, "--budget.flops 1e9 --budget.min-steps 10")
    assert not times(tmp_path / "out")
