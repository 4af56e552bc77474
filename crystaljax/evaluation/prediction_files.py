"""Files of predicted structures, anybody's, and of the true ones."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crystaljax.composition import formula, parse_formula
from crystaljax.data.dataset import PROTOTYPES, load
from crystaljax.data.readers import read
from crystaljax.data.records import Record, first_reasons
from crystaljax.data.registry import RESOURCES, fetch
from crystaljax.evaluation.attempts import Attempts, Known, ranks
from crystaljax.reasons import in_words
from crystaljax.structures import to_cells

_NUMBERED = re.compile(r"(?P<name>.+?)[_/-]+(?P<number>\d+)")
_AGAIN = re.compile(r"-\d+$")  # of a name that differs from another one by its case: CO, Co-2

MAX_NUMBER = 10_000
"""Largest number of an attempt: larger ones are dates, seeds or the like."""


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
    An attempt at an id or a formula is one at every test crystal that has it. What cannot be read
    is an attempt with a reason. So is each number that a test crystal lacks before its last one;
    numbers start from 0 if the file has a 0, else from 1.

    ValueError if no attempt is at a test crystal, if two say that they are the same one, or if a
    number is not one of an attempt.
    """
    records = list(read(source))
    names = _Names.of(truth, records)
    kept: list[Record] = []
    pairs: list[tuple[int, int, float]] = []  # attempt, test crystal, number
    like: dict[int, tuple[int, ...]] = {}  # test crystals that one name asks for
    unknown: Counter[str] = Counter()
    for row, record in enumerate(records):
        name, number = names.asked(row, record)
        targets = names.targets(name)
        if not targets:
            unknown[name or "an empty name"] += 1
            continue
        pairs += [(len(kept), target, number) for target in targets]
        like |= dict.fromkeys(targets, tuple(targets))
        kept.append(record)
    if not kept:
        raise ValueError(
            f"none of the {len(records)} predictions in {source} is of a crystal of {truth.name}:"
            f" they are of {in_words(unknown)}; give the ids ({truth.ids[0]}, ...) or the"
            f" formulas ({truth.formulas[0]}, ...) of its crystals in a column material_id, id or"
            " formula, or as names of CIFs like ID_ATTEMPT.cif"
        )
    notes = []
    if unknown:
        notes.append(
            f"left out: {unknown.total()} predictions of what is not in {truth.name}"
            f" ({in_words(unknown)})"
        )
    attempt, target = (np.array([pair[i] for pair in pairs], int) for i in (0, 1))
    rank = _ranks(source, target, np.array([pair[2] for pair in pairs]), truth)
    reasons = [record.reason for record in kept]
    if lost := Counter(reason for reason in reasons if reason):
        notes.append(f"{lost.total()} predictions are no crystal: {in_words(lost)}")
    cells = [record.cell for record in kept]
    return _filled(Attempts(cells, reasons, attempt, target, rank, tuple(notes)), like)


@dataclass(frozen=True)
class _Names:
    """Names of test crystals, as a file of predictions gives them."""

    by_id: Mapping[str, list[int]]
    """Rows of the test crystals of each id."""
    by_formula: Mapping[str, list[int]]
    """Rows of the test crystals of each reduced formula."""
    named: bool
    """Whether the records have ids: a table without them numbers its rows, which says nothing."""

    @staticmethod
    def of(truth: Known, records: Sequence[Record]) -> _Names:
        """Names of test crystals, for a file with these records."""
        named = any(record.id != str(row) for row, record in enumerate(records))
        return _Names(_rows_of(truth.ids), _rows_of(truth.formulas), named)

    def asked(self, row: int, record: Record) -> tuple[str, float]:
        """Name of what an attempt is at (empty if there is none), and its number.

        The number is nan if it is not given.
        """
        given = record.properties
        number = given.get("attempt", np.nan)
        number = number if isinstance(number, float) else np.nan
        columns = [column for column in ("id", "formula") if column in given]
        if self.named and record.id in self.by_id and "formula" in columns:
            columns.remove("formula")  # the id says more
        for column in columns:
            if name := _text(given[column]):
                return name, number
        if columns and record.id == str(row) and not (self.named and record.id in self.by_id):
            return "", number
        match = _NUMBERED.fullmatch(record.id)
        if match is None or record.id in self.by_id or np.isfinite(number):
            return record.id, number
        for name in (match["name"], _AGAIN.sub("", match["name"])):
            if self.targets(name):
                return name, float(match["number"])
        return record.id, number

    def targets(self, name: str) -> list[int]:
        """Test crystals of an id or a formula."""
        if name in self.by_id:
            return self.by_id[name]
        try:
            counts = parse_formula(name)
        except ValueError:
            return []
        return self.by_formula.get(formula(counts), []) if (counts % 1 == 0).all() else []


def _rows_of(names: Sequence[str]) -> dict[str, list[int]]:
    """Rows of each name."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return rows


def _text(value: float | str) -> str:
    """A name as it stands in the file: readers take one that is a number for a number.

    Empty for nan, which is how they give an empty cell.
    """
    if isinstance(value, str):
        return value.strip()
    if not np.isfinite(value):
        return "" if np.isnan(value) else str(value)
    return str(int(value)) if value == round(value) else str(value)


def _ranks(source: str | Path, target: np.ndarray, number: np.ndarray, truth: Known) -> np.ndarray:
    """Ranks int [P] of attempts at test crystals int [P] from their numbers [P].

    Those without a number (nan) follow the others at their test crystal, in order. ValueError for
    numbers that count no attempts, and for the first that is given twice.
    """
    given = ~np.isnan(number)
    whole = (number >= 0) & (number <= MAX_NUMBER) & (number == np.floor(number))
    if (given & ~whole).any():
        at = int(np.flatnonzero(given & ~whole)[0])
        raise ValueError(
            f"{source} has attempt {number[at]:g} at {truth.ids[target[at]]}: attempts count from 0"
            f" or 1 to {MAX_NUMBER} at most, so number them anew, or not at all"
        )
    _refuse_repeated(source, target, number, truth)
    rank = np.full(len(target), -1)
    rank[given] = number[given].astype(int) - int(min(number[given].min(initial=1), 1))
    after = np.zeros(len(truth), int)
    np.maximum.at(after, target, rank + 1)
    rank[~given] = after[target[~given]] + ranks(target[~given])
    return rank


def _refuse_repeated(
    source: str | Path, target: np.ndarray, number: np.ndarray, truth: Known
) -> None:
    """ValueError for the first test crystal, and number of it, that two attempts have."""
    order = np.lexsort((number, target))
    target, number = target[order], number[order]
    same = (target[1:] == target[:-1]) & (number[1:] == number[:-1])
    if same.any():
        at = int(np.flatnonzero(same)[0])
        row = int(target[at])
        raise ValueError(
            f"{source} has two predictions that are attempt {number[at]:g} at {truth.ids[row]}"
            f" ({truth.formulas[row]}): number them differently, or not at all"
        )


def _filled(attempts: Attempts, like: Mapping[int, tuple[int, ...]]) -> Attempts:
    """Attempts with those, which are no crystal, that a test crystal lacks before its last one.

    `like`: the test crystals that share an attempt, by test crystal.
    """
    pairs = list(zip(attempts.target.tolist(), attempts.rank.tolist(), strict=True))
    here, last = set(pairs), dict(sorted(pairs))  # the largest rank of each test crystal
    lost: dict[tuple[tuple[int, ...], int], int] = {}
    more = []
    for target, most in last.items():
        for rank in (rank for rank in range(most) if (target, rank) not in here):
            number = lost.setdefault((like[target], rank), len(attempts) + len(lost))
            more.append((number, target, rank))
    if not lost:
        return attempts
    found = np.stack([attempts.attempt, attempts.target, attempts.rank], axis=1)
    attempt, target, rank = np.concatenate([found, np.array(more)]).T
    note = (
        f"the numbers of attempts have gaps: {len(lost)} attempts are missing in the file, and"
        " count as no crystal"
    )
    return Attempts(
        [*attempts.cells, *[None] * len(lost)],
        [*attempts.reasons, *["missing in the file"] * len(lost)],
        attempt,
        target,
        rank,
        (*attempts.notes, note),
    )
