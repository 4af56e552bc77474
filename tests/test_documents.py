"""Commands and options in the READMEs and in the scripts' docstrings are those that there are."""

import ast
import re
from pathlib import Path

import pytest
import tyro
from scripts import DOCUMENTS, ROOT, SCRIPTS, commands, examples, options, options_of, parse

from crystaljax.cli import COMMANDS

TEXTS = DOCUMENTS | {
    str(path.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text()), clean=False) or ""
    for path in SCRIPTS.values()
}
GIVEN = [
    (where, name, arguments) for where, text in TEXTS.items() for name, arguments in commands(text)
]
ALL_SCRIPTS = {"--help", "--debug", "--check"}
"""Options of all scripts."""

OTHERS = {"--no-deps", "--gres", "--cpus-per-task", "--time"} | {
    "--xla_force_host_platform_device_count"
}
"""Options of pip, SLURM and XLA."""


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
    ("where", "name", "arguments"),
    [pytest.param(*given, id=f"{given[0]}-{given[1]}") for given in GIVEN],
)
def test_commands_parse(
    where: str, name: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for example in examples(TEXTS[where]):
        example.write(tmp_path)
    arguments = [word for word in arguments if word not in ALL_SCRIPTS]
    if name != "crystaljax":
        parse(name, arguments)
    elif len(arguments) == 1:
        assert arguments[0] in COMMANDS
    else:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, args=arguments)


PYTHON = re.findall(r"```python\n(.*?)```", TEXTS["README.md"], re.S)


@pytest.mark.slow
@pytest.mark.parametrize("code", [pytest.param(x, id=x.split()[1]) for x in PYTHON])
def test_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    if "FOLDER" in code:
        loading = pytest.importorskip("crystaljax.text.loading", exc_type=ImportError)
        policy = loading.load_text_policy(loading.TextModelConfig(n_vocabulary=300), ["NaCl"])
        policy.save(tmp_path / "FOLDER", policy.start)
    elif "alloys" in code:
        pytest.importorskip("pycalphad")
    exec(compile(code, "README.md", "exec"), {})


def test_options_exist() -> None:
    known = (ALL_SCRIPTS | OTHERS).union(*(options_of(command) for command in COMMANDS.values()))
    known |= set().union(*(options(name) for name in SCRIPTS))
    for where, text in TEXTS.items():
        quoted = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*[a-z]", text))
        assert quoted - known == set(), where


@pytest.mark.parametrize(
    "name", [name for name, path in SCRIPTS.items() if path.parent.name == "experiments"]
)
def test_all_scripts_have_the_same_options_of_a_run(name: str) -> None:
    own = {x for x in options(name) if re.search(r"(^|\W)(output|tracking)(\W|$)", x)}
    assert "--output" in own
    assert all(x == "--output" or x.split(".")[0] == "--tracking" for x in own), own
