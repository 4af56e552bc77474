"""Options that all commands have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

MAX_SEED = 2**32 - 1
"""JAX uses no more bits of a seed: a larger one would give the samples of another."""

MAX_RELAX_STEPS = 500
"""Steps of a relaxation, if their number is not given."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Options of all commands."""

    debug: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show the whole traceback of an error."""

    def run(self, console: Console) -> None:
        """Do it; raises one of `user_errors.USER_ERRORS` for what the user can mend."""
        raise NotImplementedError


@dataclass(frozen=True)
class OfFiles:
    """All that tells one run of a command from another."""

    options: Command
    sha256: dict[str, str]
    """Of the files it is of."""


def check_seed(seed: int) -> None:
    """ValueError for one that JAX would cut."""
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"--seed {seed}: give a whole number from 0 to {MAX_SEED}")


def relaxation_steps(relax: bool, steps: int, potential: str) -> int:
    """Steps of relaxation that --relax and --relax-steps ask for; 0 for none.

    ValueError for a number below 0, and where there is no potential to relax by.
    """
    if steps < 0:
        raise ValueError(f"--relax-steps {steps}: give at least 0")
    if (relax or steps) and potential == "none":
        raise ValueError("--relax needs a potential: leave --potential none out")
    return steps or (MAX_RELAX_STEPS if relax else 0)
