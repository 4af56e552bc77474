"""What W&B has in the file of an offline run, read back."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7


@dataclass
class OfflineRun:
    """One run."""

    group: str = ""
    job_type: str = ""
    id: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, Any] = field(default_factory=dict)
    """Records by name."""
    folder: Path = Path()
    """Of its files."""
    finished: bool = False

    def table(self, name: str) -> list[dict[str, Any]]:
        """Rows of a table that was logged."""
        (path,) = {row[name]["path"] for row in self.history if name in row}
        content = json.loads((self.folder / "files" / path).read_text())
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def offline_runs(folder: Path) -> list[OfflineRun]:
    """Those whose files are in a folder, not in folders below it; oldest first."""
    return [read(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def read(path: Path) -> OfflineRun:
    """A run that is finished from its file, as `wandb sync` would send it."""
    for _ in range(100):  # W&B's own process may still be writing
        found = parsed(path)
        if found.finished:
            return found
        time.sleep(0.2)
    raise TimeoutError(f"{path} has no end")


def parsed(path: Path) -> OfflineRun:
    """What the file has so far."""
    from wandb.proto import wandb_internal_pb2

    found = OfflineRun(folder=path.parent)
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.group, found.job_type = record.run.run_group, record.run.job_type
            found.id = record.run.run_id
            update(found.config, record.run.config.update)
        elif kind == "config":
            update(found.config, record.config.update)
        elif kind == "summary":
            update(found.summary, record.summary.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            update(row, record.history.item)
            found.history.append(row)
            found.summary |= row
        elif kind == "artifact":
            found.artifacts[record.artifact.name] = record.artifact
        elif kind == "exit":
            found.finished = True
    return found


def update(target: dict[str, Any], items: Any) -> None:
    """Set entries of a record's, whose keys may be paths."""
    for item in items:
        *path, last = item.nested_key or [item.key]
        inner = target
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)


def records(data: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format: blocks of fragments with a header each."""
    position, parts = HEADER, b""  # the file has a header of its own
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:  # padding
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += HEADER
        parts += data[position : position + length]
        position += length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""
