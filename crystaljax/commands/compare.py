"""`crystaljax compare`: the results and curves of several runs on one page and in one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from crystaljax.commands.base import Command


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Put the results of several runs, their curves and their settings side by side."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Output folders of runs, finished or under way. NAME=FOLDER gives a run another name."""
    output: Path = Path("comparison")
    """Folder of the report and of results.csv."""

    def run(self, console: Console) -> None:
        from crystaljax.experiment.comparing import compare, read_runs

        page = compare(read_runs(self.runs), self.output)
        console.print(f"The report is in {page}, all results in {page.parent / 'results.csv'}")
