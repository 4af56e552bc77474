"""How experiment scripts start and how a user's mistake ends them."""

import logging
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from scripts import ROOT

from crystaljax.experiment.main import run
from crystaljax.ranges import at_least, check


@dataclass(frozen=True)
class Training:
    n_steps: int = 1

    def __post_init__(self) -> None:
        check(self, n_steps=at_least(1))


@dataclass(frozen=True)
class Config:
    """A study."""

    training: Training = field(default_factory=Training)


PRESETS = {"small": ("Little.", Config()), "paper": ("Much.", Config(Training(200)))}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr("crystaljax.runtime.prepare", lambda: None)


def arguments(monkeypatch: pytest.MonkeyPatch, *given: str) -> None:
    monkeypatch.setattr(sys, "argv", ["/path/to/study.py", *given])


def test_settings_of_a_class_and_of_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Config] = []
    arguments(monkeypatch, "--training.n-steps", "3")
    run(seen.append, Config)
    arguments(monkeypatch, "paper", "--debug")
    run(seen.append, PRESETS)
    arguments(monkeypatch, "small", "--training.n-steps=5")
    run(seen.append, PRESETS)
    assert [config.training.n_steps for config in seen] == [3, 200, 5]


@dataclass(frozen=True)
class Adapters:
    rank: int = 8
    dropout: float = 0.0


@dataclass(frozen=True)
class Model:
    width: int = 4
    lora: Adapters | None = None


@dataclass(frozen=True)
class Study:
    model: Model = field(default_factory=Model)


def test_parts_that_a_preset_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting of theirs makes them, with the defaults of the others."""
    presets = {"small": ("Little.", Study()), "lora": ("More.", Study(Model(2, Adapters(3, 0.1))))}
    seen: list[Study] = []
    for given in (
        ("small", "--model.width", "5"),
        ("small", "--model.lora.rank", "4"),
        ("small", "--model.lora.dropout=0.2", "--model.width", "6"),
        ("lora", "--model.lora.rank", "5"),
    ):
        arguments(monkeypatch, *given)
        run(seen.append, presets)
    assert [study.model for study in seen] == [
        Model(5),
        Model(4, Adapters(4)),
        Model(6, Adapters(8, 0.2)),
        Model(2, Adapters(5, 0.1)),
    ]
    arguments(monkeypatch, "small", "--model.lora.width", "4")
    with pytest.raises(SystemExit):
        run(seen.append, presets)


def fails(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (ValueError("no such\nelement"), "study.py: no such element", 2),
        (FileNotFoundError(2, "No such file", "a.csv"), "study.py: a.csv: No such file", 2),
        (ImportError("install crystaljax[chgnet]"), "study.py: install crystaljax[chgnet]", 2),
        (KeyboardInterrupt(), "study.py: interrupted", 130),
    ],
)
def test_a_mistake_is_one_line(
    error: BaseException,
    line: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments(monkeypatch)
    with pytest.raises(SystemExit) as end:
        run(lambda _: fails(error), Config)
    assert end.value.code == status
    assert capsys.readouterr().err.splitlines() == [line]
    arguments(monkeypatch, "--debug")
    with pytest.raises(type(error)):
        run(lambda _: fails(error), Config)


def test_a_number_that_cannot_be_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments(monkeypatch, "--training.n-steps", "0")
    with pytest.raises(SystemExit) as end:
        run(lambda _: None, Config)
    assert end.value.code == 2
    assert "n_steps" in (said := capsys.readouterr().err)
    assert "Traceback" not in said


def test_a_fault_of_ours_has_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments(monkeypatch)
    with pytest.raises(KeyError):
        run(lambda _: fails(KeyError("x")), Config)


def test_from_a_shell(tmp_path: Path) -> None:
    script = str(ROOT / "experiments" / "curate_alloys.py")
    (tmp_path / "here.json").write_text("{}")
    command = [sys.executable, script, "small", "--output", str(tmp_path / "here.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("curate_alloys.py: ")
    assert "Traceback" not in done.stderr
