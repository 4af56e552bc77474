r"""A symmetrised CIF in the style of CrystaLLM (Antunes et al., Nat. Commun. 15, 10570 (2024)).

It has the tags of CrystaLLM except the tables of elements and operations and the cell volume, and
it has Wyckoff letters. Other programs can read it as a CIF; the space group's name gives the
setting. Rutile:

    data_Ti2O4
    _chemical_formula_structural TiO2
    _chemical_formula_sum 'Ti2 O4'
    _cell_formula_units_Z 2
    _symmetry_space_group_name_H-M P42/mnm
    _symmetry_Int_Tables_number 136
    _cell_length_a 4.5940
    _cell_length_b 4.5940
    _cell_length_c 2.9590
    _cell_angle_alpha 90.0000
    _cell_angle_beta 90.0000
    _cell_angle_gamma 90.0000
    loop_
    _atom_site_type_symbol
    _atom_site_label
    _atom_site_symmetry_multiplicity
    _atom_site_Wyckoff_symbol
    _atom_site_fract_x
    _atom_site_fract_y
    _atom_site_fract_z
    Ti Ti0 2 a 0.0000 0.0000 0.0000
    O O1 4 f 0.3048 0.3048 0.0000
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from math import gcd
from typing import ClassVar

from crystaljax.composition import SYMBOLS, atomic_number
from crystaljax.crystal import Crystals
from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, letter
from crystaljax.text.expressions import SYMBOLS_AND_CHARACTERS
from crystaljax.tokenizations.text import patterns, sites
from crystaljax.tokenizations.text.redundant import RedundantText
from crystaljax.tokenizations.text.sites import ReadSite, ReadText

_CELL = (
    *("_cell_length_a", "_cell_length_b", "_cell_length_c"),
    *("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"),
)
_NAME = "_symmetry_space_group_name_H-M"
_NUMBER = "_symmetry_Int_Tables_number"
_REDUCED = "_chemical_formula_structural"
_SUM = "_chemical_formula_sum"
_Z = "_cell_formula_units_Z"
_SITE = (
    *("_atom_site_type_symbol", "_atom_site_label"),
    *("_atom_site_symmetry_multiplicity", "_atom_site_Wyckoff_symbol"),
    *("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z"),
)
_HEAD = "\n".join(["loop_", *_SITE])
_TAGS = (_REDUCED, _SUM, _Z, _NAME, _NUMBER, *_CELL, *_SITE, "loop_", "data_")
_DIGITS = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True)
class CifText(RedundantText):
    """Crystals as CIFs of symmetry-distinct sites; lossless up to the decimals.

    Tags and columns may be read in any order; unknown tags are ignored.
    """

    coordinate_decimals: int = 4
    length_decimals: int = 4
    angle_decimals: int = 4

    symbols: ClassVar[str] = "|".join(_TAGS) + f"|{SYMBOLS_AND_CHARACTERS}"
    """Regular expression for tokens: tags, symbols of elements, single characters."""

    def pattern(
        self, space_groups: Iterable[int] | None = None, elements: Iterable[str] | None = None
    ) -> str:
        """A regular expression for the texts of crystals of those groups and elements (all).

        An expression cannot compare parts of a text, so texts that match may contradict themselves
        in formulas and Z, equal lengths, and dependent coordinates (see `consistent`).
        """
        groups, element = patterns.groups_and_elements(space_groups, elements)
        amount = f"{element}(?:[1-9][0-9]*)?"
        body = patterns.by_tail(
            groups,
            lambda g: rf"{re.escape(_name(g))}\n{_NUMBER} {g}",
            lambda g: self._tail(g, element),
        )
        return (
            rf"data_(?:{amount})+\n{_REDUCED} (?:{amount})+"
            rf"\n{_SUM} '{element}[1-9][0-9]*(?: {element}[1-9][0-9]*)*'"
            rf"\n{_Z} [1-9][0-9]*\n{_NAME} (?:{body})"
        )

    def vocabulary(self) -> list[str]:
        """Tags, names of space groups (with their tag), elements, Wyckoff letters, digits, marks.

        CrystaLLM's vocabulary, with line ends and blanks as parts of the tags.
        """
        names = [f"\n{_NAME} {_name(group)}" for group in range(1, N_GROUPS + 1)]
        tags = [f"\n{tag} " for tag in (_REDUCED, _SUM, _Z, _NUMBER, *_CELL)]
        head = [f"\n{tag}" for tag in ("loop_", *_SITE)]
        letters = [letter(index) for index in range(1, N_LETTERS)]
        marks = ["\n", " ", ".", "'"]
        return ["data_", *tags, *names, *head, *SYMBOLS, *letters, *string.digits, *marks]

    def _tail(self, group: int, element: str) -> str:
        """Regular expression for the text after the number of a space group."""
        length = patterns.length(self.length_decimals)
        cell = [length] * 3 + patterns.angles(group, self.angle_decimals)
        lines = patterns.sites(group, self.coordinate_decimals)
        named = "|".join(
            f"(?:{'|'.join(f'{name[:-1]} {name[-1]}' for name in names)}) {numbers}"
            for numbers, names in lines.items()
        )
        parameters = "".join(rf"\n{tag} {x}" for tag, x in zip(_CELL, cell, strict=True))
        head = _HEAD.replace("\n", r"\n")
        return rf"{parameters}\n{head}(?:\n{element} {element}[0-9]+ (?:{named}))+"

    def _written(self, batch: Crystals, i: int, counts: dict[int, int]) -> str:
        """The text of crystal i."""
        group, units = int(batch.space_group[i]), gcd(*counts.values())
        decimals = [self.length_decimals] * 3 + [self.angle_decimals] * 3
        cell = [f"{x:.{n}f}" for x, n in zip(batch.lattice[i].tolist(), decimals, strict=True)]
        lines = [
            f"data_{_formula(counts, 1)}",
            f"{_REDUCED} {_formula(counts, units)}",
            f"{_SUM} '{' '.join(f'{SYMBOLS[z - 1]}{n}' for z, n in counts.items())}'",
            f"{_Z} {units}",
            f"{_NAME} {_name(group)}",
            f"{_NUMBER} {group}",
            *(f"{tag} {value}" for tag, value in zip(_CELL, cell, strict=True)),
            _HEAD,
        ]
        for site, (element, position, frac) in enumerate(sites.sites_of(batch, i)):
            numbers = [sites.coordinate(x, self.coordinate_decimals) for x in frac]
            place = [str(position.multiplicity), letter(position.letter), *numbers]
            lines.append(" ".join([element, f"{element}{site}", *place]))
        return "\n".join(lines)

    def _read(self, text: str) -> ReadText:
        """Parse a text line by line; ValueError with the reason if it is invalid."""
        tags, rows = _tags_and_rows(text)
        number = _stated(tags, _NUMBER)
        if not _DIGITS.fullmatch(number) or not 1 <= int(number) <= N_GROUPS:
            raise ValueError(f"{number[:20]!r} is no space group: one of 1-{N_GROUPS}")
        group = int(number)
        lattice = [sites.numbers([_stated(tags, tag)], 1, tag)[0] for tag in _CELL]
        found = [_site(row, group) for row in rows]
        if self.consistent:
            _compare(tags, group, found)
        return ReadText(group, lattice, found)


def _formula(counts: dict[int, int], units: int) -> str:
    """Reduced formula of the contents of `units` formula units."""
    amounts = ((SYMBOLS[z - 1], n // units) for z, n in counts.items())
    return "".join(f"{element}{n if n > 1 else ''}" for element, n in amounts)


@cache
def _name(group: int) -> str:
    """The Hermann-Mauguin symbol of a space group, with the setting if the symbol leaves the origin
    or the axes open: Fd-3m:2, R-3m:H."""
    import gemmi

    setting = gemmi.get_spacegroup_reference_setting(group)
    extension = setting.ext if setting.ext in ("1", "2", "H", "R") else ""
    symbol = setting.hm.replace(" ", "") if group > 15 else setting.short_name()
    return f"{symbol}:{extension}" if extension else symbol


def _tags_and_rows(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The values of single tags, and the rows of the loop of sites by column."""
    tags: dict[str, str] = {}
    rows: list[dict[str, str]] = []
    columns: list[str] | None = None  # columns of the current loop_
    in_head = False
    for line in filter(None, map(str.strip, text.split("\n"))):
        if line == "loop_":
            columns, in_head = [], True
        elif in_head and columns is not None and line.startswith("_"):
            columns.append(line)
        elif line.startswith(("_", "data_")):
            tag, value = _tag_and_value(line)
            if tag in tags:
                raise ValueError(f"{tag[:40]} is given twice")
            tags[tag], columns = value, None
        elif columns is None:
            raise ValueError(f"{line[:40]!r} is no tag, and belongs to no loop_")
        else:
            in_head = False
            if _SITE[3] in columns:
                rows.append(_row(line, columns))
    if not rows:
        raise ValueError(f"there is no loop_ of sites with {_SITE[3]}")
    return tags, rows


def _tag_and_value(line: str) -> tuple[str, str]:
    """Tag and value of a line; the block's name is the value of data_."""
    if line.startswith("data_"):
        return "data_", line[5:]
    tag, _, value = line.partition(" ")
    return tag, value.strip().strip("'\"")


def _row(line: str, columns: list[str]) -> dict[str, str]:
    """Values of a row by column; ValueError if their number is wrong."""
    values = line.split()
    if len(values) != len(columns):
        raise ValueError(f"{line[:40]!r} is no site of {len(columns)} columns")
    return dict(zip(columns, values, strict=True))


def _stated(tags: dict[str, str], tag: str) -> str:
    """Value of a tag; ValueError if it is missing."""
    if tag not in tags:
        raise ValueError(f"{tag} is missing")
    return tags[tag]


def _site(row: dict[str, str], group: int) -> ReadSite:
    """Parse a site; ValueError if the space group has no such site."""
    element, _, multiplicity, name, *place = (_stated(row, column) for column in _SITE)
    if len(name) != 1:
        raise ValueError(f"{name[:20]!r} is no Wyckoff letter")
    position = sites.position(multiplicity + name, group)
    return ReadSite(
        position.letter, sites.numbers(place, 3, "a site's place"), atomic_number(element)
    )


def _compare(tags: dict[str, str], group: int, found: list[ReadSite]) -> None:
    """ValueError if sites contradict the formulas or Z, or the name contradicts the number."""
    if _stated(tags, _NAME) != _name(group):
        raise ValueError(f"space group {group} is {_name(group)}, not {tags[_NAME][:20]!r}")
    contents = sites.contents(group, found)
    units = gcd(*contents.values())
    if _stated(tags, _Z) != str(units):
        raise ValueError(f"the sites are {units} formula units, not {tags[_Z][:20]!r}")
    reduced = {species: n // units for species, n in contents.items()}
    for tag, expected in (("data_", contents), (_REDUCED, reduced), (_SUM, contents)):
        stated = _stated(tags, tag)
        if sites.amounts(stated.replace(" ", "")) != expected:
            raise ValueError(f"the sites do not have the formula {stated[:40]!r} of {tag}")
