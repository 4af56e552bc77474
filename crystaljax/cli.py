"""The `crystaljax` command: what people do from a shell.

Everything heavy is imported by the command that needs it, so that help comes at once.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import tyro
from rich.console import Console

from crystaljax.commands.base import Command
from crystaljax.commands.compare import Compare
from crystaljax.commands.convert import Convert
from crystaljax.commands.data import Data
from crystaljax.commands.evaluate import Evaluate
from crystaljax.commands.finetune import Finetune
from crystaljax.commands.predict import Predict
from crystaljax.commands.pretrain import Pretrain
from crystaljax.commands.sample import Sample
from crystaljax.user_messages import plain_messages

COMMANDS: dict[str, Any] = {
    "sample": Sample,
    "predict": Predict,
    "evaluate": Evaluate,
    "finetune": Finetune,
    "pretrain": Pretrain,
    "compare": Compare,
    "data": Data,
    "convert": Convert,
}

FILE_WIDTH = 140
"""Characters in a line of a table that is printed to a file or a pipe."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error that the user can mend is one line, and exit status 2.

    `--version` says which crystaljax it is.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        Console(highlight=False).print(f"crystaljax {version('crystaljax')}")
        return
    name, *options = arguments or [""]
    command: Command
    if name in COMMANDS:  # so that errors name the command's own help
        command = tyro.cli(COMMANDS[name], prog=f"crystaljax {name}", args=options)
    else:
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="crystaljax",
            description="Propose crystals, judge them, learn from the verdict.",
            args=arguments,
        )
    from crystaljax.runtime import prepare

    prepare()
    console = Console(soft_wrap=True, markup=False, highlight=False)
    if not console.is_terminal:  # files have room for wide tables
        console.width = max(console.width, FILE_WIDTH)
    with plain_messages("crystaljax", command.debug):
        command.run(console)
