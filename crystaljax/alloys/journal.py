"""Journals: files of JSON lines that a run appends to, and resumes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.rewards.base import RewardBatch

Entry = dict[str, Any]
"""One line."""


class Journal:
    """A JSONL file of finished work; its first line, the header, identifies the work.

    Every entry is on disk when `add` returns. An incomplete last line of a killed run is dropped.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        """Open the file, or create it; with None nothing is written to disk.

        ValueError if the file is no journal, or has another header.
        """
        self.path = path
        self.entries: list[Entry] = []
        if path is None:
            return
        first = json.loads(json.dumps(dict(header)))
        lines = _lines(path)
        if lines:
            _check(path, lines[0], first)
            self.entries = lines[1:]
        else:
            self._write([first])

    def add(self, entries: Iterable[Entry]) -> None:
        """Add lines."""
        entries = list(entries)
        self.entries.extend(entries)
        self._write(entries)

    def _write(self, entries: Sequence[Entry]) -> None:
        if self.path is None or not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


def _lines(path: Path) -> list[Entry]:
    """The objects in a file; text after the last line end is removed from the file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    try:
        lines = [json.loads(line) for line in content[:whole].splitlines()]
    except ValueError:
        raise ValueError(f"{path} is no journal, or a damaged one: move it away") from None
    if not all(isinstance(line, dict) for line in lines) or (content and not lines):
        raise ValueError(f"{path} is no journal: name another file")
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
    return lines


def _check(path: Path, found: Entry, header: Entry) -> None:
    """ValueError naming the first difference of the headers."""
    for key in {**header, **found}:
        if found.get(key) != header.get(key):
            raise ValueError(
                f"{path} is the journal of something else: {key} is {found.get(key)!r} there and"
                f" {header.get(key)!r} here; name another file, or move this one away"
            )


def reward_entries(texts: Sequence[str], rewards: RewardBatch) -> list[Entry]:
    """Lines of texts and their rewards; numbers that are not finite become null."""
    columns = {name: np.asarray(column, float) for name, column in rewards.info.items()}
    return [
        {
            "text": text,
            "value": _number(rewards.value[n]),
            "ok": bool(rewards.ok[n]),
            "reason": rewards.reasons[n],
            "transient": bool(rewards.transient[n]),
            "info": {name: _number(column[n]) for name, column in columns.items()},
        }
        for n, text in enumerate(texts)
    ]


def read_rewards(entries: Sequence[Entry]) -> tuple[list[str], RewardBatch]:
    """Texts and rewards from lines; null becomes nan. Info columns are numbers."""
    names = dict.fromkeys(name for entry in entries for name in entry["info"])
    return [entry["text"] for entry in entries], RewardBatch(
        np.array([entry["value"] for entry in entries], float),  # None becomes nan
        np.array([entry["ok"] for entry in entries], bool),
        {name: np.array([entry["info"].get(name) for entry in entries], float) for name in names},
        [entry["reason"] for entry in entries],
        np.array([entry["transient"] for entry in entries], bool),
    )


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
