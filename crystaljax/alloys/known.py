"""Known phases and alloys from tables of entries, and roles of elements estimated from them."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from crystaljax.alloys.composition import (
    PAPER_ELEMENTS,
    CompositionError,
    fractions,
    read_formula,
    write_formula,
)
from crystaljax.alloys.engines.table import composition_key
from crystaljax.alloys.grid import Roles
from crystaljax.data.text_files import open_text

_FORMULA = ("formula", "formula_pretty", "pretty_formula", "composition", "full_formula")
_ENERGY = ("energy_above_hull", "e_above_hull")
_PHASE = ("phase", "prototype")
_GROUP = ("space_group", "spacegroup", "space_group_number", "spacegroup.number", "symmetry.number")
_SITES = ("nsites", "n_sites", "num_sites", "sites")
_NAMES = {"bcc": "bcc", "a2": "bcc", "b2": "b2", "cscl": "b2"}
_BCC_GROUP, _B2_GROUP = 229, 221
_SHARE = 0.25  # share of an element's compounds from which a site counts as one of its roles


class EntriesError(ValueError):
    """Error: a file is not a table of entries; the message names the column or line."""


@dataclass(frozen=True)
class KnownConfig:
    """Choice of known phases. ValueError for an empty range."""

    elements: tuple[str, ...] = PAPER_ELEMENTS
    """Elements that entries may have. By default the 19 of `composition.PAPER_ELEMENTS`; the paper
    filters by the 26 of TCHEA7."""
    least: float = 0.0
    """eV/atom: the smallest energy above hull ..."""
    most: float = 0.25
    """... and the largest."""

    def __post_init__(self) -> None:
        if not self.least <= self.most:
            raise ValueError(f"no energy is from {self.least:g} to {self.most:g} eV/atom")


class Known(NamedTuple):
    """Known phases, each composition once."""

    bcc: list[dict[str, float]]
    """BCC compositions (amounts)."""
    b2: list[dict[str, float]]
    """B2 compositions."""
    left_out: dict[str, int]
    """Numbers of other entries by reason."""


def known_phases(path: str | PathLike[str], config: KnownConfig = KnownConfig()) -> Known:
    """The BCC and B2 phases in a CSV table of entries, such as the Materials Project's.

    It may be compressed (.gz, .bz2). Columns, with the usual names: the formula, the energy above
    hull in eV/atom, and either the phase (BCC or A2, B2 or CsCl) or the space-group number and
    optionally the number of sites in the cell. With these, BCC is an element in space group 229
    with one or two sites, and B2 is an AB compound in 221 with two sites. EntriesError for a
    missing column; FileNotFoundError.
    """
    found: dict[str, dict[str, dict[str, float]]] = {"bcc": {}, "b2": {}}
    left_out: Counter[str] = Counter()
    for line in _lines(Path(path), _FORMULA, _ENERGY, _PHASE + _GROUP):
        reason, phase, amounts = _entry(line, config)
        if reason is not None:
            left_out[reason] += 1
        else:
            found[phase].setdefault(composition_key(amounts), amounts)
    return Known([*found["bcc"].values()], [*found["b2"].values()], dict(left_out))


def _entry(
    line: Mapping[str, str], config: KnownConfig
) -> tuple[str | None, str, dict[str, float]]:
    """Reason to leave an entry out, or None, its phase and amounts."""
    try:
        amounts = read_formula(_value(line, _FORMULA))
        energy = float(_value(line, _ENERGY))
    except (CompositionError, ValueError):
        return "no formula or energy", "", {}
    if not amounts.keys() <= set(config.elements):
        return "other elements", "", {}
    if not config.least - 1e-9 <= energy <= config.most + 1e-9:
        return "energy above hull out of range", "", {}
    phase = _phase(line, amounts)
    return ("neither BCC nor B2", "", {}) if phase is None else (None, phase, amounts)


def _phase(line: Mapping[str, str], amounts: Mapping[str, float]) -> str | None:
    """ "bcc" or "b2"; None for any other structure."""
    if named := _value(line, _PHASE):
        return _NAMES.get(named.strip().lower())
    try:
        group = int(float(_value(line, _GROUP)))
        sites = int(float(_value(line, _SITES) or "0"))
    except ValueError:
        return None
    if group == _BCC_GROUP and len(amounts) == 1 and sites in (0, 1, 2):
        return "bcc"
    equal = len(set(fractions(amounts).values())) == 1
    return "b2" if group == _B2_GROUP and len(amounts) == 2 and equal and sites in (0, 2) else None


def estimated_roles(known: Known) -> Roles:
    """Roles estimated from known phases; in A.2 they are expert judgement.

    BCC: elements of known BCC phases. In a B2 compound the less electronegative element (Pauling)
    is on the first site. An element has the role of each site that it occupies in at least a
    quarter of its compounds. ValueError if there are no phases of one kind.
    """
    from pymatgen.core import Element

    on_first: Counter[str] = Counter()
    on_second: Counter[str] = Counter()
    for amounts in known.b2:
        first, *_, second = sorted(amounts, key=lambda symbol: (Element(symbol).X, symbol))
        on_first[first] += 1
        on_second[second] += 1
    if not known.bcc or not known.b2:
        raise ValueError(
            f"{len(known.bcc)} known BCC and {len(known.b2)} known B2 phases determine no roles"
        )
    sites = [
        tuple(e for e in sorted(on_first | on_second) if one[e] >= _SHARE * (one[e] + other[e]))
        for one, other in ((on_first, on_second), (on_second, on_first))
    ]
    return Roles(tuple(sorted({e for amounts in known.bcc for e in amounts})), *sites)


def read_compositions(path: str | PathLike[str]) -> list[dict[str, float] | None]:
    """Amounts of each formula in a file: a CSV with a column of them, or one per line.

    It may be compressed (.gz, .bz2). None for an invalid formula. EntriesError without such a
    column; FileNotFoundError.
    """
    path = Path(path)
    if ".csv" in suffixes(path):
        return [_amounts(_value(line, _FORMULA)) for line in _lines(path, _FORMULA)]
    return [_amounts(line) for line in text_lines(path)]


def suffixes(path: Path) -> set[str]:
    """Suffixes of a file's name, in lower case."""
    return {one.lower() for one in path.suffixes}


def text_lines(path: Path) -> list[str]:
    """Lines of a text file (.gz, .bz2) that are not blank; see `open_text`. FileNotFoundError."""
    with open_text(path) as (file, _):
        return [line for line in file.read().splitlines() if line.strip()]


def _amounts(formula: str) -> dict[str, float] | None:
    try:
        return read_formula(formula)
    except CompositionError:
        return None


def known_alloys(
    path: str | PathLike[str], elements: Collection[str], least: int = 2
) -> list[dict[str, float]]:
    """Alloys of a file with at least `least` of some elements, each composition once.

    "Known (existing) alloys containing two or more TCHEA elements" of arXiv 2511.12036, relative to
    which novelty is measured. Errors as in `read_compositions`; also EntriesError if there is none.
    """
    found: dict[str, dict[str, float]] = {}
    for amounts in read_compositions(path):
        if amounts is not None and len(set(elements).intersection(amounts)) >= least:
            found.setdefault(composition_key(amounts), amounts)
    if not found:
        raise EntriesError(f"{path} has no alloy of {least} or more of {', '.join(elements)}")
    return [*found.values()]


def formulas(compositions: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """Compositions as texts, for prompts."""
    return tuple(write_formula(one) for one in compositions)


def _lines(path: Path, *columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Lines of a CSV file by column, such as "space_group"; it must have one column of each group.

    Names of columns are in lower case and without blanks: websites write "Space Group".
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # tables with structures in them
    with open_text(path) as (file, _):
        reader = csv.DictReader(file)
        names = ["_".join(name.lower().split()) for name in reader.fieldnames or ()]
        for either in columns:
            if not set(either).intersection(names):
                raise EntriesError(f"{path} has none of the columns {', '.join(either)}")
        for line in reader:
            yield dict(
                zip(names, (line[name] or "" for name in reader.fieldnames or ()), strict=True)
            )


def _value(line: Mapping[str, str], names: Sequence[str]) -> str:
    """The first value of some columns that is not empty; "" if all are."""
    return next((line[name] for name in names if line.get(name)), "")
