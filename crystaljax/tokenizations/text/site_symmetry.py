r"""Crystals by the site symmetry of their sites, as WyFormer enumerates them (arXiv 2503.02407).

Sites are an element, the oriented symbol of their site symmetry (ITA), and a number that tells the
Wyckoff positions of the space group with that symbol apart: 1 for the first by letter. Unlike
Wyckoff letters, whose meaning changes from group to group, the symbols mean the same in all of
them: 78 symbols and 8 numbers instead of 27 letters in 230 groups. WyFormer has neither lattice
nor coordinates and finds them by relaxation; here they stand as in a Wyckoff text, so that nothing
is lost. Rutile:

    136: 4.594 2.959
    Ti@m.mm#1
    O@m.2m#1 0.3048

Of other texts of this kind, SLICES (the package `slices` 2.0.12, LGPL) turns its graphs into cells
again by relaxation, so not without loss, with a binary of xtb, weights for TensorFlow and
smact 2.5.5, which excludes the version that this package needs; Mat2Seq is published as a branch
of CrystaLLM's code, as no package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from crystaljax.composition import SYMBOLS, atomic_number
from crystaljax.crystal import Crystals
from crystaljax.symmetry.tables import N_GROUPS, tables
from crystaljax.text.expressions import one_of
from crystaljax.tokenizations.base import Decoded
from crystaljax.tokenizations.text import patterns, sites
from crystaljax.tokenizations.text.sites import Position, ReadSite, ReadText


@dataclass(frozen=True)
class SiteSymmetryText:
    """Crystals as texts of site symmetries; what is written is lossless up to the decimals."""

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
        return patterns.by_tail(groups, "{}:".format, lambda group: self._tail(group, element))

    def vocabulary(self) -> list[str]:
        """Space groups, elements, site symmetries, their numbers, digits."""
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
        """The expression of what follows the number of a space group."""
        forms = [patterns.length(self.length_decimals)] * 3
        forms += [patterns.angle(self.angle_decimals)] * 3
        lattice = " ".join(forms[axis] for axis in sites.free_parameters(group))
        coordinate = f" {patterns.any_coordinate(self.coordinate_decimals)}"
        of_freedom: dict[int, list[str]] = {}
        for place, position in _places(group).items():
            of_freedom.setdefault(len(position.free), []).append(place)
        lines = "|".join(f"{one_of(x)}{coordinate * n}" for n, x in of_freedom.items())
        return rf" {lattice}(?:\n{element}@(?:{lines}))+"

    def _written(self, batch: Crystals, i: int) -> str:
        """The text of crystal i."""
        group = int(batch.space_group[i])
        decimals = [self.length_decimals] * 3 + [self.angle_decimals] * 3
        parameters = batch.lattice[i].tolist()
        free = sites.free_parameters(group)
        lines = [" ".join([f"{group}:", *(f"{parameters[j]:.{decimals[j]}f}" for j in free)])]
        places = list(_places(group))
        for element, position, frac in sites.sites_of(batch, i):
            written = [sites.coordinate(frac[j], self.coordinate_decimals) for j in position.free]
            lines.append(" ".join([f"{element}@{places[position.letter - 1]}", *written]))
        return "\n".join(lines)


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


def _read(text: str) -> ReadText:
    """A text read line by line; ValueError saying why it cannot be."""
    head, *lines = [line.split() for line in text.strip().split("\n")]
    if not head or not head[0].endswith(":") or not lines:
        raise ValueError("a space group with a colon, its lattice, and sites need two lines")
    group = sites.space_group(head[0][:-1])
    free = sites.free_parameters(group)
    given = sites.numbers(head[1:], len(free), f"a lattice of space group {group}")
    return ReadText(group, sites.placed(given, free, 6), [_site(line, group) for line in lines])


def _site(words: list[str], group: int) -> ReadSite:
    """ValueError if it is no site of the space group."""
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
