"""Builds a dataset on disk: worker processes turn chunks of a file into shards."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from crystaljax.crystal import Crystals
from crystaljax.data.files import make_folder
from crystaljax.data.readers import open_source
from crystaljax.data.records import Entry, Item, Record, records, stream
from crystaljax.data.shards import is_whole, merge, write_shard
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.symmetry.tables import tables

CHUNK_ROWS = 2000
"""Number of rows of a chunk and of its shard: about ten seconds of work."""


@dataclass(frozen=True)
class Settings:
    """Settings that decide which crystals of a file a dataset holds, and their description."""

    symprec: float
    max_sites: int | None
    max_atoms: int | None


def build(path: Path, folder: Path, settings: Settings, workers: int) -> None:
    """Write the dataset of `path` to `folder`; an interrupted build is continued.

    Finished shards are kept in `folder`.partial. ValueError if no row is left.
    """
    partial = make_folder(folder.with_name(f"{folder.name}.partial"))
    source = open_source(path)
    n_items = max(1, CHUNK_ROWS // source.rows_per_item)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
    )
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task(f"reading {path.name}", total=1.0)
        shards: list[Path] = []

        def jobs() -> Iterator[tuple[float, tuple[Any, ...]]]:
            for index, (fraction, items) in enumerate(_chunks(stream(source), n_items)):
                shard = partial / f"{index:07d}.npz"
                shards.append(shard)
                if not is_whole(shard):
                    yield fraction, (source.decode, items, settings, shard)

        for fraction in _run(jobs(), workers):
            bar.update(task, completed=fraction)
        bar.update(task, completed=1.0)
    merge(shards, folder, {"source": str(path), **asdict(settings)})
    shutil.rmtree(partial, ignore_errors=True)


def _chunks(items: Iterator[Item], size: int) -> Iterator[tuple[float, list[Item]]]:
    """Lists of up to `size` items, each with the fraction of the file that has been read."""
    while chunk := list(islice(items, size)):
        yield chunk[-1].fraction, chunk


def _run(jobs: Iterator[tuple[float, tuple[Any, ...]]], workers: int) -> Iterator[float]:
    """Run the jobs in worker processes; with one worker or one job, in this process."""
    head = list(islice(jobs, 2)) if workers > 1 else []
    if len(head) < 2:
        for fraction, job in chain(head, jobs):
            _write_shard(*job)
            yield fraction
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_use_cpu) as pool:
        pending: dict[Future[None], float] = {}
        try:
            for fraction, job in chain(head, jobs):
                with _without_script():  # starting a job may start a worker
                    pending[pool.submit(_write_shard, *job)] = fraction
                if len(pending) >= 2 * workers:  # so that the file is not read into memory
                    yield _finish(pending)
            while pending:
                yield _finish(pending)
        except BrokenProcessPool:
            raise ChildProcessError(
                "a worker process died, perhaps for lack of memory: run again, with fewer workers,"
                " and the build goes on where it was"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for them


@contextmanager
def _without_script() -> Iterator[None]:
    """Context in which new processes do not run the user's script again.

    So the script needs no `if __name__ == "__main__":`, and may be read from a pipe.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _finish(pending: dict[Future[None], float]) -> float:
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    fractions = []
    for future in done:
        fractions.append(pending.pop(future))
        future.result()
    return max(fractions)


def _use_cpu() -> None:
    jax.config.update("jax_platforms", "cpu")  # workers leave the accelerators alone


def _write_shard(
    decode: Callable[[str, Any], Iterable[Entry]],
    items: list[Item],
    settings: Settings,
    shard: Path,
) -> None:
    rows = [record for item in items for record in records(decode, item)]
    write_shard(shard, rows, *analyse(rows, settings))


def analyse(
    records: list[Record], settings: Settings
) -> tuple[np.ndarray, Crystals, list[str | None]]:
    """Symmetrise records: (rows kept, their crystals, a reason for each other row)."""
    reasons = [record.reason for record in records]
    rows = np.array([i for i, record in enumerate(records) if record.cell is not None], dtype=int)
    cells = [record.cell for record in records if record.cell is not None]
    crystals, failures = symmetrize(cells, symprec=settings.symprec)
    crystals = crystals.to_numpy()
    n_sites = crystals.n_sites
    table = tables()
    group = np.maximum(crystals.space_group, 1) - 1
    multiplicity = table.multiplicity[group[:, None], crystals.wyckoff].sum(axis=1)
    n_atoms = multiplicity // table.n_centering[group]
    good = np.zeros(len(rows), dtype=bool)
    for i, failure in enumerate(failures):
        reason = failure
        if reason is None and n_sites[i] > (settings.max_sites or n_sites[i]):
            reason = f"{n_sites[i]} Wyckoff sites, more than max_sites = {settings.max_sites}"
        if reason is None and n_atoms[i] > (settings.max_atoms or n_atoms[i]):
            reason = f"{n_atoms[i]} atoms, more than max_atoms = {settings.max_atoms}"
        good[i] = reason is None
        reasons[rows[i]] = reason
    crystals = crystals[good]
    return rows[good], crystals.with_slots(int(crystals.n_sites.max(initial=0))), reasons
