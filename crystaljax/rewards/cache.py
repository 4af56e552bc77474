"""Rewards kept on disk, so that a resumed or repeated run computes nothing twice."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystaljax.rewards.base import Reward, RewardBatch, RewardError
from crystaljax.rewards.bounds import Quantity, quantity_of
from crystaljax.rewards.inputs import Items, item_keys, plain, take

log = logging.getLogger(__name__)

VERSION = 1
"""Version of the table below, kept as the file's `user_version`."""

_LOOKUP = 1000  # keys in one query
_PATIENCE = 60.0  # seconds to wait for other processes that write

_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    key BLOB PRIMARY KEY,
    value REAL, -- NULL stands for nan
    ok INTEGER NOT NULL,
    reason TEXT,
    dtypes TEXT NOT NULL, -- JSON: name of the info column -> numpy dtype
    info TEXT NOT NULL -- JSON: name of the info column -> value
) WITHOUT ROWID
"""


class CacheError(RewardError):
    """The file is no reward cache or is damaged."""


class Row(NamedTuple):
    """One result as a row of the table."""

    value: float | None
    ok: int
    reason: str | None
    dtypes: str
    info: str


class Store:
    """A file of results by key: SQLite with a write-ahead log.

    Several processes of one machine may use it at once, and any may be killed at any time. The file
    must not be on a network file system. If the file system refuses to write (no space, no
    permission), this is logged once, and costs only the results that could not be kept.
    """

    def __init__(self, path: str | PathLike) -> None:
        """The file is opened when it is first needed."""
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._warned = False

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """Results found in the file; CacheError: the file is no cache or is damaged."""
        found: dict[bytes, Row] = {}

        def select(connection: sqlite3.Connection) -> None:
            for start in range(0, len(keys), _LOOKUP):
                part = keys[start : start + _LOOKUP]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, {', '.join(Row._fields)} FROM results WHERE key IN ({marks})"
                found.update((key, Row(*row)) for key, *row in connection.execute(query, part))

        self._attempt(select)
        return found

    def write(self, rows: Mapping[bytes, Row]) -> None:
        """Write results, all or none; CacheError: the file is no cache or is damaged."""
        values = [(key, *row) for key, row in rows.items()]

        def insert(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(
                    "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?)", values
                )

        self._attempt(insert)

    def close(self) -> None:
        """Close the file; it opens again when needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _attempt(self, action: Callable[[sqlite3.Connection], None]) -> None:
        """Run an operation on the open file; errors of the file system become a warning."""
        try:
            if self._connection is None:
                self._connection = _open(self.path)
            action(self._connection)
        except (sqlite3.OperationalError, OSError) as error:
            if not self._warned:
                self._warned = True
                log.warning(
                    "%s: %s; rewards are computed but not kept there until this works again",
                    self.path,
                    error,
                )
        except sqlite3.DatabaseError as error:
            raise CacheError(
                f"{self.path}: no reward cache, or a damaged one ({error}): move it away to start"
                " a new one, or name another file"
            ) from error


def _open(path: Path) -> sqlite3.Connection:
    """The file with its table, both made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    if _version(connection) == 0:
        with connection:
            connection.execute("BEGIN IMMEDIATE")  # one process makes the table, the others wait
            (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if n_tables == 0:
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {VERSION}")
    if (version := _version(connection)) != VERSION:
        raise sqlite3.DatabaseError(f"its user_version is {version}, not {VERSION}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


SAVE_EVERY = 512
"""Number of new items after which results are written to disk."""


class Cached:
    """A reward that looks up earlier results, of this run or another.

    Results are found by `identity` and the item (`item_keys`), so one file serves many rewards.
    Failures are kept too, with their reasons, except those marked as transient. Items that occur
    several times in a batch are judged once. The reward must judge each item by itself. It may be a
    `Pool`; or a pool's workers may each build a cached reward on one file.
    """

    def __init__(
        self, reward: Reward, path: str | PathLike, identity: str, *, save_every: int = SAVE_EVERY
    ) -> None:
        """Use the file at `path`, made if absent; see `Store`.

        `identity` names everything that the values depend on: potential, weights, hull, settings.
        Results are written to disk after every `save_every` new items: a killed run loses no more
        than these. ValueError: an empty identity, or `save_every` below 1.
        """
        if not identity:
            raise ValueError("a cached reward needs an identity: what do its values depend on?")
        if save_every < 1:
            raise ValueError(f"save_every must be at least 1, not {save_every}")
        self.reward = reward
        self.identity = identity
        self.save_every = save_every
        self.store = Store(path)

    @property
    def quantity(self) -> Quantity:
        """The reward's."""
        return quantity_of(self.reward)

    def __call__(self, items: Items, /) -> RewardBatch:
        """Rewards of B items; CacheError: the file is no cache or is damaged."""
        if not len(items):
            return RewardBatch.from_values(np.zeros(0))
        keys = item_keys(items, self.identity)
        first = {key: row for row, key in reversed([*enumerate(keys)])}
        pieces = list(_batches(self.store.read(list(first))))
        for known, _ in pieces:
            for key in known:
                del first[key]
        new = sorted(first.values())
        log.debug("%s: %d of %d items are new", self.store.path, len(new), len(keys))
        for start in range(0, len(new), self.save_every):
            rows = np.array(new[start : start + self.save_every])
            pieces.append(self._judge(items, rows, [keys[row] for row in rows]))
        order = {key: n for n, key in enumerate(key for part, _ in pieces for key in part)}
        batch = RewardBatch.concatenate([batch for _, batch in pieces])
        return batch[np.array([order[key] for key in keys])]

    def _judge(
        self, items: Items, rows: np.ndarray, keys: list[bytes]
    ) -> tuple[list[bytes], RewardBatch]:
        """Judge some items and write the results to disk; return their keys and rewards."""
        batch = self.reward(take(items, rows))
        lasting = np.flatnonzero(~batch.transient)
        self.store.write(dict(zip([keys[n] for n in lasting], _rows(batch[lasting]), strict=True)))
        return keys, batch

    def close(self) -> None:
        """Close the file."""
        self.store.close()


def _rows(batch: RewardBatch) -> Iterator[Row]:
    """The rewards as rows of the table; TypeError: an info column has an unsupported type."""
    columns = {name: np.asarray(column) for name, column in batch.info.items()}
    dtypes = json.dumps({name: column.dtype.str for name, column in columns.items()})
    lists = {name: column.tolist() for name, column in columns.items()}
    for n, reason in enumerate(batch.reasons):
        value = float(batch.value[n])
        info = json.dumps({name: column[n] for name, column in lists.items()}, default=plain)
        # Texts of models, which reasons may quote, may hold what is no Unicode.
        told = reason and reason.encode("utf-8", "backslashreplace").decode()
        yield Row(None if np.isnan(value) else value, int(batch.ok[n]), told, dtypes, info)


def _batches(found: Mapping[bytes, Row]) -> Iterator[tuple[list[bytes], RewardBatch]]:
    """Keys and rewards from the table; rows whose info has the same columns are in one batch."""

    def dtypes_of(item: tuple[bytes, Row]) -> str:
        return item[1].dtypes

    for dtypes, group in groupby(sorted(found.items(), key=dtypes_of), dtypes_of):
        rows = dict(group)
        infos = [json.loads(row.info) for row in rows.values()]
        info = {
            name: np.array([values[name] for values in infos], dtype)
            for name, dtype in json.loads(dtypes).items()
        }
        value = np.array([row.value for row in rows.values()], np.float64)  # None becomes nan
        ok = np.array([row.ok for row in rows.values()], bool)
        yield list(rows), RewardBatch(value, ok, info, [row.reason for row in rows.values()])
