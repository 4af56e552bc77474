"""The cache folder, locks, and atomic writing of files."""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import IO

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Folder of cached datasets and downloads: `$CRYSTALJAX_CACHE`, or the platform's cache."""
    if chosen := os.environ.get("CRYSTALJAX_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "crystaljax"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "crystaljax"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "crystaljax"


def make_folder(folder: Path) -> Path:
    """Create a folder that can be written to; OSError (such as PermissionError) with the reason."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "no write permission")
    except OSError as error:
        raise type(error)(
            f"cannot write in {folder} ({error.strerror or error}): choose another folder, or set"
            " CRYSTALJAX_CACHE if this is the cache"
        ) from None
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Write a file there, or create a folder. If the block fails, `path` is unchanged and the
    temporary path is removed. A folder does not replace one that another process made meanwhile.
    """
    import shutil

    make_folder(path.parent)
    scratch = Path(mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        temporary = scratch / path.name
        yield temporary
        try:
            temporary.replace(path)
        except OSError:
            if not (temporary.is_dir() and path.is_dir()):
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class HeldByAnother(Exception):
    """Another process holds the lock of a path."""


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a path while the block runs; other processes wait for it.

    The lock is a file beside `path`, whose folder is made; it is released when its process ends. A
    child of that process would wait forever and gets a ChildProcessError. If the file system has no
    locks, the block runs after a warning.

    wait: if not, HeldByAnother is raised where others would wait.
    """
    lock = make_folder(path.parent) / f".{path.name}.lock"
    while True:
        with lock.open("a+b") as file:
            if not _acquire(file, path, wait):
                yield
                return
            if not _is_at(file, lock):  # another process removed it when it was done
                continue
            file.truncate(0)
            file.write(_process(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                with suppress(OSError):  # Windows removes no open file
                    lock.unlink()
            return


def _acquire(file: IO[bytes], path: Path, wait: bool) -> bool:
    """Get the lock, as of `locked`; False if the file system has no locks."""
    try:
        if not _try_lock(file):
            if not wait:
                raise HeldByAnother(f"another process makes {path}")
            log.warning("another process makes %s: waiting for it", path)
            while not _try_lock(file):
                time.sleep(0.2)
                file.seek(0)
                if file.read() == _process(os.getppid()):
                    raise ChildProcessError(f"the process that makes {path} waits for this one")
    except ChildProcessError:
        raise
    except OSError as error:
        log.warning("no locks in %s (%s): let one process at a time make it", path.parent, error)
        return False
    return True


def _process(number: int) -> bytes:
    """The name of a process of this machine."""
    return f"{platform.node()} {number}".encode()


def _try_lock(file: IO[bytes]) -> bool:
    """Take the lock if it is free; OSError if the file system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def file_names(ids: Iterable[str]) -> list[str]:
    """A file name for each id: valid on every system, and unique even without case.

    Separators and other marks become "_", reserved names get a "_" in front, long ones are cut, and
    repeated ones get a number.
    """
    taken: set[str] = set()
    counts: dict[str, int] = {}
    names = []
    for id in ids:
        name = re.sub(
            r"\.{2,}", ".", re.sub(r"[^\w.+,=@() -]", "_", unicodedata.normalize("NFC", id))
        )
        name = name.encode()[:MAX_NAME].decode(errors="ignore").strip(". ")
        if not name or name.partition(".")[0].strip().upper() in _RESERVED:
            name = f"_{name}"
        unique, key = name, _without_case(name)
        while _without_case(unique) in taken:
            counts[key] = counts.get(key, 1) + 1
            unique = f"{name}-{counts[key]}"
        taken.add(_without_case(unique))
        names.append(unique)
    return names


def _without_case(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


MAX_NAME = 100
"""Largest number of bytes of an id in a file name; file systems allow 255 in total."""

_RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{x}{i}" for x in ("COM", "LPT") for i in "0123456789"}
"""File names that Windows reserves."""


def require_absent(*paths: Path) -> None:
    """FileExistsError for the first of the paths that exists and would be overwritten."""
    for path in paths:
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise FileExistsError(f"{path} exists: choose another target, or move it away")
