r"""Crystals as text, by their atoms: the format of crystal-text-llm (Gruver et al., 2402.04379).

The lengths a, b, c and the angles α, β, γ of the Niggli-reduced primitive cell, and for each atom
a line with its element and one with its fractional coordinates. The text does not state the
symmetry; a symmetry search finds it when a text is decoded. Numbers are rounded (the original
truncates angles: 119° for 119.999°), and coordinates have one more decimal by default: with 2
decimals, the tolerance needed to find the symmetry again also finds symmetry that was not there.
Rutile:

    2.96 4.59 4.59
    90.00 90.00 90.00
    Ti
    0.000 0.000 0.000
    Ti
    0.500 0.500 0.500
    O
    0.000 0.305 0.305
    ...
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from crystaljax.composition import SYMBOLS, atomic_number, symbol
from crystaljax.crystal import Crystals, wrapped
from crystaljax.ranges import POSITIVE, Range, check
from crystaljax.text.expressions import one_of
from crystaljax.tokenizations.base import Decoded
from crystaljax.tokenizations.text.p1 import (
    P1Cell,
    crystals_of,
    reduced_cells,
    rounding_tolerance,
    shuffled,
)

LONGEST = 1000
"""Å: cells of this length or longer are not written."""

_NUMBER = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]{1,9})?")


@dataclass(frozen=True)
class CoordinatesText:
    """Crystals as the texts of their atoms; lossless up to the decimals and the symmetry search."""

    coordinate_decimals: int = 3
    """Decimals of fractional coordinates."""
    length_decimals: int = 2
    """Decimals of a, b, c in Å."""
    angle_decimals: int = 2
    """Decimals of α, β, γ in degrees."""
    symprec: float | None = None
    """Tolerance in Å of the symmetry search when a text is read. By default what rounding may do
    to a cell of 10 Å: 0.016 Å with the default decimals, 0.106 Å with 2 decimals of coordinates."""

    def __post_init__(self) -> None:
        decimals = Range(1, 9)
        check(
            self,
            coordinate_decimals=decimals,
            length_decimals=decimals,
            angle_decimals=decimals,
            symprec=POSITIVE,
        )

    @property
    def tolerance(self) -> float:
        """Å: the tolerance of the symmetry search."""
        if self.symprec is not None:
            return self.symprec
        decimals = self.coordinate_decimals, self.length_decimals, self.angle_decimals
        return rounding_tolerance(*(10.0**-n for n in decimals))

    def encode(self, crystals: Crystals) -> list[str]:
        """The text of each of B crystals, the atoms in the order of their sites.

        ValueError naming the first crystal that cannot be written.
        """
        return self.written(reduced_cells(crystals))

    def augment(self, crystals: Crystals, rng: np.random.Generator) -> list[str]:
        """Texts of the same crystals with the atoms in random order and the origin anywhere."""
        return self.written(shuffled(reduced_cells(crystals), 10.0**-self.coordinate_decimals, rng))

    def decode(self, tokens: Sequence[str]) -> Decoded:
        """The crystals that B texts describe; a bad text makes only its own row not ok.

        The cell need not be reduced or primitive; white space around lines and numbers is ignored.
        """
        return crystals_of([_parse(text) for text in tokens], self.tolerance)

    def pattern(
        self, space_groups: Iterable[int] | None = None, elements: Iterable[str] | None = None
    ) -> str:
        """A regular expression for the texts of crystals of those elements.

        Texts that match decode, unless atoms coincide or the cell is unphysical (flat, or a
        needle). ValueError if space groups are given: the texts do not state them.
        """
        require_no_group(space_groups)
        species = element_pattern(elements)
        length = rf"(?:[1-9][0-9]{{0,2}}|0)\.[0-9]{{{self.length_decimals}}}"
        zeros = "0" * self.angle_decimals
        angle = rf"(?:(?:[6-9][0-9]|1[01][0-9])\.[0-9]{{{self.angle_decimals}}}|120\.{zeros})"
        coordinate = rf"0\.[0-9]{{{self.coordinate_decimals}}}"
        of_cell = "\n".join(" ".join([each] * 3) for each in (length, angle))
        return rf"{of_cell}(?:\n{species}\n{' '.join([coordinate] * 3)})+"

    def written(self, cells: Sequence[P1Cell]) -> list[str]:
        """The text of each cell; ValueError naming the first that cannot be written."""
        return [self._written(cell, i) for i, cell in enumerate(cells)]

    def _written(self, cell: P1Cell, number: int) -> str:
        """The text of a cell."""
        lengths = np.round(cell.lattice[:3], self.length_decimals)
        if not ((lengths > 0).all() and (lengths < LONGEST).all()):
            raise ValueError(
                f"crystal {number} cannot be written: a cell of {lengths.tolist()} Å, and lengths "
                f"with {self.length_decimals} decimals are above 0 and below {LONGEST}"
            )
        # a coordinate in [0, 1), also when rounded
        frac = np.round(cell.frac, self.coordinate_decimals) % 1
        lines = [
            " ".join([f"{x:.{self.length_decimals}f}" for x in lengths.tolist()]),
            " ".join([f"{x:.{self.angle_decimals}f}" for x in cell.lattice[3:].tolist()]),
        ]
        for z, coordinates in zip(cell.species.tolist(), frac.tolist(), strict=True):
            lines.append(symbol(z))
            lines.append(" ".join([f"{x:.{self.coordinate_decimals}f}" for x in coordinates]))
        return "\n".join(lines)


def element_pattern(elements: Iterable[str] | None) -> str:
    """A regular expression for the symbols of some elements, by default of all.

    ValueError naming one that is none.
    """
    return one_of(SYMBOLS if elements is None else [symbol(atomic_number(e)) for e in elements])


def require_no_group(space_groups: Iterable[int] | None) -> None:
    """ValueError if space groups are given for texts that do not state them."""
    if space_groups is not None:
        raise ValueError(
            "texts of all atoms (P1) cannot be held to space groups: they do not say theirs. Take "
            "a Wyckoff text, or reject the samples of other groups"
        )


def _parse(text: str) -> P1Cell | str:
    """Parse a text line by line; the reason if it is invalid."""
    lines = [line.split() for line in text.strip().split("\n")]
    try:
        if len(lines) < 4:
            raise ValueError("lengths, angles and an atom need four lines")
        if len(lines) % 2:
            raise ValueError(f"{_shown(lines[-1])}: an atom is an element and its coordinates")
        lattice = _numbers(lines[0], "cell lengths") + _numbers(lines[1], "cell angles")
        species = [_element(line) for line in lines[2::2]]
        frac = [_numbers(line, "coordinates") for line in lines[3::2]]
    except ValueError as error:
        return str(error)
    return P1Cell(np.array(lattice), wrapped(np.array(frac)), np.array(species))


def _element(words: list[str]) -> int:
    """Atomic number of a symbol; ValueError if it is none."""
    if len(words) != 1:
        raise ValueError(f"{_shown(words)} is no element")
    return atomic_number(words[0][:20])


def _numbers(words: list[str], of: str) -> list[float]:
    """Three numbers; ValueError for anything else."""
    if len(words) != 3 or not all(map(_NUMBER.fullmatch, words)):
        raise ValueError(f"{of} are 3 numbers, not {_shown(words)}")
    return list(map(float, words))


def _shown(words: list[str]) -> str:
    """A line for a message."""
    return repr(" ".join(words)[:40])
