"""Functions and classes in users' Python files, given as FILE.py:NAME."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

Kind = Literal["function", "class"]

LIST = "FILES"
"""Name of the list in which a file has further files that it reads, relative to its folder."""

_SOURCE = re.compile(r"(?:ase:)?(?P<path>.+?\.py):[^\W\d]\w*")


def load(source: str, kind: Kind) -> Any:
    """The function (anything callable) or class of a file, given as "path/to/file.py:name".

    The file is run: load none that you do not trust. It may import the modules beside it.
    FileNotFoundError; ValueError for a source without a name, a name that the file does not define
    as such, a module beside it of a name that is taken, and whatever the file raises.
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


def digests(settings: Any) -> dict[str, str]:
    """`digest` of each file that settings (JSON) name as FILE.py:NAME, by its path there."""
    if isinstance(settings, dict):
        settings = list(settings.values())
    if isinstance(settings, list):
        return {path: found for each in settings for path, found in digests(each).items()}
    named = _SOURCE.match(settings) if isinstance(settings, str) else None
    if named is None or not Path(named["path"]).is_file():
        return {}
    return {named["path"]: digest(Path(named["path"]))}


def digest(path: Path) -> str:
    """SHA-256 of the code of a file: its text, the modules beside it that it imports, and what
    these list as `FILES`.

    FileNotFoundError for a listed file that there is not.
    """
    found = sha256()
    for file in sorted(_code_files(path.resolve())):
        found.update(file.read_bytes())
    return found.hexdigest()


def _code_files(path: Path) -> set[Path]:
    """All files that `digest` is of."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        if file.suffix == ".py":
            tree = _parsed(file)
            waiting += [x for module in _neighbours(tree, file).values() for x in module]
            waiting += _listed(tree, file)
    return found


def _parsed(path: Path) -> ast.Module:
    """The syntax tree of a file; an empty one if it has errors, which are told when it is run."""
    with suppress(SyntaxError, ValueError):
        return ast.parse(path.read_bytes())
    return ast.Module([], [])


def _neighbours(tree: ast.Module, path: Path) -> dict[str, list[Path]]:
    """The modules and packages beside a file that it imports, and the files of each."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    found = {}
    for name in sorted(names):
        module, package = path.parent / f"{name}.py", path.parent / name
        if (package / "__init__.py").is_file():
            found[name] = sorted(package.rglob("*.py"))
        elif module.is_file():
            found[name] = [module]
    return found


def _listed(tree: ast.Module, path: Path) -> Iterator[Path]:
    """The files that a file has in its `FILES`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == LIST for target in node.targets
        ):
            try:
                names = [str(name) for name in ast.literal_eval(node.value)]
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}: write {LIST} as a list of names in quotes") from error
            for name in names:
                file = (path.parent / name).resolve()
                if not file.is_file():
                    raise FileNotFoundError(f"{path} lists {name} in {LIST}: there is no {file}")
                yield file


def _run(path: Path) -> ModuleType:
    """The module of a file, under a name of its own, so that it shadows no other."""
    name = f"_user_code_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file: its name must end with .py")
    module = importlib.util.module_from_spec(spec)
    _require_free_names(path)
    sys.modules[name] = module  # dataclasses and the like look their module up
    try:
        with _imports_from(path.resolve().parent):
            spec.loader.exec_module(module)
    except SystemExit as error:
        raise ValueError(
            f"{path} ends the program when it is loaded (exit code {error.code}): put what it does"
            ' as a script under if __name__ == "__main__"'
        ) from error
    except Exception as error:
        raise ValueError(
            f"{path}{_line(error, path)} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return module


def _require_free_names(path: Path) -> None:
    """ValueError if a module of another file has the name of one beside a file that it imports."""
    for name, files in _neighbours(_parsed(path), path.resolve()).items():
        other = getattr(sys.modules.get(name), "__file__", None)
        if name in sys.modules and (other is None or Path(other).resolve() not in files):
            raise ValueError(
                f"{path} imports {files[0].name} beside it, but another module is called {name}"
                f" ({other or 'built in'}): rename yours"
            )


@contextmanager
def _imports_from(folder: Path) -> Iterator[None]:
    """Let modules of a folder be imported: before others in the block, after them from then on."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # for imports within functions


def _line(error: Exception, path: Path) -> str:
    """Where in a file an error was raised, as ", line 3"."""
    frames: Iterable[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path]
    number = lines[-1] if lines else getattr(error, "lineno", None)
    return f", line {number}," if number else ""
