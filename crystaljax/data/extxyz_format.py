"""Reader of extended XYZ: frames of a count, a comment with the cell, and one line per atom."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from crystaljax.crystal import AtomicCell
from crystaljax.data.cells import cartesian_cell
from crystaljax.data.records import Entry, Item, Source, scalars
from crystaljax.data.text_files import open_text
from crystaljax.validity import MAX_ATOMS, require_few


class _Frame(NamedTuple):
    announced: str
    """The count of atoms as written in the frame."""
    comment: str
    lines: list[str]
    """Number of lines of atoms, at most one more than a cell may have."""
    n_lines: int
    """Number of them."""


def open_extxyz(path: Path) -> Source:
    """A file of frames, streamed; ValueError if it does not start with a count of atoms."""

    def items() -> Iterator[Item]:
        with open_text(path) as (text, fraction):
            for index, frame in enumerate(_frames(path, text)):
                yield Item(fraction(), str(index), frame)

    return Source(path, items(), _decode)


def _frames(path: Path, text: Iterator[str]) -> Iterator[_Frame]:
    """The frames of a file; a line with a single number starts a frame.

    So a frame with too few or too many lines does not affect the others, as its count is not needed
    to find its end.
    """
    count = next((line.strip() for line in text if line.strip()), "")
    if not _is_count(count):
        what = f"starts with {count[:80]!r}, which is no atom count" if count else "is empty"
        raise ValueError(f"{path} {what}")
    while count:
        comment, lines, n_lines, following = next(text, ""), [], 0, ""
        for line in text:
            stripped = line.strip()
            if _is_count(stripped):
                following = stripped
                break
            if stripped:
                n_lines += 1
                if n_lines <= MAX_ATOMS + 1:
                    lines.append(stripped)
        yield _Frame(count, comment.strip(), lines, n_lines)
        count = following


def _is_count(line: str) -> bool:
    return bool(_NUMBER.fullmatch(line))


_NUMBER = re.compile(r"[+-]?[0-9._]+([eE][+-]?[0-9]+)?|nan|[+-]?inf", re.IGNORECASE)


def _decode(index: str, frame: _Frame) -> Iterator[Entry]:
    from ase.io.extxyz import key_val_str_to_dict

    info = key_val_str_to_dict(frame.comment) if frame.comment else {}
    id = info.pop("material_id", index)
    form = {name: info.pop(name) for name in ("Lattice", "Properties", "pbc") if name in info}
    yield Entry(str(id), scalars(info), _parse, (frame, form))


def _parse(data: tuple[_Frame, dict[str, Any]]) -> AtomicCell:
    """The atoms of a frame, read with only the format information of its comment."""
    from ase.io.extxyz import read_xyz

    frame, form = data
    if not re.fullmatch(r"[0-9]+", frame.announced):
        raise ValueError(f"{frame.announced[:80]!r} is no count of atoms")
    require_few(int(frame.announced))
    if frame.n_lines != int(frame.announced):
        raise ValueError(
            f"the frame announces {frame.announced} atoms and lists {frame.n_lines} (or the next"
            " frame's count is missing)"
        )
    text = "\n".join([frame.announced, "-", *frame.lines, ""])
    parser = partial(_given, form)
    atoms = next(read_xyz(io.StringIO(text), slice(0, 1), properties_parser=parser))
    if atoms.cell.rank != 3:
        raise ValueError("no unit cell: the frame has no Lattice of three vectors")
    if not atoms.pbc.all():
        periodic = " ".join("FT"[int(flag)] for flag in atoms.pbc)
        raise ValueError(f'no crystal: pbc="{periodic}", it is not periodic in all directions')
    return cartesian_cell(atoms.cell.array, atoms.positions, atoms.numbers)


def _given(form: dict[str, Any], _comment: str) -> dict[str, Any]:
    return dict(form)
