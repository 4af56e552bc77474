"""Dependencies in pyproject.toml, against the package's imports."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

DISTRIBUTION = {"orbax": "orbax-checkpoint"}
"""Imported packages that are of a distribution of another name."""

ABSENT = {"tc_python"}
"""Comes with Thermo-Calc, from no registry."""

UNIMPORTED = {
    # What nequix computes with, for those who install it without its own demands.
    *("cloudpickle", "e3nn-jax", "jraph", "matscipy", "pyyaml", "tqdm"),
}

BUILD_SCRIPTS = {"symmetry/build_tables.py", "symmetry/build_normalizers.py"}
"""Run by developers only, with the extra `test`."""

FOR_USERS = set(PROJECT["optional-dependencies"]) - {"test", "oracles", "browser", "dev"}


def names(requirements: list[str]) -> set[str]:
    """Distributions, without versions and extras."""
    return {re.split(r"[\[<>=;!~ ]", text)[0].lower() for text in requirements}


def imported(path: Path, only_at_import: bool = False) -> set[str]:
    """Distributions that a module imports, in functions too unless told."""
    found = set()
    nodes = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
        if not (only_at_import and runs_later(node)):
            nodes += ast.iter_child_nodes(node)
    found -= {"crystaljax", *sys.stdlib_module_names, *ABSENT}
    return {DISTRIBUTION.get(name, name.replace("_", "-")) for name in found}


def runs_later(node: ast.AST) -> bool:
    """Not when its module is imported: a function, or what is for type checkers alone."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def modules() -> list[Path]:
    """Those of the package that are for users."""
    package = ROOT / "crystaljax"
    return [
        path
        for path in sorted(package.rglob("*.py"))
        if path.relative_to(package).as_posix() not in BUILD_SCRIPTS
    ]


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    extras = PROJECT["optional-dependencies"]
    declared = names(PROJECT["dependencies"])
    declared |= set().union(*(names(extras[name]) for name in FOR_USERS))
    used = set().union(*(imported(path) for path in modules()))
    assert used - declared == set(), "imported, but not declared"
    assert declared - used - UNIMPORTED == set(), "declared, but not imported"


def test_core_dependencies_are_imported_by_more_than_one_extra_s_module() -> None:
    """Each is needed by a module that can be imported without any extra."""
    core = names(PROJECT["dependencies"])
    needed = set()
    for path in modules():
        if imported(path, only_at_import=True) <= core:
            needed |= imported(path)
    assert core - needed == set()


def test_tests_import_what_their_extra_brings() -> None:
    core, test = (
        names(PROJECT["dependencies"]),
        names(PROJECT["optional-dependencies"]["test"]),
    )
    files = {path.stem for path in (ROOT / "tests").glob("*.py")}
    ours = files | {path.stem for path in (ROOT / "experiments").rglob("*.py")}
    used = set()
    for path in (ROOT / "tests").glob("test_*.py"):
        used |= {name for name in imported(path) if name.replace("-", "_") not in ours}
    build = set().union(*(imported(ROOT / "crystaljax" / name) for name in BUILD_SCRIPTS))
    assert names(PROJECT["optional-dependencies"]["test"]) - used - build == {"pytest-xdist"}
    assert build <= core | test
