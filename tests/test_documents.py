"""Commands and options in the READMEs and in the scripts' docstrings are those that there are."""

import ast
import re
from typing import Any

import pytest
import tyro
from scripts import DOCUMENTS, ROOT, SCRIPTS, commands, load_script, parse

from crystaljax.cli import COMMANDS

TEXTS = DOCUMENTS | {
    str(path.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text()), clean=False) or ""
    for path in SCRIPTS.values()
}
GIVEN = [
    (where, name, arguments) for where, text in TEXTS.items() for name, arguments in commands(text)
]
OTHERS = {"--help", "--no-deps"}
"""Options of all scripts, and of pip."""


def test_commands_are_found() -> None:
    assert ("quickstart.py", []) in commands(TEXTS["README.md"])
    assert ("kl_reward.py", ["paper"]) in commands(TEXTS["experiments/README.md"])
    text = (
        "Now:\n\n    python experiments/hull.py --a B \\\n        --c D  # on a GPU\n\nor `x.py`."
    )
    assert commands(text) == [("hull.py", ["--a", "B", "--c", "D"])]
    assert commands("`pool.py --n 1|2`, `pool.py`\n\n```bash\nls && python pool.py\n```") == [
        ("pool.py", []),
        ("pool.py", ["--n", "1"]),
        ("pool.py", ["--n", "2"]),
    ]
    assert {name for _, name, _ in GIVEN} == {*SCRIPTS, "crystaljax"}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [pytest.param(*command, id=f"{where}-{command[0]}") for where, *command in GIVEN],
)
def test_commands_parse(name: str, arguments: list[str]) -> None:
    if name != "crystaljax":
        parse(name, arguments)
    elif len(arguments) == 1:
        assert arguments[0] in COMMANDS
    else:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, args=arguments)


def options(config: Any) -> set[str]:
    """All that a command line may have, and their groups ("--setup.tracking")."""
    parser = tyro.extras.get_parser(config)
    found = {option for action in parser._actions for option in action.option_strings}
    parts = [option.split(".") for option in found]
    return found | {".".join(words[:n]) for words in parts for n in range(1, len(words))}


def test_options_exist() -> None:
    known = OTHERS.union(*(options(command) for command in COMMANDS.values()))
    known |= set().union(*(options(load_script(name).Config) for name in SCRIPTS))
    for where, text in TEXTS.items():
        quoted = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*[a-z]", text))
        assert quoted - known == set(), where
