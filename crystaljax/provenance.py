"""Provenance of a result: command, settings, seeds, versions, commit, hardware, time."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from crystaljax import user_code
from crystaljax.evaluation.report import Report
from crystaljax.hardware import hardware
from crystaljax.settings import flat, plain

PACKAGES = (
    *("crystaljax", "jax", "jaxlib", "flax", "optax", "numpy", "pymatgen", "moyopy", "smact"),
    *("torch", "chgnet", "matgl", "orb-models", "nequix", "transformers"),
    *("pycalphad", "wandb"),
)
"""Packages whose versions are recorded if they are installed."""

LARGEST_DIGEST = 1_000_000_000
"""Largest number of bytes of an input that are read for its digest."""


@dataclass(frozen=True)
class Provenance:
    """Provenance of the results of one run of a program; create it at the program's start."""

    config: Mapping[str, Any]
    """All settings, as JSON."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """Inputs of the run by kind: models, data, hull, potentials."""
    started: float = field(default_factory=time.time)
    """Seconds since 1970."""
    clock: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        if code := user_code.digests(plain(self.config)):
            self.inputs["user_code"] = code  # as it is now: it may be edited during the run

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.clock

    @property
    def sentence(self) -> str:
        """Sentence for a report."""
        commit = f", commit {found}" if (found := git_commit()) else ""
        return (
            f"{self.seconds:.0f} s on {hardware()}, with crystaljax {versions()['crystaljax']}"
            f"{commit}: {command()}"
        )

    def added(self, report: Report) -> Report:
        """The report with where it comes from: a note at its end, all of it in report.json."""
        return replace(
            report,
            notes=[*report.notes, f"{self.sentence}."],
            extra={**report.extra, "provenance": self.to_dict()},
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON; numbers that JSON lacks are texts."""
        return {
            "command": command(),
            "config": _json(self.config),
            "seeds": seeds(self.config),
            "inputs": _json(self.inputs),
            "versions": dict(versions()),
            "commit": git_commit(),
            "hardware": hardware(),
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
        }


def command() -> str:
    """The command line of this program, as a shell takes it."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])


def seeds(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the name seed or seeds, by dotted name."""
    settings = flat(plain(config))
    return {k: x for k, x in settings.items() if k.split(".")[-1] in ("seed", "seeds")}


@cache
def versions() -> Mapping[str, str]:
    """Versions of Python and of the installed ones of `PACKAGES`."""
    found = {"python": python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str | None:
    """The commit of the checkout that this package is run from, with "-dirty" if files differ.

    None if it is installed from elsewhere, or without git.
    """
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *words],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changes else commit


def digest(path: Path) -> str | None:
    """SHA-256 of a file, or of the names and contents of a folder's; None of very large ones."""
    files = [path] if path.is_file() else sorted(x for x in path.rglob("*") if x.is_file())
    if sum(file.stat().st_size for file in files) > LARGEST_DIGEST:
        return None
    found = sha256()
    for file in files:
        found.update(str(file.relative_to(path)).encode() + b"\0")
        found.update(sha256(file.read_bytes()).digest())
    return found.hexdigest()


def file_digests(sources: Mapping[str, str | Path | None]) -> dict[str, str]:
    """Digests of those sources that are files or folders, by name; others are left out."""
    paths = {name: Path(x) for name, x in sources.items() if x and Path(x).exists()}
    found = {name: digest(path) for name, path in paths.items()}
    return {name: x for name, x in found.items() if x is not None}


def _json(value: Any) -> Any:
    """Settings without the numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {str(k): _json(x) for k, x in value.items()}
    if isinstance(value, list | tuple):
        return [_json(x) for x in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
