"""The notebook of first steps: its cells run in order, and it is kept without outputs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import ROOT

NOTEBOOK = ROOT / "experiments" / "first_steps.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_the_notebook_has_no_outputs() -> None:
    assert len(CODE) > 5
    assert all(not cell["outputs"] for cell in CELLS if cell["cell_type"] == "code")
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    for code in CODE:
        ast.parse(code)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("chgnet")
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    (tmp_path / "experiments").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*CODE, "assert len(steps) == config.n_steps"])],
        cwd=tmp_path / "experiments",
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "metastable S.U.N." in done.stdout and "samples are crystals as asked" in done.stdout
    assert (tmp_path / "experiments" / "dense.zip").is_file()
