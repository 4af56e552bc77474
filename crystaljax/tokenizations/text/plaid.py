r"""The Wyckoff text of PLaID++ (arXiv 2509.07150), line for line.

The formula and the number of atoms of the conventional cell, the space group's symbol, all six
lattice parameters, and a line for each symmetry-distinct site: the element, all three coordinates
of the representative and the Wyckoff position. Settings and representatives are those of pyxtal,
which are this package's too. Rutile:

    Ti2O4
    Spacegroup: P42/mnm
    abc: 4.59 4.59 2.96
    angles: 90.00 90.00 90.00
    Sites (6)
    Ti 0.000 0.000 0.000 2a
    O 0.305 0.305 0.000 4f

With the paper's decimals a lattice parameter is off by up to 0.005 Å or degrees (0.1 % of 5 Å), a
free coordinate by 0.0005 (0.005 Å in a cell of 10 Å). Coordinates and parameters that the symmetry
fixes, such as thirds and equal lengths, are exact again when read, and so is the space group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from crystaljax.composition import SYMBOLS, atomic_number
from crystaljax.crystal import Crystals
from crystaljax.symmetry.tables import tables
from crystaljax.text.expressions import SYMBOLS_AND_CHARACTERS
from crystaljax.tokenizations.text import patterns, sites
from crystaljax.tokenizations.text.redundant import RedundantText
from crystaljax.tokenizations.text.sites import ReadSite, ReadText

_SITES = re.compile(r"Sites \(([0-9]{1,6})\)")


@dataclass(frozen=True)
class PlaidText(RedundantText):
    """Crystals as the texts of PLaID++."""

    coordinate_decimals: int = 3
    length_decimals: int = 2
    angle_decimals: int = 2

    symbols: ClassVar[str] = rf"Spacegroup: |abc: |angles: |Sites \(|{SYMBOLS_AND_CHARACTERS}"
    """Regular expression for tokens: the words that begin lines, symbols, single characters."""

    def pattern(
        self, space_groups: Iterable[int] | None = None, elements: Iterable[str] | None = None
    ) -> str:
        """A regular expression for the texts of crystals of those groups and elements (all).

        An expression cannot compare parts of a text, so texts that match may contradict themselves
        in formula, number of atoms, equal lengths, and dependent coordinates (see `consistent`).
        """
        groups, element = patterns.groups_and_elements(space_groups, elements)
        body = patterns.by_tail(
            groups, lambda g: re.escape(_symbol(g)), lambda g: self._tail(g, element)
        )
        return rf"(?:{element}(?:[1-9][0-9]*)?)+\nSpacegroup: (?:{body})"

    def _tail(self, group: int, element: str) -> str:
        """Regular expression for the text after the symbol of a space group."""
        length = patterns.length(self.length_decimals)
        angles = patterns.angles(group, self.angle_decimals)
        lines = patterns.sites(group, self.coordinate_decimals)
        named = "|".join(f"{numbers} {_either(names)}" for numbers, names in lines.items())
        return (
            rf"\nabc: {' '.join([length] * 3)}\nangles: {' '.join(angles)}"
            rf"\nSites \([1-9][0-9]*\)(?:\n{element} (?:{named}))+"
        )

    def _written(self, batch: Crystals, i: int, counts: dict[int, int]) -> str:
        """The text of crystal i."""
        parameters = batch.lattice[i].tolist()
        lines = [
            "".join(f"{SYMBOLS[z - 1]}{n if n > 1 else ''}" for z, n in counts.items()),
            f"Spacegroup: {_symbol(int(batch.space_group[i]))}",
            "abc: " + " ".join(f"{x:.{self.length_decimals}f}" for x in parameters[:3]),
            "angles: " + " ".join(f"{x:.{self.angle_decimals}f}" for x in parameters[3:]),
            f"Sites ({sum(counts.values())})",
        ]
        for element, position, frac in sites.sites_of(batch, i):
            numbers = [sites.coordinate(x, self.coordinate_decimals) for x in frac]
            lines.append(" ".join([element, *numbers, position.name]))
        return "\n".join(lines)

    def _read(self, text: str) -> ReadText:
        """Parse a text line by line; ValueError with the reason if it is invalid."""
        lines = [line for line in map(str.strip, text.split("\n")) if line]
        if len(lines) < 6:
            raise ValueError("a formula, a space group, lengths, angles, sites need six lines")
        group = _group(_after("Spacegroup:", lines[1]))
        lattice = sites.numbers(_after("abc:", lines[2]).split(), 3, "abc")
        lattice += sites.numbers(_after("angles:", lines[3]).split(), 3, "angles")
        n_atoms = _SITES.fullmatch(lines[4])
        if n_atoms is None:
            raise ValueError(f"{lines[4][:40]!r} is not Sites (number of atoms)")
        found = [_site(line.split(), group) for line in lines[5:]]
        if self.consistent:
            _compare(lines[0], int(n_atoms[1]), group, found)
        return ReadText(group, lattice, found)


def _symbol(group: int) -> str:
    """The Hermann-Mauguin symbol of a space group."""
    return str(tables().symbol[group - 1])


@cache
def _numbers_of_symbols() -> dict[str, int]:
    """Space groups by their symbols."""
    return {name: number for number, name in enumerate(tables().symbol.tolist(), start=1)}


def _group(symbol: str) -> int:
    """Space group of a symbol; ValueError if it is none."""
    found = _numbers_of_symbols().get(symbol)
    if found is None:
        raise ValueError(f"{symbol[:40]!r} is no symbol of a space group, such as P42/mnm")
    return found


def _after(name: str, line: str) -> str:
    """The text of a line after its name; ValueError if it begins with another."""
    if not line.startswith(name):
        raise ValueError(f"{line[:40]!r} does not begin with {name}")
    return line[len(name) :].strip()


def _site(words: list[str], group: int) -> ReadSite:
    """Parse a site; ValueError if the space group has no such site."""
    if len(words) != 5:
        raise ValueError(f"{sites.shown(words)} is no site: an element, x, y, z and a position")
    position = sites.position(words[4], group)
    coordinates = sites.numbers(words[1:4], 3, "a site's place")
    return ReadSite(position.letter, coordinates, atomic_number(words[0]))


def _compare(formula: str, n_atoms: int, group: int, found: list[ReadSite]) -> None:
    """ValueError if the sites contradict the formula or the number of atoms."""
    contents = sites.contents(group, found)
    if sites.amounts(formula) != contents:
        raise ValueError(f"the sites do not have the formula {formula[:40]!r}")
    if n_atoms != sum(contents.values()):
        raise ValueError(f"the sites have {sum(contents.values())} atoms, not {n_atoms}")


def _either(names: Sequence[str]) -> str:
    return f"(?:{'|'.join(names)})"
