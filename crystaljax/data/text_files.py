"""Text of files, compressed or not, with or without a byte order mark."""

from __future__ import annotations

import bz2
import gzip
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def open_text(path: Path) -> Iterator[tuple[TextIO, Callable[[], float]]]:
    """The text of a file (plain, .gz or .bz2), and the fraction of the file read so far.

    The text is UTF-16 if it has that byte order mark, else UTF-8. Invalid bytes become the
    replacement character, so that they affect only their field. Line ends are kept.
    """
    size = max(path.stat().st_size, 1)
    with path.open("rb") as raw:
        data: Any = raw
        if path.suffix.lower() == ".gz":
            data = gzip.GzipFile(fileobj=raw)
        elif path.suffix.lower() == ".bz2":
            data = bz2.BZ2File(raw)
        coding = encoding(data.peek(2)[:2])
        with io.TextIOWrapper(data, encoding=coding, errors="replace", newline="") as text:
            yield text, lambda: raw.tell() / size


def encoding(start: bytes) -> str:
    """The encoding according to a file's first bytes."""
    return "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def decode_text(data: bytes) -> str:
    """The text of a whole file's bytes, as `open_text` reads it."""
    return data.decode(encoding(data), "replace")


def clean(text: str) -> str:
    """Text without NUL and lone surrogates, which files cannot hold."""
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def number(text: str) -> float | str:
    """A float if the text is written like one, nan if it is empty; else the text itself.

    Stricter than float(): the formulas InF and NaN, and 1_2, stay text.
    """
    stripped = text.strip()
    if stripped in ("", "nan"):
        return float("nan")
    return float(stripped) if _NUMBER.fullmatch(stripped) else text


_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|-?inf")


def unique(names: list[str]) -> list[str]:
    """The names, with a number after repeated ones: "gap", "gap (2)"."""
    seen: set[str] = set()
    result = []
    for name in names:
        new, count = name, 1
        while new in seen:
            count += 1
            new = f"{name} ({count})"
        seen.add(new)
        result.append(new)
    return result
