r"""Wyckoff texts: a crystal by its symmetry, without anything that can be derived.

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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crystaljax.composition import atomic_number
from crystaljax.crystal import Crystals
from crystaljax.tokenizations.base import Decoded
from crystaljax.tokenizations.text import patterns, sites
from crystaljax.tokenizations.text.sites import ReadSite, ReadText


@dataclass(frozen=True)
class WyckoffText:
    """Crystals as texts; what is written is lossless up to the decimals."""

    coordinate_decimals: int = 4
    """Decimals of fractional coordinates."""
    length_decimals: int = 3
    """Decimals of a, b, c in Å."""
    angle_decimals: int = 2
    """Decimals of α, β, γ in degrees."""

    def __post_init__(self) -> None:
        sites.check_decimals(self.coordinate_decimals, self.length_decimals, self.angle_decimals)

    def encode(self, crystals: Crystals) -> list[str]:
        """The text of each of B crystals; ValueError naming the first that cannot be written."""
        batch = sites.writable(crystals)
        return [self._written(batch, i) for i in range(len(batch))]

    def decode(self, tokens: Sequence[str]) -> Decoded:
        """The crystals that B texts describe; a bad text costs itself alone.

        Sites may stand in any order, coordinates be any that are equivalent by translation, and
        lines and numbers have any space around them.
        """
        return sites.decoded(tokens, _read)

    def pattern(
        self, space_groups: Iterable[int] | None = None, elements: Iterable[str] | None = None
    ) -> str:
        """A regular expression for the texts of crystals of those groups and elements (all).

        What matches decodes, unless it has a position without freedom twice, an angle of zero or
        above 180°, or angles that close no cell.
        """
        groups, element = patterns.groups_and_elements(space_groups, elements)
        return patterns.by_tail(groups, str, lambda group: self._tail(group, element))

    def _tail(self, group: int, element: str) -> str:
        """The expression of what follows the number of a space group."""
        forms = [patterns.length(self.length_decimals)] * 3
        forms += [patterns.angle(self.angle_decimals)] * 3
        lattice = " ".join(forms[axis] for axis in sites.free_parameters(group))
        coordinate = f" {patterns.any_coordinate(self.coordinate_decimals)}"
        of_freedom: dict[int, list[str]] = {}
        for name, position in sites.positions(group).items():
            of_freedom.setdefault(len(position.free), []).append(name)
        lines = "|".join(f"(?:{'|'.join(x)}){coordinate * n}" for n, x in of_freedom.items())
        return rf"\n{lattice}(?:\n{element} (?:{lines}))+"

    def _written(self, batch: Crystals, i: int) -> str:
        """The text of crystal i."""
        group = int(batch.space_group[i])
        decimals = [self.length_decimals] * 3 + [self.angle_decimals] * 3
        parameters = batch.lattice[i].tolist()
        free = sites.free_parameters(group)
        lines = [str(group), " ".join(f"{parameters[j]:.{decimals[j]}f}" for j in free)]
        for element, position, frac in sites.sites_of(batch, i):
            written = [sites.coordinate(frac[j], self.coordinate_decimals) for j in position.free]
            lines.append(" ".join([element, position.name, *written]))
        return "\n".join(lines)


def _read(text: str) -> ReadText:
    """A text read line by line; ValueError saying why it cannot be."""
    lines = [line.split() for line in text.strip().split("\n")]
    if len(lines) < 3:
        raise ValueError("a space group, a lattice and a site need three lines")
    group = sites.space_group(" ".join(lines[0]))
    free = sites.free_parameters(group)
    given = sites.numbers(lines[1], len(free), f"a lattice of space group {group}")
    return ReadText(group, sites.placed(given, free, 6), [_site(line, group) for line in lines[2:]])


def _site(words: list[str], group: int) -> ReadSite:
    """ValueError if it is no site of the space group."""
    if len(words) < 2:
        raise ValueError(f"{sites.shown(words)} is no site: an element and a Wyckoff position")
    species = atomic_number(words[0])
    position = sites.position(words[1], group)
    name = f"position {words[1]} of space group {group}"
    given = sites.numbers(words[2:], len(position.free), name)
    return ReadSite(position.letter, sites.placed(given, position.free, 3), species)
