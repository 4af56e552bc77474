"""An experiment from its start to its report; W&B is read back from the files of offline runs."""

import json
import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from wandb_files import OfflineRun, offline_runs

from crystaljax import provenance
from crystaljax.data.dataset import load
from crystaljax.evaluation.policies import Assessment
from crystaljax.evaluation.rates import Measure, MetricSet, Rate
from crystaljax.evaluation.report import Report, Table
from crystaljax.experiment.best import BestStructures
from crystaljax.experiment.experiment import Experiment, columns_of, summarize
from crystaljax.symmetry.tables import tables
from crystaljax.tracking import TrackingConfig, read_metrics

OFFLINE = TrackingConfig(mode="offline")


@dataclass(frozen=True)
class Training:
    seed: int = 3
    bound: float = math.inf


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    output: Path = Path("runs/study")
    tracking: TrackingConfig = OFFLINE


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key of the person who runs the tests, and a command line like a script's."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setattr("sys.argv", ["/somewhere/study.py", "--training.seed", "3"])


def metrics(stable: int) -> MetricSet:
    """Of 20 samples."""
    rates = (
        Rate.of("metastable S.U.N.", np.arange(20) < stable, "few"),
        Measure("median energy", 0.25, math.nan, "eV/atom", 20, "middle"),
    )
    return MetricSet(20, rates, ("20 samples",), {})


def best_of_four() -> BestStructures:
    """Three crystals of known energies, and one of none."""
    found = load("prototypes").crystals.to_numpy()[:4]
    energies = np.array([0.3, -0.1, np.nan, 0.1])
    columns = {
        "formula": np.array(["A", "B", "C", "D"]),
        "space_group": np.asarray(found.space_group),
        "e_above_hull": energies,
        "e_above_hull_Judge_2": energies + 1,
        "novel": np.array([True, False, True, True]),
    }
    evaluation = MetricSet(4, (), (), columns)
    assessment = Assessment(found, energies, evaluation)  # type: ignore[arg-type]
    return BestStructures.of(assessment, "Best of four")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study with a main run and another one, finished."""
    folder = tmp_path_factory.mktemp("study") / "kl"
    model = folder.parent / "llm_sft" / "model"
    model.mkdir(parents=True)
    (model / "weights").write_bytes(b"123")
    with pytest.MonkeyPatch.context() as patch:
        no_account.__wrapped__(patch, folder.parent)  # type: ignore[attr-defined]
        patch.setattr("crystaljax.experiment.experiment.latest_step", lambda _: None)
        with Experiment(Config(), folder, OFFLINE, "RL", checkpoints="rl") as experiment:
            experiment.use("model", model)
            experiment.use("reference", "prototypes")
            experiment.describe(energies="mp_hull, CHGNet 0.3.0", energies_of_judge=None)
            experiment.main.log({"reward/mean": 1.0}, 1)
            with experiment.run("sft", "SFT", Training(7)) as run:
                run.log({"train/nll": 2.0}, 1)
                run.log({"train/nll": 1.0}, 2)
                summarize(run.tracker, "samples", metrics(5))
            experiment.main.log({"reward/mean": 3.0}, 2)
            figure = Figure()
            figure.subplots().plot([0, 1])
            tuned = folder / "model"
            tuned.mkdir()
            (tuned / "weights").write_bytes(b"456")
            report = Report(
                "A study",
                {"before PPO": metrics(4), "after PPO": metrics(8)},
                experiment.pictures({"loss": (figure, "Loss")}),
                [Table("The ends", [["method", "KL"], ["PPO", "0.50"], ["DPO", "1.25"]])],
                ["Forty steps."],
                {"kl_from_base_nats": 0.75},
            )
            experiment.finish(report, best=best_of_four(), outputs={tuned: "model"})
    yield folder


def main_run(study: Path) -> OfflineRun:
    (run,) = offline_runs(study)
    return run


def test_the_report_says_where_it_comes_from(study: Path) -> None:
    found = json.loads((study / "report.json").read_text())
    assert found["kl_from_base_nats"] == 0.75
    origin = found["provenance"]
    assert origin["command"] == "study.py --training.seed 3"
    assert origin["config"]["training"] == {"seed": 3, "bound": "inf"}
    assert origin["seeds"] == {"training.seed": 3}
    assert {"crystaljax", "jax", "flax", "python"} <= origin["versions"].keys()
    assert origin["inputs"]["model"]["artifact"] == "llm_sft-model"
    assert len(origin["inputs"]["model"]["sha256"]) == 64
    assert origin["inputs"]["reference"] == "prototypes"
    assert origin["inputs"]["energies"] == "mp_hull, CHGNet 0.3.0"
    assert "energies_of_judge" not in origin["inputs"]
    assert origin["hardware"] and origin["seconds"] > 0 and origin["started"].startswith("20")
    page = (study / "report.md").read_text()
    assert "Forty steps." in page
    assert f"on {origin['hardware']}, with crystaljax" in page
    assert found["candidates"]["formula"] == ["B", "D", "A"]
    assert found["candidates"]["e above hull Judge 2 (eV/atom)"] == [0.9, 1.1, 1.3]


def test_wandb_has_every_metric_with_its_error(study: Path) -> None:
    summary = main_run(study).summary
    for label, count in (("before_PPO", 4), ("after_PPO", 8)):
        assert summary[f"{label}/metastable_SUN"] == count / 20
        error = metrics(count)["metastable S.U.N."].standard_error
        assert summary[f"{label}/metastable_SUN_se"] == pytest.approx(error)
    assert summary["after_PPO/median_energy"] == 0.25
    assert "after_PPO/median_energy_se" not in summary  # there is none
    assert summary["kl_from_base_nats"] == 0.75
    rows = main_run(study).table("results")
    assert [(row["samples"], row["value"], row["count / total"]) for row in rows[::2]] == [
        ("before PPO", 0.2, "4 / 20"),
        ("after PPO", 0.4, "8 / 20"),
    ]


def test_wandb_has_tables_pictures_and_curves(study: Path) -> None:
    run = main_run(study)
    assert run.table("tables/The_ends") == [
        {"method": "PPO", "KL": 0.5},
        {"method": "DPO", "KL": 1.25},
    ]
    picture = run.summary["report/loss"]
    assert (run.folder / "files" / picture["path"]).read_bytes() == (
        study / "loss.png"
    ).read_bytes()
    curve = [row["reward/mean"] for row in run.history if "reward/mean" in row]
    assert curve == [1.0, 3.0]


def test_wandb_has_the_best_structures(study: Path) -> None:
    rows = main_run(study).table("best_structures")
    assert [row["formula"] for row in rows] == ["B", "D", "A"]
    assert [row["e above hull (eV/atom)"] for row in rows] == pytest.approx([-0.1, 0.1, 0.3])
    assert [row["e above hull Judge 2 (eV/atom)"] for row in rows] == pytest.approx([0.9, 1.1, 1.3])
    assert [row["novel"] for row in rows] == [False, True, True]
    first = load("prototypes").crystals.to_numpy()[1]
    group = int(np.asarray(first.space_group).item())
    assert rows[0]["space group"] == f"{group} {tables().symbol[group - 1]}"
    from pymatgen.core import Structure

    for row in rows:
        assert len(Structure.from_str(row["CIF"], "cif"))
    pictures = sorted(path.name for path in (study / "structures").iterdir())
    assert pictures == ["0000.png", "0001.png", "0002.png"]


def test_wandb_has_settings_origin_and_lineage(study: Path) -> None:
    run = main_run(study)
    assert run.config["training"]["seed"] == 3
    assert run.config["inputs"]["energies"] == "mp_hull, CHGNet 0.3.0"
    assert run.config["inputs"]["model"]["artifact"] == "llm_sft-model"
    assert run.config["provenance"]["versions"].keys() >= {"crystaljax", "jax", "flax"}
    assert run.config["provenance"]["hardware"]
    artifact = run.artifacts["kl-model"]
    assert artifact.type == "model"
    assert [x.path for x in artifact.manifest.contents] == ["weights"]
    lineage = json.loads(artifact.metadata)
    assert lineage["run"] == run.id
    assert lineage["inputs"]["model"]["artifact"] == "llm_sft-model"


def test_runs_of_a_study_are_one_group(study: Path) -> None:
    (other,) = offline_runs(study / "sft")
    run = main_run(study)
    assert run.group == other.group == "kl"
    assert (run.job_type, other.job_type) == ("RL", "SFT")
    assert run.id != other.id
    assert other.config["run_settings"] == {"seed": 7, "bound": math.inf}
    assert other.summary["samples/metastable_SUN"] == 0.25
    assert read_metrics(study / "sft")["train/nll"][:, 1].tolist() == [2.0, 1.0]


def test_runs_that_are_gone_on_with_are_the_same_in_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those with checkpoints say from which step; so do those that were killed before one."""
    caplog.set_level(logging.INFO, "crystaljax")
    steps: dict[str, int | None] = {"rl": None, "sft": None}
    monkeypatch.setattr(
        "crystaljax.experiment.experiment.latest_step", lambda folder: steps[folder.name]
    )
    for start in range(3):
        with Experiment(Config(), tmp_path / "a", OFFLINE, "RL", "rl") as experiment:
            experiment.main.log({"reward/mean": 0.1}, 5 * start + 1)
            with experiment.run("sft") as run:
                run.log({"train/nll": 2.0}, 3 * start + 1)
        if start == 1:
            steps |= {"rl": 6, "sft": 4}
    (main,) = {run.id for run in offline_runs(tmp_path / "a")}
    (sft,) = {run.id for run in offline_runs(tmp_path / "a" / "sft")}
    assert len(offline_runs(tmp_path / "a")) == 3 and main != sft
    said = [x.message for x in caplog.records if "gone on with" in x.message]
    assert said == [
        f"W&B: the run {run} is gone on with, from {where}"
        for run, where in (
            *((main, "its start"), (sft, "its start")),
            *((main, "step 6"), (sft, "step 4")),
        )
    ]


def test_a_study_without_checkpoints_is_the_same_run_in_wandb(tmp_path: Path) -> None:
    for _ in range(2):
        with Experiment(Config(), tmp_path, OFFLINE, "report") as experiment:
            experiment.finish(Report("A study", {"samples": metrics(4)}))
    ids = [run.id for run in offline_runs(tmp_path)]
    assert len(ids) == 2 and len(set(ids)) == 1


def test_what_wandb_left_of_a_start_is_no_run(tmp_path: Path) -> None:
    """A run that finished nothing may be started with other settings, W&B or not."""
    with Experiment(Config(), tmp_path / "a", OFFLINE, "RL", "rl"):
        pass
    with Experiment(Config(Training(4)), tmp_path / "a", OFFLINE, "RL", "rl"):
        pass
    first, second = offline_runs(tmp_path / "a")
    assert first.id != second.id


def test_without_wandb_nothing_is_drawn_for_it(tmp_path: Path) -> None:
    with Experiment(Config(), tmp_path / "a", TrackingConfig(), "RL") as experiment:
        experiment.finish(Report("None", {"samples": metrics(1)}), best=best_of_four())
    assert not (tmp_path / "a" / "structures").exists()
    assert (tmp_path / "a" / "report.html").is_file()


def test_online_the_model_is_used_as_an_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    used = []

    class Run:
        id, offline, config, summary = "x", False, {}, {}

        def use_artifact(self, artifact: wandb.Artifact) -> None:
            used.append((artifact.name, artifact.type, sorted(artifact.manifest.entries)))

        def finish(self, exit_code: int) -> None:
            pass

    class Updatable(dict):
        def update(self, *entries: object, **_: object) -> None:
            super().update(*entries)

    Run.config = Updatable()
    monkeypatch.setattr(wandb, "init", lambda **_: Run())
    model = tmp_path / "runs" / "model"
    model.mkdir(parents=True)
    (model / "weights").write_bytes(b"123")
    online = TrackingConfig(mode="online")
    with Experiment(Config(), tmp_path / "a", online, "RL") as experiment:
        experiment.use("model", model)
    assert used == [("runs-model", "model", ["weights"])]


def test_columns_of_a_table() -> None:
    table = Table("", [["", "a", "a"], ["x", "1", "–"], ["y", "2.5", "3"]])
    assert columns_of(table) == {"0": ["x", "y"], "a": [1.0, 2.5], "a 2": ["–", "3"]}


def test_the_commit_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=b")
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    file = tmp_path / "crystaljax" / "provenance.py"
    file.parent.mkdir()
    file.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(file))
    commit = provenance.git_commit.__wrapped__
    assert commit() is None
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    assert commit() == git("rev-parse", "HEAD")
    file.write_text("changed")
    assert commit() == git("rev-parse", "HEAD") + "-dirty"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["/env/bin/crystaljax", "compare", "a b"], "crystaljax compare 'a b'"),
        (["/env/crystaljax/__main__.py", "data", "x"], "crystaljax data x"),
    ],
)
def test_the_command_is_named(argv: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", argv)
    assert provenance.command() == said
