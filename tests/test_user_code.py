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
    for text, message in (
        ("\n1 / 0", r"mine\.py, line 2, cannot be loaded: ZeroDivisionError: division by zero"),
        ("def double(x:\n  pass", r"mine\.py, line 1, cannot be loaded: SyntaxError"),
        ("import no_such_library", r"mine\.py, line 1, .*No module named 'no_such_library'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            user_code.load(f"{path}:double", "function")
    path.write_text("raise SystemExit(2)")
    with pytest.raises(ValueError, match=r"ends the program when it is loaded \(exit code 2\)"):
        user_code.load(f"{path}:double", "function")


def test_modules_beside_a_file(tmp_path: Path) -> None:
    """They are imported at once or within a function, unless their name is taken."""
    (tmp_path / "beside_it.py").write_text("def double(x): return 2 * x")
    (tmp_path / "later_beside_it.py").write_text("three = 3")
    path = tmp_path / "mine.py"
    path.write_text(
        "from beside_it import double\n"
        "def six(x):\n    from later_beside_it import three\n    return double(x) * three\n"
    )
    assert user_code.load(f"{path}:six", "function")(1) == 6
    other = tmp_path / "other"
    other.mkdir()
    (other / "beside_it.py").write_text("def double(x): return 0")
    (other / "mine.py").write_text("import beside_it\nsix = beside_it.double")
    with pytest.raises(ValueError, match=r"imports beside_it\.py beside it, but another module"):
        user_code.load(f"{other / 'mine.py'}:six", "function")
    (other / "math.py").write_text("pi = 3")
    (other / "round.py").write_text("from math import pi\ndef area(r): return pi * r * r")
    with pytest.raises(ValueError, match="another module is called math"):
        user_code.load(f"{other / 'round.py'}:area", "function")


def test_digest_is_of_all_that_a_file_names(tmp_path: Path) -> None:
    path, package = tmp_path / "mine.py", tmp_path / "parts_of_it"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("a = 1")
    (tmp_path / "model.bin").write_bytes(b"1")
    (tmp_path / "unused.py").write_text("b = 1")
    path.write_text(
        "import math\nfrom parts_of_it.inner import a\nFILES = ['model.bin']\ndef f(x): return a"
    )
    before = user_code.digest(path)
    (tmp_path / "unused.py").write_text("b = 2")
    assert user_code.digest(path) == before
    for file, content in (("model.bin", "2"), ("parts_of_it/inner.py", "a = 2"), ("mine.py", "")):
        (tmp_path / file).write_text(content)
        assert user_code.digest(path) != before
        before = user_code.digest(path)
    path.write_text("FILES = ['nothing.bin']")
    with pytest.raises(FileNotFoundError, match=r"mine\.py lists nothing\.bin in FILES"):
        user_code.digest(path)
    path.write_text("FILES = [name for name in 'ab']")
    with pytest.raises(ValueError, match="write FILES as a list of names in quotes"):
        user_code.digest(path)


def test_digests_of_the_files_that_settings_name(tmp_path: Path) -> None:
    path = tmp_path / "my reward.py"
    path.write_text(FILE)
    digest = user_code.digest(path)
    settings = {
        "reward": f"{path}:double",
        "deep": {"potential": f"ase:{path}:calculator@MP", "metrics": [f"{path}:a", "x.py:b"]},
        **{"number": 3, "nothing": None, "words": "train.csv", "path": str(path)},
    }
    assert user_code.digests(settings) == {str(path): digest}
    assert user_code.digests({"path": str(path)}) == {}
