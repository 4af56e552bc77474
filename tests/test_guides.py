"""The guides in experiments/guides: every example in them is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from scripts import ROOT

GUIDES = sorted((ROOT / "experiments" / "guides").glob("*.md"))

NEEDED = {
    "condition": ("transformers", "qwix"),
    "devices": ("transformers", "qwix"),
    "export": ("transformers", "qwix", "peft"),
    "objective": ("chgnet",),
    "reward": ("chgnet",),
    "text_format": ("transformers", "qwix"),
}
"""Packages of extras that the examples of a guide need."""

SCREEN = 75
"""Lines of a guide at most."""


class Example(NamedTuple):
    """A block of code of a guide."""

    language: str
    code: str

    @property
    def file(self) -> str | None:
        """Name of the file that it is the text of, from its first line."""
        found = re.match(r"# ([\w/]+\.(?:py|toml))\n", self.code)
        return None if found is None else found[1]


def examples(guide: Path) -> list[Example]:
    """The blocks of code, in order; blocks of `text` are not for running."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", guide.read_text(encoding="utf-8"), re.S | re.M)
    return [Example(*block) for block in found if block[0] != "text"]


def run(example: Example, folder: Path, environment: dict[str, str]) -> None:
    """Write a file, or run commands or Python, as a reader of the guide does."""
    if example.file is not None:
        (folder / example.file).write_text(example.code, encoding="utf-8")
        return
    shell = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    done = subprocess.run(  # noqa: PLW1510
        [*shell[example.language], example.code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{example.code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_a_guide_is_a_screen_with_examples(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    assert text.startswith("# ") and len(text.splitlines()) <= SCREEN
    assert {example.language for example in examples(guide)} <= {"bash", "python", "toml"}
    assert any(example.file is None for example in examples(guide)), "nothing is run"
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (guide.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_examples_run(guide: Path, tmp_path: Path) -> None:
    absent = [name for name in NEEDED.get(guide.stem, ()) if find_spec(name) is None]
    if absent:
        pytest.skip(f"needs {', '.join(absent)}")
    for name in ("experiments", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    for example in examples(guide):
        run(example, tmp_path, environment)
