r"""Wyckoff texts: crystals by their symmetry, without anything that follows from it.

The space group's number, the lattice parameters, and a line for each symmetry-distinct site: the
element, the Wyckoff position and the representative's coordinates (the format of PLaID++, arXiv
2509.07150, shortened). Only the parameters and coordinates that the symmetry leaves independent
are written. Rutile:

    136
    4.594 2.959
    Ti 2a
    O 4f 0.3048
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from crystaljax.composition import atomic_number
from crystaljax.crystal import Crystals
from crystaljax.tokenizations.text import patterns, sites
from crystaljax.tokenizations.text.independent import IndependentText
from crystaljax.tokenizations.text.sites import ReadSite, ReadText


@dataclass(frozen=True)
class WyckoffText(IndependentText):
    """Crystals as texts; what is written is lossless up to the decimals."""

    def pattern(
        self, space_groups: Iterable[int] | None = None, elements: Iterable[str] | None = None
    ) -> str:
        """A regular expression for the texts of crystals of those groups and elements (all).

        Texts that match decode, unless they have a position without freedom twice, an angle of zero
        or above 180°, or angles that do not form a cell.
        """
        groups, element = patterns.groups_and_elements(space_groups, elements)
        return patterns.by_tail(groups, str, lambda group: self._tail(group, element))

    def _tail(self, group: int, element: str) -> str:
        """Regular expression for the text after the number of a space group."""
        lines = self._sites_pattern(sites.positions(group))
        return rf"\n{self._lattice_pattern(group)}(?:\n{element} (?:{lines}))+"

    def _written(self, batch: Crystals, i: int) -> str:
        """The text of crystal i."""
        lines = [str(int(batch.space_group[i])), " ".join(self._parameters(batch, i))]
        for element, position, frac in sites.sites_of(batch, i):
            lines.append(" ".join([element, position.name, *self._coordinates(position, frac)]))
        return "\n".join(lines)

    @staticmethod
    def _read(text: str) -> ReadText:
        """Parse a text line by line; ValueError with the reason if it is invalid."""
        lines = [line.split() for line in text.strip().split("\n")]
        if len(lines) < 3:
            raise ValueError("a space group, a lattice and a site need three lines")
        group = sites.space_group(" ".join(lines[0]))
        free = sites.free_parameters(group)
        given = sites.numbers(lines[1], len(free), f"a lattice of space group {group}")
        found = [_site(line, group) for line in lines[2:]]
        return ReadText(group, sites.placed(given, free, 6), found)


def _site(words: list[str], group: int) -> ReadSite:
    """Parse a site; ValueError if the space group has no such site."""
    if len(words) < 2:
        raise ValueError(f"{sites.shown(words)} is no site: an element and a Wyckoff position")
    species = atomic_number(words[0])
    position = sites.position(words[1], group)
    name = f"position {words[1]} of space group {group}"
    given = sites.numbers(words[2:], len(position.free), name)
    return ReadSite(position.letter, sites.placed(given, position.free, 3), species)
