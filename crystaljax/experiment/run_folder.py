"""The folder of a run: new, or gone on with; nothing that an earlier run made is ever deleted."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import jax

from crystaljax import user_code
from crystaljax.data.files import replacing
from crystaljax.evaluation.safeguards import writable_folder
from crystaljax.settings import defaults, flat, plain
from crystaljax.tracking import WANDB_FOLDER

SETTINGS_FILE = "settings.json"

CODE = "user_code"
"""Where the digests of users' files are among the settings."""

FREE = frozenset({"output", "tracking", "pool", "cache"})
"""Settings, at any depth, that change no result: where it goes and who computes it."""

N_NAMED = 5
"""Differences that an error names."""


def open_run(folder: str | Path, config: Any, vary: Collection[str] = ()) -> Path:
    """Make the folder of a run, or go on with the run in it if that has the same settings.

    The settings are kept in `folder`/settings.json. Those of `FREE` and `vary` may differ; one that
    the run there did not have yet must be the default. With them are digests of the users' files
    that they name, which must be the same, too. A folder in which nothing was finished yet counts
    as new.

    Args:
      config: the experiment's configuration, a dataclass.
      vary: names of settings, at any depth, that may differ, too.

    FileExistsError if the folder holds anything else, naming what differs and what to do; OSError
    if it cannot be written to.
    """
    folder = writable_folder(folder)
    path = folder / SETTINGS_FILE
    free = FREE | set(vary)
    settings = plain(dataclasses.asdict(config), free)
    code = user_code.digests(settings)
    if holds_results(folder):
        known = plain(defaults(config), free)
        there = plain(_read(path), free)
        _require_same_code(folder, there.pop(CODE, {}), code)
        _require_same(folder, there, settings, known)
    elif jax.process_index() == 0:
        with replacing(path) as temporary:
            kept = settings | ({CODE: code} if code else {})
            temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return folder


@contextmanager
def remade(folder: Path) -> Iterator[Path]:
    """A path for a folder that takes the place of `folder` when the block ends without an error.

    For what a run makes again when it goes on; until then the former one stays.
    """
    scratch = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch / "new"
        if folder.exists():
            folder.rename(scratch / "former")
        (scratch / "new").rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def holds_results(folder: Path) -> bool:
    """Whether a run was begun in a folder: anything but settings and W&B's files is in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return any(
        path.stat().st_size
        for path in files
        if path != folder / SETTINGS_FILE
        and WANDB_FOLDER not in path.relative_to(folder).parent.parts
    )


def _read(path: Path) -> dict[str, Any]:
    """The settings of the run that is there."""
    remedy = "give another output folder, or move what is there away"
    if not path.is_file():
        raise FileExistsError(
            f"{path.parent} holds files, but no {path.name} of a run to go on with: {remedy}"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileExistsError(f"{path} is damaged ({error}): {remedy}") from error


def _require_same_code(folder: Path, there: dict[str, str], here: dict[str, str]) -> None:
    """FileExistsError naming users' files that are not what they were."""
    changed = [path for path, digest in here.items() if there.get(path, digest) != digest]
    if changed:
        raise FileExistsError(
            f"{folder} holds a run by other code: {', '.join(changed)} changed since, or what it"
            " imports or lists: give another output folder to start anew, or bring back what was"
        )


def _require_same(
    folder: Path, there: dict[str, Any], here: dict[str, Any], known: dict[str, Any]
) -> None:
    """FileExistsError naming the settings that differ; those absent there are `known` ones."""
    asked = flat(here)
    found = {name: x for name, x in flat(known).items() if name in asked} | flat(there)
    different = [
        f"{name} is {found.get(name, 'absent')} there and {asked.get(name, 'absent')} here"
        for name in [*asked, *(found.keys() - asked.keys())]
        if name not in found or name not in asked or found[name] != asked[name]
    ]
    if different:
        more = f"; and {len(different) - N_NAMED} more" * (len(different) > N_NAMED)
        raise FileExistsError(
            f"{folder} holds a run with other settings ({'; '.join(different[:N_NAMED])}{more}):"
            " give another output folder to start anew, or the settings there to go on with it"
        )
