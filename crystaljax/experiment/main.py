"""The entry of experiment scripts: options, messages, one line for a user's mistake."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import tyro

from crystaljax.user_messages import plain_messages

C = TypeVar("C")

DEBUG, CHECK = "--debug", "--check"

OF_THE_RUN = tyro.conf.arg(prefix_name=False)
"""Marks a setting of the whole run, such as --output. Its options have the same names in all
scripts, wherever the setting is in their configuration."""


def run(
    main: Callable[[C], None],
    settings: type[C] | Mapping[str, tuple[str, C]],
    description: str | None = None,
    *,
    prepared: bool = True,
    check: Callable[[C], None] | None = None,
) -> None:
    """Call `main` with the configuration that the command line asks for.

    Args:
      settings: the configuration's class, or presets: name -> (what it is, configuration), of
        which the first word of the command line names one.
      description: printed by --help; the class's docstring if not given.
      prepared: set JAX up first (`runtime.prepare`). Benchmarks whose first calls are to compile
        leave it as it is.
      check: tries the reward of a configuration, as of `rewarded.check_reward`.

    SystemExit with a line on stderr for a user's mistake, as of the `crystaljax` command;
    `--debug` shows the traceback. `--check` calls `check` instead of `main`.
    """
    program, *arguments = sys.argv
    debug = DEBUG in arguments
    given = [argument for argument in arguments if argument not in (DEBUG, CHECK)]
    with plain_messages(Path(program).name, debug):
        config: C
        if isinstance(settings, Mapping):
            presets = {
                name: (what, with_parts(preset, given)) for name, (what, preset) in settings.items()
            }
            config = tyro.extras.overridable_config_cli(
                presets, description=description, args=given
            )
        else:
            config = tyro.cli(settings, description=description, args=given)
        if prepared:
            from crystaljax.runtime import prepare

            prepare()
        if CHECK not in arguments:
            main(config)
        elif check is None:
            raise ValueError(f"{CHECK}: this script has no reward of crystals to try on a few")
        else:
            check(config)


def with_parts(config: C, arguments: Sequence[str]) -> C:
    """The configuration with parts that it lacks (None), of which a setting is among the arguments.

    Such as the adapters of a model, by --setup.model.lora.rank 4; they start from their defaults.
    """
    for argument in arguments:
        if argument.startswith("--"):
            *path, _ = argument[2:].split("=")[0].replace("-", "_").split(".")
            config = _with_part(config, path)
    return config


def _with_part(config: Any, path: Sequence[str]) -> Any:
    """The configuration with the part at a path; as it is if it has no such part."""
    if not path or not hasattr(config, path[0]):
        return config
    part = getattr(config, path[0])
    if part is None:
        kinds: tuple[Any, ...] = get_args(get_type_hints(type(config))[path[0]])
        made = (k() for k in kinds if isinstance(k, type) and dataclasses.is_dataclass(k))
        part = next(made, None)
    found = _with_part(part, path[1:])
    if found is getattr(config, path[0]):
        return config
    return dataclasses.replace(config, **{path[0]: found})
