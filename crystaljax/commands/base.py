"""Options that all commands have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

MAX_SEED = 2**32 - 1
"""Largest seed: JAX ignores further bits, so that a larger seed would give the samples of
another."""

MAX_RELAX_STEPS = 500
"""Largest number of relaxation steps, if none is given."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Options of all commands."""

    debug: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show the whole traceback of an error."""

    def run(self, console: Console) -> None:
        """Run the command; mistakes of the user raise one of `user_messages.USER_ERRORS`."""
        raise NotImplementedError


@dataclass(frozen=True)
class OfFiles:
    """Everything that distinguishes one run of a command from another."""

    options: Command
    sha256: dict[str, str]
    """Digests of the input files."""


def check_seed(seed: int) -> None:
    """ValueError for a seed that JAX would truncate."""
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"--seed {seed}: give a whole number from 0 to {MAX_SEED}")


def relaxation_steps(relax: bool, steps: int, potential: str) -> int:
    """Relaxation steps that --relax and --relax-steps ask for; 0: none.

    ValueError for a number below 0, and if there is no potential to relax with.
    """
    if steps < 0:
        raise ValueError(f"--relax-steps {steps}: give at least 0")
    if (relax or steps) and potential == "none":
        raise ValueError("--relax needs a potential: leave --potential none out")
    return steps or (MAX_RELAX_STEPS if relax else 0)
