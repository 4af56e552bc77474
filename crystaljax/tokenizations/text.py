r"""Crystals as text, by their symmetry: what a language model reads and writes.

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

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crystaljax.composition import SYMBOLS, atomic_number, symbol
from crystaljax.crystal import Crystals
from crystaljax.symmetry.orbits import FREE_LATTICE, project
from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, letter, letter_index, tables
from crystaljax.tokenizations.base import Decoded
from crystaljax.tokenizations.wyckoff import WyckoffTokenization

_NUMBER = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]{1,9})?")
_GROUP = re.compile(r"[0-9]{1,3}")
_POSITION = re.compile(r"([0-9]{1,3})([a-zA])")


class _Site(NamedTuple):
    """A line of a text."""

    wyckoff: int
    coordinates: tuple[float, float, float]
    species: int


class _Parsed(NamedTuple):
    """A text read, its dependent coordinates and parameters zero."""

    space_group: int
    lattice: np.ndarray
    sites: list[_Site]


@dataclass(frozen=True)
class WyckoffText:
    """Crystals as texts; what is written is lossless up to the decimals."""

    coordinate_decimals: int = 4
    """Decimals of fractional coordinates."""
    length_decimals: int = 3
    """Decimals of a, b, c in Å."""
    angle_decimals: int = 2
    """Decimals of α, β, γ in degrees."""

    def encode(self, crystals: Crystals) -> list[str]:
        """The text of each of B crystals; ValueError naming the first that cannot be written."""
        batch = crystals.to_numpy()
        group = batch.space_group
        known = (group >= 1) & (group <= N_GROUPS) & (batch.n_sites > 0)
        for i in np.flatnonzero(~known):
            raise ValueError(f"crystal {i} cannot be written: it has no space group or no site")
        return [self._written(batch, i) for i in range(len(batch))]

    def decode(self, tokens: Sequence[str]) -> Decoded:
        """The crystals that B texts describe; a bad text costs itself alone.

        Sites may stand in any order, coordinates be any that are equivalent by translation, and
        lines and numbers have any space around them.
        """
        parsed = [_parse(text) for text in tokens]
        n_sites = [len(found.sites) for found in parsed if isinstance(found, _Parsed)]
        slots = 1 << (max(n_sites, default=1) - 1).bit_length()  # few shapes to compile for
        n = len(parsed)
        crystals = Crystals(
            np.zeros(n, np.int32),
            np.zeros((n, slots), np.int32),
            np.zeros((n, slots), np.int32),
            np.zeros((n, slots, 3), np.float32),
            np.zeros((n, 6), np.float32),
        )
        for i, found in enumerate(parsed):
            if isinstance(found, _Parsed):
                _fill(crystals, i, found)
        sequences = WyckoffTokenization(slots)  # it checks what the lines alone do not tell
        decoded = sequences.decode(sequences.encode(_in_order(crystals)))
        reasons = [
            found if isinstance(found, str) else reason
            for found, reason in zip(parsed, decoded.reasons, strict=True)
        ]
        return Decoded(decoded.crystals, decoded.ok, reasons)

    def pattern(
        self,
        space_groups: Iterable[int] = range(1, N_GROUPS + 1),
        elements: Iterable[str] = SYMBOLS,
    ) -> str:
        """A regular expression for the texts of crystals of those groups and elements.

        What matches decodes, unless it has a position without freedom twice, an angle of zero or
        above 180°, or angles that close no cell. As a grammar it has about 60 states for each
        space group (4 elements): for large vocabularies name the few that are wanted.
        """
        species = "|".join(sorted(elements))
        return "|".join(self._group_pattern(group, species) for group in space_groups)

    def _group_pattern(self, group: int, species: str) -> str:
        """The pattern of one space group's texts."""
        length = rf"[1-9][0-9]{{0,2}}\.[0-9]{{{self.length_decimals}}}"
        angle = rf"1?[0-9]{{2}}\.[0-9]{{{self.angle_decimals}}}"
        coordinate = rf" 0\.[0-9]{{{self.coordinate_decimals}}}"
        free = _free(group)
        lattice = " ".join([length] * int(free[:3].sum()) + [angle] * int(free[3:].sum()))
        of_freedom: dict[int, list[str]] = {}
        for index in range(1, int(tables().n_letters[group - 1]) + 1):
            n_free = int(tables().n_free[group - 1, index])
            of_freedom.setdefault(n_free, []).append(_position(group, index))
        sites = "|".join(
            f"(?:{'|'.join(names)}){coordinate * n_free}" for n_free, names in of_freedom.items()
        )
        return rf"{group}\n{lattice}(?:\n(?:{species}) (?:{sites}))+"

    def _written(self, batch: Crystals, i: int) -> str:
        """The text of crystal i."""
        group = int(batch.space_group[i])
        decimals = [self.length_decimals] * 3 + [self.angle_decimals] * 3
        parameters = [
            f"{batch.lattice[i, axis]:.{decimals[axis]}f}" for axis in np.flatnonzero(_free(group))
        ]
        lines = [str(group), " ".join(parameters)]
        for site in range(int(batch.n_sites[i])):
            index = int(batch.wyckoff[i, site])
            coordinates = [
                self._coordinate(float(batch.frac[i, site, axis]))
                for axis in np.flatnonzero(tables().free[group - 1, index])
            ]
            element = symbol(int(batch.species[i, site]))
            lines.append(" ".join([element, _position(group, index), *coordinates]))
        return "\n".join(lines)

    def _coordinate(self, x: float) -> str:
        """A coordinate in [0, 1), also when rounded."""
        return f"{round(x % 1, self.coordinate_decimals) % 1:.{self.coordinate_decimals}f}"


def _free(group: int) -> np.ndarray:
    """bool [6]: the independent lattice parameters of a space group."""
    return np.asarray(FREE_LATTICE)[tables().crystal_system[group - 1]]


def _position(group: int, index: int) -> str:
    """A Wyckoff position's multiplicity and letter."""
    return f"{tables().multiplicity[group - 1, index]}{letter(index)}"


def _parse(text: str) -> _Parsed | str:
    """A text read line by line, or the reason why it cannot be."""
    lines = [line.split() for line in text.strip().split("\n")]
    try:
        if len(lines) < 3:
            raise ValueError("a space group, a lattice and a site need three lines")
        group = _space_group(lines[0])
        lattice = np.zeros(6)
        free = _free(group)
        lattice[free] = _numbers(lines[1], int(free.sum()), f"a lattice of space group {group}")
        sites = [_site(line, group) for line in lines[2:]]
    except ValueError as error:
        return str(error)
    return _Parsed(group, lattice, sites)


def _space_group(words: list[str]) -> int:
    """ValueError if it is none."""
    if len(words) != 1 or not _GROUP.fullmatch(words[0]) or not 1 <= int(words[0]) <= N_GROUPS:
        raise ValueError(f"{_shown(words)} is no space group: one of 1-{N_GROUPS}")
    return int(words[0])


def _numbers(words: list[str], n: int, of: str) -> list[float]:
    """ValueError if there are not n numbers."""
    if len(words) != n or not all(map(_NUMBER.fullmatch, words)):
        raise ValueError(f"{of} is {n} numbers, not {_shown(words)}")
    return list(map(float, words))


def _site(words: list[str], group: int) -> _Site:
    """ValueError if it is no site of the space group."""
    if len(words) < 2:
        raise ValueError(f"{_shown(words)} is no site: an element and a Wyckoff position")
    species = atomic_number(words[0])
    match = _POSITION.fullmatch(words[1])
    index = letter_index(match[2]) if match else 0
    multiplicity = int(tables().multiplicity[group - 1, index]) if match else 0
    if not match or not multiplicity or int(match[1]) != multiplicity:
        raise ValueError(f"{words[1][:20]!r} is no Wyckoff position of space group {group}")
    free = tables().free[group - 1, index]
    coordinates = np.zeros(3)
    name = f"position {words[1]} of space group {group}"
    coordinates[free] = np.mod(_numbers(words[2:], int(free.sum()), name), 1)
    x, y, z = coordinates.tolist()
    return _Site(index, (x, y, z), species)


def _shown(words: list[str]) -> str:
    """A line for a message."""
    return repr(" ".join(words)[:40])


def _fill(crystals: Crystals, row: int, parsed: _Parsed) -> None:
    """Write a crystal into a row."""
    crystals.space_group[row] = parsed.space_group
    crystals.lattice[row] = parsed.lattice
    for slot, site in enumerate(parsed.sites):
        crystals.wyckoff[row, slot] = site.wyckoff
        crystals.frac[row, slot] = site.coordinates
        crystals.species[row, slot] = site.species


def _in_order(crystals: Crystals) -> Crystals:
    """The same with all coordinates, the sites by letter, then x, y, z, and else as they were."""
    group = np.maximum(crystals.space_group, 1)[:, None]
    frac = np.asarray(project(group, crystals.wyckoff, crystals.frac))
    letters = np.where(crystals.wyckoff == 0, N_LETTERS, crystals.wyckoff)
    order = np.lexsort((*np.moveaxis(frac, -1, 0)[::-1], letters))
    return Crystals(
        crystals.space_group,
        np.take_along_axis(crystals.wyckoff, order, 1),
        np.take_along_axis(crystals.species, order, 1),
        np.take_along_axis(frac, order[..., None], 1),
        crystals.lattice,
    )
