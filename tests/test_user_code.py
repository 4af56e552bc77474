"""Functions and classes from users' files, and what is said of those that there are not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crystaljax import user_code

FILE = """
from dataclasses import dataclass

@dataclass
class Thing:
    number: "int" = 3

def double(x): return 2 * x
value = 4
"""


def test_load(tmp_path: Path) -> None:
    """The path may hold colons and blanks, and the file's name be a known module's."""
    folder = tmp_path / "a: b"
    folder.mkdir()
    path = folder / "json.py"
    path.write_text(FILE)
    before = sys.modules["json"]
    assert user_code.load(f"{path}:double", "function")(4) == 8
    assert user_code.load(f"{path}:Thing", "class")().number == 3
    assert callable(user_code.load(f"{path}:Thing", "function"))
    assert sys.modules["json"] is before


def test_what_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    for source, kind, message in (
        (f"{path}:double", "class", "defines no class 'double'"),
        (f"{path}:value", "function", "defines no function 'value'"),
        (f"{path}:", "class", "names no class: write path/to/file.py:class"),
        (f"{path}:a b", "function", "names no function: write path/to/file.py:function"),
    ):
        with pytest.raises(ValueError, match=message):
            user_code.load(source, kind)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no Python file"):
        user_code.load(f"{tmp_path}:double", "function")
    text = tmp_path / "mine.txt"
    text.write_text(FILE)
    with pytest.raises(ValueError, match=r"its name must end with \.py"):
        user_code.load(f"{text}:double", "function")


def test_what_goes_wrong_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        user_code.load(f"{path}:double", "function")
    path.write_text("raise SystemExit(2)")
    with pytest.raises(ValueError, match=r"ends the program when it is loaded \(exit code 2\)"):
        user_code.load(f"{path}:double", "function")
