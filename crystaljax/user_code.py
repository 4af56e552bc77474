"""Functions and classes in users' Python files, given as FILE.py:NAME."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

Kind = Literal["function", "class"]


def load(source: str, kind: Kind) -> Any:
    """The function (anything callable) or class of a file, given as "path/to/file.py:name".

    The file is run: load none that you do not trust. FileNotFoundError; ValueError for a source
    without a name, or a name that the file does not define as such; whatever the file raises.
    """
    path, name = split(source, kind)
    found = getattr(_run(path), name, None)
    if not (inspect.isclass(found) if kind == "class" else callable(found)):
        raise ValueError(f"{path} defines no {kind} {name!r}")
    return found


def load_called(source: str, *arguments: str) -> Any:
    """A function of a file that is called with so many arguments, by place.

    As `load`; ValueError too, naming the arguments, if it does not take them.
    """
    function = load(source, "function")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise ValueError(f"{source} is called with ({', '.join(arguments)}): {error}") from error
    return function


def split(source: str, kind: Kind) -> tuple[Path, str]:
    """The file and the name in it; ValueError and FileNotFoundError as `load`."""
    path, colon, name = source.rpartition(":")
    if not colon or not name.isidentifier():
        raise ValueError(f"{source!r} names no {kind}: write path/to/file.py:{kind}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"no Python file {path}")
    return Path(path), name


def _run(path: Path) -> ModuleType:
    """The module of a file, under a name of its own, so that it shadows no other."""
    name = f"_user_code_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file: its name must end with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their module up
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        raise ValueError(
            f"{path} ends the program when it is loaded (exit code {error.code}): put what it does"
            ' as a script under if __name__ == "__main__"'
        ) from error
    return module
