"""Files of predicted structures, anybody's, and of the true ones."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from crystaljax.composition import formula, parse_formula
from crystaljax.data.dataset import PROTOTYPES, load
from crystaljax.data.readers import read
from crystaljax.data.records import Record, first_reasons
from crystaljax.data.registry import RESOURCES, fetch
from crystaljax.evaluation.attempts import Attempts, Known, ranks
from crystaljax.structures import to_cells

_NUMBERED = re.compile(r"(?P<name>.+?)[_/-]+(?P<number>\d+)")


def read_known(source: str) -> Known:
    """Crystals of a file or a registered dataset, in the cells that it gives.

    Entries that cannot be read are left out, with a warning. ValueError if none is left; errors of
    `readers.read`.
    """
    path = Path(source)
    name = f"{path.parent.name}/{path.name.split('.')[0]}".strip("/")
    if source == PROTOTYPES:
        data = load(source)
        return Known(source, data.ids.tolist(), list(to_cells(data.crystals, primitive=True)))
    if not path.exists() and source in RESOURCES:
        name, path = source, fetch(source)
    records = list(read(path))
    found = [record for record in records if record.cell is not None]
    if not found:
        raise ValueError(f"{source} has no crystal that can be read")
    if lost := [(record.id, record.reason) for record in records if record.cell is None]:
        warnings.warn(
            f"{len(lost)} of {len(records)} crystals of {source} cannot be read, and are left out"
            f" ({first_reasons(lost)})",
            stacklevel=1,
        )
    return Known(name, [r.id for r in found], [r.cell for r in found if r.cell is not None])


def read_predictions(source: str | Path, truth: Known) -> Attempts:
    """Attempts of a table or a folder of CIFs, in any of `readers.FORMATS`.

    A table says what an attempt is at in a column material_id, id or formula, and which attempt it
    is in a column attempt; without one they count in the order of the rows. The name of a CIF
    says it all: ID_ATTEMPT.cif or FORMULA_ATTEMPT.cif, or ATTEMPT.cif in a folder ID or FORMULA.
    An attempt at a formula is one at every test crystal that has it. What cannot be read is an
    attempt with a reason.

    ValueError if no attempt is at a test crystal, or if two say that they are the same one.
    """
    records = list(read(source))
    # A table without ids numbers its rows, which says nothing.
    named = any(record.id != str(row) for row, record in enumerate(records))
    by_id = {name: row for row, name in enumerate(truth.ids)}
    by_formula: dict[str, list[int]] = {}
    for row, name in enumerate(truth.formulas):
        by_formula.setdefault(name, []).append(row)
    kept: list[Record] = []
    pairs: list[tuple[int, int, float]] = []  # attempt, test crystal, number
    unknown: Counter[str] = Counter()
    for record in records:
        name, number = _asked(record, named, by_id, by_formula)
        targets = _targets(name, by_id, by_formula)
        if not targets:
            unknown[name] += 1
            continue
        pairs += [(len(kept), target, number) for target in targets]
        kept.append(record)
    if not kept:
        raise ValueError(
            f"none of the {len(records)} predictions in {source} is of a crystal of {truth.name}:"
            f" they are of {_some(unknown)}; give the ids ({truth.ids[0]}, ...) or the formulas"
            f" ({truth.formulas[0]}, ...) of its crystals in a column material_id, id or formula,"
            " or as names of CIFs like ID_ATTEMPT.cif"
        )
    notes = []
    if unknown:
        notes.append(
            f"left out: {unknown.total()} predictions of what is not in {truth.name}"
            f" ({_some(unknown)})"
        )
    attempt, target = (np.array([pair[i] for pair in pairs], int) for i in (0, 1))
    numbers = np.array([pair[2] for pair in pairs])
    order = np.lexsort((np.arange(len(pairs)), numbers, target))
    _refuse_repeated(source, target[order], numbers[order], truth)
    rank = np.empty(len(pairs), int)
    rank[order] = ranks(target[order])
    reasons = [record.reason for record in kept]
    if lost := Counter(reason for reason in reasons if reason):
        notes.append(f"{lost.total()} predictions are no crystal: {_some(lost)}")
    return Attempts([record.cell for record in kept], reasons, attempt, target, rank, tuple(notes))


def _asked(
    record: Record, named: bool, by_id: Mapping[str, int], by_formula: Mapping[str, list[int]]
) -> tuple[str, float]:
    """Target of an attempt, and its number (nan if it is not given).

    `named`: whether the id of the record is one that the file gives.
    """
    properties = record.properties
    number = properties.get("attempt", np.nan)
    number = number if isinstance(number, float) else np.nan
    if "id" in properties:
        return _text(properties["id"]), number
    if "formula" in properties and not (named and record.id in by_id):
        return _text(properties["formula"]), number
    match = _NUMBERED.fullmatch(record.id)
    if match is None or record.id in by_id or np.isfinite(number):
        return record.id, number
    known = bool(_targets(match["name"], by_id, by_formula))
    return (match["name"], float(match["number"])) if known else (record.id, number)


def _text(value: float | str) -> str:
    """A name as it stands in the file: readers take one that is a number for a number."""
    if isinstance(value, str):
        return value.strip()
    return str(int(value)) if value == round(value) else str(value)


def _targets(name: str, by_id: Mapping[str, int], by_formula: Mapping[str, list[int]]) -> list[int]:
    """Test crystals of an id or a formula."""
    if name in by_id:
        return [by_id[name]]
    try:
        counts = parse_formula(name)
    except ValueError:
        return []
    return by_formula.get(formula(counts), []) if (counts % 1 == 0).all() else []


def _refuse_repeated(
    source: str | Path, target: np.ndarray, number: np.ndarray, truth: Known
) -> None:
    """ValueError for the first of sorted attempts that has the number of the one before it."""
    same = (target[1:] == target[:-1]) & (number[1:] == number[:-1])
    if same.any():
        at = int(np.flatnonzero(same)[0])
        row = int(target[at])
        raise ValueError(
            f"{source} has two predictions that are attempt {number[at]:g} at {truth.ids[row]}"
            f" ({truth.formulas[row]}): number them differently, or not at all"
        )


def _some(counted: Counter[str]) -> str:
    """The most frequent of things and how often they are."""
    shown = [f"{count} × {name}" for name, count in counted.most_common(3)]
    return "; ".join(shown) + ("; ..." if len(counted) > 3 else "")
