"""The guides in experiments/guides: every example in them is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from scripts import ROOT, Example, examples

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


def run(example: Example, folder: Path, environment: dict[str, str]) -> None:
    """Write a file, or run commands or Python, as a reader of the guide does."""
    if example.write(folder):
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
    assert {example.language for example in examples(text)} <= {"bash", "python", "toml"}
    assert any(example.file is None for example in examples(text)), "nothing is run"
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
    for example in examples(guide.read_text(encoding="utf-8")):
        run(example, tmp_path, environment)
