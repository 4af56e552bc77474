r"""Crystals by the site symmetries of their atoms, as enumerated in WyFormer (arXiv 2503.02407).

A site is an element, the oriented symbol of its site symmetry (ITA), and the number of its Wyckoff
position among those of the space group with this symbol, in the order of letters. The meaning of
Wyckoff letters changes from group to group, that of these symbols does not: 78 symbols and 8
numbers replace 27 letters in 230 groups. WyFormer has neither lattice nor coordinates and finds
them by relaxation; here they are written as in a Wyckoff text, so that nothing is lost. Rutile:

    136: 4.594 2.959
    Ti@m.mm#1
    O@m.2m#1 0.3048

Two other texts of this kind are not included. SLICES (the package `slices` 2.0.12, LGPL) turns its
graphs into cells by relaxation, so not without loss, and needs a binary of xtb, weights for
TensorFlow and smact 2.5.5, which conflicts with the version that this package needs. Mat2Seq is
published as a branch of CrystaLLM's code, not as a package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from crystaljax.composition import SYMBOLS, atomic_number
from crystaljax.crystal import Crystals
from crystaljax.symmetry.tables import N_GROUPS, tables
from crystaljax.tokenizations.text import patterns, sites
from crystaljax.tokenizations.text.independent import IndependentText
from crystaljax.tokenizations.text.sites import Position, ReadSite, ReadText


@dataclass(frozen=True)
class SiteSymmetryText(IndependentText):
    """Crystals as texts of site symmetries; what is written is lossless up to the decimals."""

    def pattern(
        self, space_groups: Iterable[int] | None = None, elements: Iterable[str] | None = None
    ) -> str:
        """A regular expression for the texts of crystals of those groups and elements (all).

        Texts that match decode, unless they have a position without freedom twice, an angle of zero
        or above 180°, or angles that do not form a cell.
        """
        groups, element = patterns.groups_and_elements(space_groups, elements)
        return patterns.by_tail(groups, "{}:".format, lambda group: self._tail(group, element))

    def vocabulary(self) -> list[str]:
        """Words: space groups, elements, site symmetries, their numbers, digits."""
        places = [place for group in range(1, N_GROUPS + 1) for place in _places(group)]
        symbols, numbers = zip(*(place.split("#") for place in places), strict=True)
        return [
            *(f"{group}:" for group in range(1, N_GROUPS + 1)),
            *(f"\n{element}" for element in SYMBOLS),
            *(f"@{symbol}" for symbol in sorted(set(symbols))),
            *(f"#{number}" for number in sorted(set(numbers))),
            *(" 0.", " ", "."),
            *"0123456789",
        ]

    def _tail(self, group: int, element: str) -> str:
        """Regular expression for the text after the number of a space group."""
        lines = self._sites_pattern(_places(group))
        return rf" {self._lattice_pattern(group)}(?:\n{element}@(?:{lines}))+"

    def _written(self, batch: Crystals, i: int) -> str:
        """The text of crystal i."""
        group = int(batch.space_group[i])
        lines = [" ".join([f"{group}:", *self._parameters(batch, i)])]
        places = list(_places(group))
        for element, position, frac in sites.sites_of(batch, i):
            place = f"{element}@{places[position.letter - 1]}"
            lines.append(" ".join([place, *self._coordinates(position, frac)]))
        return "\n".join(lines)

    @staticmethod
    def _read(text: str) -> ReadText:
        """Parse a text line by line; ValueError with the reason if it is invalid."""
        head, *lines = [line.split() for line in text.strip().split("\n")]
        if not head or not head[0].endswith(":") or not lines:
            raise ValueError("a space group with a colon, its lattice, and sites need two lines")
        group = sites.space_group(head[0][:-1])
        free = sites.free_parameters(group)
        given = sites.numbers(head[1:], len(free), f"a lattice of space group {group}")
        return ReadText(group, sites.placed(given, free, 6), [_site(line, group) for line in lines])


@cache
def _places(group: int) -> Mapping[str, Position]:
    """The positions of a space group by site symmetry and number, such as m.mm#1; a first."""
    found: dict[str, Position] = {}
    counts: dict[str, int] = {}
    for position in sites.positions(group).values():
        symbol = str(tables().site_symmetry[group - 1, position.letter])
        counts[symbol] = counts.get(symbol, 0) + 1
        found[f"{symbol}#{counts[symbol]}"] = position
    return found


def _site(words: list[str], group: int) -> ReadSite:
    """Parse a site; ValueError if the space group has no such site."""
    element, at, place = words[0].partition("@") if words else ("", "", "")
    if not at:
        raise ValueError(f"{sites.shown(words)} is no site: an element, @, a site symmetry")
    species = atomic_number(element[:20])
    position = _places(group).get(place)
    if position is None:
        raise ValueError(f"{place[:20]!r} is no site symmetry of space group {group}")
    name = f"site symmetry {place} of space group {group}"
    given = sites.numbers(words[1:], len(position.free), name)
    return ReadSite(position.letter, sites.placed(given, position.free, 3), species)
