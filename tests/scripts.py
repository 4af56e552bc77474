"""The scripts in experiments/, loaded as modules, and the commands that documents give for them."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import sys
from contextlib import redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import tyro

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT / "experiments", ROOT / "experiments" / "benchmarks")
FILES = {path.name: path for folder in FOLDERS for path in sorted(folder.glob("*.py"))}
SCRIPTS = {
    name: path
    for name, path in FILES.items()
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
}
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [
        *(ROOT / "README.md", ROOT / "experiments" / "README.md"),
        *sorted(ROOT.glob("checkpoints/*/README.md")),
        *sorted(ROOT.glob("experiments/guides/*.md")),
    ]
}


@cache
def load_script(name: str) -> ModuleType:
    """A script as a module; the test is skipped if an extra that it needs is absent."""
    for folder in FOLDERS:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    spec = importlib.util.spec_from_file_location(f"script_{name[:-3]}", SCRIPTS[name])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the types of their fields
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[spec.name]
        absent = str(error.name).partition(".")[0]
        if (ROOT / absent).exists() or f"{absent}.py" in FILES:
            raise  # ours
        pytest.skip(f"{name} needs {absent}")
    return module


def parse(name: str, arguments: list[str]) -> Any:
    """The configuration that a script makes of its arguments; SystemExit if it refuses them."""
    module = load_script(name)
    if hasattr(module, "PRESETS"):
        return tyro.extras.overridable_config_cli(module.PRESETS, args=arguments)
    if hasattr(module, "Config"):
        return tyro.cli(module.Config, args=arguments)
    with patch.object(sys, "argv", [name, *arguments]):
        return module.arguments()


def options(name: str) -> set[str]:
    """All that the script's command line may have, and their groups ("--tracking")."""
    module = load_script(name)
    if hasattr(module, "Config"):
        return options_of(module.Config)
    with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
        parse(name, ["--help"])
    return set(re.findall(r"--[a-z][\w-]*", printed.getvalue()))


def options_of(config: Any) -> set[str]:
    """The same of a dataclass that tyro parses."""
    parser = tyro.extras.get_parser(config)
    found = {option for action in parser._actions for option in action.option_strings}
    parts = [option.split(".") for option in found]
    return found | {".".join(words[:n]) for words in parts for n in range(1, len(words))}


class Example(NamedTuple):
    """A block of code of a document."""

    language: str
    code: str

    @property
    def file(self) -> str | None:
        """Name of the file that it is the text of, from its first line."""
        found = re.match(r"# ([\w/]+\.(?:py|toml))\n", self.code)
        return None if found is None else found[1]

    def write(self, folder: Path) -> bool:
        """Write the file, if it is the text of one."""
        if self.file is not None:
            (folder / self.file).write_text(self.code, encoding="utf-8")
        return self.file is not None


def examples(text: str) -> list[Example]:
    """The blocks of code, in order; blocks of `text` are not for running."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.S | re.M)
    return [Example(*block) for block in found if block[0] != "text"]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Scripts (or "crystaljax") and their arguments that a document or docstring gives.

    They stand in code: fenced, indented or between backquotes. `a|b` stands for two commands; what
    is in square brackets is taken. A script's name alone is no command.
    """
    text = re.sub(r"\\\n\s*", " ", text)
    fenced = re.findall(r"```\w*\n(.*?)```", text, re.S)
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    quoted = [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", text)]
    indented = re.findall(r"^ {4}\S.*$", text, re.M)
    lines = [line for code in [*fenced, *quoted, *indented] for line in re.split(r"&&|\n", code)]
    return [x for line in lines for one in _alternatives(line) if (x := _command(one.strip()))]


def _alternatives(line: str) -> list[str]:
    """The commands that a line with `a|b` stands for."""
    either = [re.split(r"(?<=[\w.])\|(?=[\w.])", word) for word in line.split(" ")]
    return [" ".join(choice) for choice in itertools.product(*either)]


def _command(line: str) -> tuple[str, list[str]] | None:
    """A script and its arguments, if the line is such a command."""
    line = re.sub(r"[\[\]]|\s#.*", " ", re.sub(r"^(taskset -c 0|\w+=\S*) ", "", line))
    match = re.match(r"(python )?(?:[\w/]*/)?(\w+\.py|crystaljax)(?= |$)(.*)", line)
    if match is None or match[2] not in {*SCRIPTS, "crystaljax"}:
        return None
    arguments = shlex.split(match[3])
    return (match[2], arguments) if match[1] or arguments else None
