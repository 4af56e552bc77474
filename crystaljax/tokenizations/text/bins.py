r"""Crystals as words of a fixed vocabulary; each number is one word, that of its bin.

`WyckoffBins` has the fields of the Wyckoff text, `P1Bins` all atoms of the Niggli-reduced cell.
Words include the blank or line end before them, and texts are concatenated words;
`crystaljax.text.tokenizer_training.from_vocabulary` makes a tokenizer of them. No word is a prefix
of another, so that a text is one sequence of words. Rutile:

    136: 4.59Å 2.96Å            P1: 2.96Å 4.59Å 4.59Å 90.0° 90.0° 90.0°
    Ti: 2a                      Ti: 0.000 0.000 0.000
    O: 4f 0.305                 Ti: 0.500 0.500 0.500
                                O: 0.000 0.305 0.305 ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from crystaljax.composition import SYMBOLS
from crystaljax.crystal import Crystals
from crystaljax.ranges import POSITIVE, check
from crystaljax.symmetry.orbits import FREE_LATTICE
from crystaljax.symmetry.tables import N_GROUPS, letter, tables
from crystaljax.text.expressions import one_of
from crystaljax.tokenizations.base import Decoded, TextFormat
from crystaljax.tokenizations.text.binning import MAX_DECIMALS, Bins
from crystaljax.tokenizations.text.coordinates import (
    CoordinatesText,
    element_pattern,
    require_no_group,
)
from crystaljax.tokenizations.text.p1 import (
    REDUCED_ANGLES,
    P1Cell,
    reduced_cells,
    rounding_tolerance,
    shuffled,
)
from crystaljax.tokenizations.text.wyckoff import WyckoffText

_ENDINGS = "Å°:"

_WYCKOFF_ORDER = re.compile("g(l+)(a*)((?:epc*)+)")
_P1_ORDER = re.compile("glllaaa(?:eccc)+")


@dataclass(frozen=True)
class WyckoffBins:
    """Space group, free lattice parameters and sites as words; lossless up to the bin widths."""

    coordinate_width: float = 0.001
    """Bin width of fractional coordinates; 1 is a multiple of it."""
    length_width: float = 0.01
    """Bin width of a, b, c in Å."""
    angle_width: float = 0.1
    """Bin width of α, β, γ in degrees."""
    max_length: float = 120.0
    """Å: the last bin of a, b, c (hexagonal axes of rhombohedral crystals are long)."""

    def __post_init__(self) -> None:
        _check_widths(self)

    def encode(self, crystals: Crystals) -> list[str]:
        """The text of each of B crystals; ValueError naming the first that cannot be written.

        It cannot be written without space group or sites, or with a length beyond the bins.
        """
        batch = crystals.to_numpy()
        lattice = self._bins.rounded_lattice(batch.lattice)
        self._bins.require_lattices(lattice)
        frac = self._bins.rounded_coordinates(batch.frac)
        rounded = Crystals(batch.space_group, batch.wyckoff, batch.species, frac, lattice)
        return [self._in_words(text) for text in self._text.encode(rounded)]

    def decode(self, tokens: Sequence[str]) -> Decoded:
        """The crystals that B texts describe; a bad text makes only its own row not ok.

        Sites may stand in any order, and words have any space around them.
        """
        return _decoded(tokens, self._in_lines, self._text)

    def pattern(
        self, space_groups: Iterable[int] | None = None, elements: Iterable[str] | None = None
    ) -> str:
        """A regular expression for the texts of crystals of those groups and elements.

        Texts that match decode, unless they have a position without freedom twice, or angles that
        do not form a cell. ValueError for a number that is no space group, or an unknown element.
        """
        groups = range(1, N_GROUPS + 1) if space_groups is None else list(space_groups)
        if unknown := [group for group in groups if not 1 <= group <= N_GROUPS]:
            raise ValueError(f"{unknown[0]} is no space group: one of 1-{N_GROUPS}")
        species = f"\n{element_pattern(elements)}:"
        return "|".join(self._group_pattern(group, species) for group in groups)

    def vocabulary(self) -> list[str]:
        """All words that texts are made of."""
        return list(self._bins.kinds)

    @cached_property
    def _text(self) -> WyckoffText:
        """The text of the same numbers."""
        return WyckoffText(*self._bins.decimals)

    @cached_property
    def _bins(self) -> _Vocabulary:
        groups = range(1, N_GROUPS + 1)
        positions = {name: None for group in groups for name in _positions(group)}
        return _Vocabulary(
            [f"{group}:" for group in groups],
            Bins(self.length_width, self.max_length, self.length_width, "Å"),
            Bins(self.angle_width, 180 - self.angle_width, self.angle_width, "°"),
            Bins(0, 1 - self.coordinate_width, self.coordinate_width),
            list(positions),
        )

    def _group_pattern(self, group: int, species: str) -> str:
        """The pattern of one space group's texts."""
        lengths, angles = _n_free(group)
        of_freedom: dict[int, list[str]] = {}
        for index, name in enumerate(_positions(group), start=1):
            of_freedom.setdefault(int(tables().n_free[group - 1, index]), []).append(name)
        sites = "|".join(
            f"{one_of(names)}{self._bins.coordinates.pattern * n}"
            for n, names in of_freedom.items()
        )
        lattice = self._bins.lengths.pattern * lengths + self._bins.angles.pattern * angles
        return f"{group}:{lattice}(?:{species}(?:{sites}))+"

    def _in_words(self, text: str) -> str:
        """A Wyckoff text in words."""
        group, lattice, *sites = text.split("\n")
        n_lengths, _ = _n_free(int(group))
        lines = [f"{group}: {_with_units(lattice.split(), n_lengths)}"]
        return "\n".join([*lines, *(site.replace(" ", ": ", 1) for site in sites)])

    def _in_lines(self, text: str) -> str:
        """The Wyckoff text of a text in words; ValueError for words out of order."""
        words, kinds = self._bins.read(text)
        match = _WYCKOFF_ORDER.fullmatch(kinds)
        if not match:
            raise ValueError(
                "words out of order: a space group, lengths, angles, and of each site element, "
                "Wyckoff position and coordinates"
            )
        n_lengths, n_angles = len(match[1]), len(match[2])
        of_group = _n_free(int(words[0]))
        if (n_lengths, n_angles) != of_group:
            raise ValueError(
                f"a lattice of space group {words[0]} is {of_group[0]} lengths and {of_group[1]} "
                f"angles, not {n_lengths} and {n_angles}"
            )
        end = 1 + n_lengths + n_angles
        lines = [words[0], " ".join(words[1:end])]
        starts = [i for i, kind in enumerate(kinds) if kind == "e"]
        for start, stop in zip(starts, [*starts[1:], None], strict=True):
            lines.append(" ".join(words[start:stop]))
        return "\n".join(lines)


@dataclass(frozen=True)
class P1Bins:
    """All atoms of the Niggli-reduced cell as words; lossless up to the bin widths."""

    coordinate_width: float = 0.001
    """Bin width of fractional coordinates; 1 is a multiple of it."""
    length_width: float = 0.01
    """Bin width of a, b, c in Å."""
    angle_width: float = 0.1
    """Bin width of α, β, γ in degrees."""
    max_length: float = 60.0
    """Å: the last bin of a, b, c."""
    symprec: float | None = None
    """Tolerance in Å of the symmetry search when a text is read. By default what rounding may do
    to a cell of 10 Å: 0.024 Å with the default widths."""

    def __post_init__(self) -> None:
        _check_widths(self)
        check(self, symprec=POSITIVE)

    @property
    def tolerance(self) -> float:
        """Å: the tolerance of the symmetry search."""
        if self.symprec is not None:
            return self.symprec
        return rounding_tolerance(self.coordinate_width, self.length_width, self.angle_width)

    def encode(self, crystals: Crystals) -> list[str]:
        """The text of each of B crystals, the atoms in the order of their sites.

        ValueError naming the first that cannot be written, e.g. with a length beyond the bins.
        """
        return self._written(reduced_cells(crystals))

    def augment(self, crystals: Crystals, rng: np.random.Generator) -> list[str]:
        """Texts of the same crystals with the atoms in random order and the origin anywhere."""
        return self._written(shuffled(reduced_cells(crystals), self.coordinate_width, rng))

    def decode(self, tokens: Sequence[str]) -> Decoded:
        """The crystals that B texts describe; a bad text makes only its own row not ok.

        The cell need not be primitive, and words have any space around them.
        """
        return _decoded(tokens, self._in_lines, self._text)

    def pattern(
        self, space_groups: Iterable[int] | None = None, elements: Iterable[str] | None = None
    ) -> str:
        """A regular expression for the texts of crystals of those elements.

        Texts that match decode, unless atoms coincide or the cell is unphysical (flat, or a
        needle). ValueError if space groups are given: the texts do not state them.
        """
        require_no_group(space_groups)
        atom = f"\n{element_pattern(elements)}:{self._bins.coordinates.pattern * 3}"
        return f"P1:{self._bins.lengths.pattern * 3}{self._bins.angles.pattern * 3}(?:{atom})+"

    def vocabulary(self) -> list[str]:
        """All words that texts are made of."""
        return list(self._bins.kinds)

    @cached_property
    def _text(self) -> CoordinatesText:
        """The text of the same numbers."""
        return CoordinatesText(*self._bins.decimals, self.tolerance)

    @cached_property
    def _bins(self) -> _Vocabulary:
        return _Vocabulary(
            ["P1:"],
            Bins(self.length_width, self.max_length, self.length_width, "Å"),
            Bins(*REDUCED_ANGLES, self.angle_width, "°"),
            Bins(0, 1 - self.coordinate_width, self.coordinate_width),
        )

    def _written(self, cells: Sequence[P1Cell]) -> list[str]:
        """The text of each cell in words."""
        lattices = self._bins.rounded_lattice(np.array([cell.lattice for cell in cells]))
        self._bins.require_lattices(lattices)
        rounded = [
            P1Cell(lattice, self._bins.rounded_coordinates(cell.frac), cell.species)
            for lattice, cell in zip(lattices, cells, strict=True)
        ]
        return [self._in_words(text) for text in self._text.written(rounded)]

    def _in_words(self, text: str) -> str:
        """A coordinate text in words."""
        lengths, angles, *atoms = text.split("\n")
        lines = [f"P1: {_with_units([*lengths.split(), *angles.split()], 3)}"]
        lines += map(": ".join, zip(atoms[::2], atoms[1::2], strict=True))
        return "\n".join(lines)

    def _in_lines(self, text: str) -> str:
        """The coordinate text of a text in words; ValueError for words out of order."""
        words, kinds = self._bins.read(text)
        if not _P1_ORDER.fullmatch(kinds):
            raise ValueError(
                "words out of order: P1, 3 lengths, 3 angles, and of each atom element and 3 "
                "coordinates"
            )
        lines = [" ".join(words[1:4]), " ".join(words[4:7])]
        for start in range(7, len(words), 4):
            lines += [words[start], " ".join(words[start + 1 : start + 4])]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Vocabulary:
    """The words of a format, by kind."""

    groups: list[str]
    lengths: Bins
    angles: Bins
    coordinates: Bins
    positions: Sequence[str] = ()

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of each word: g, l, a, e, p or c."""
        elements = [f"\n{element}:" for element in SYMBOLS]
        of_kind = {
            "g": self.groups,
            "l": self.lengths.words,
            "a": self.angles.words,
            "e": elements,
            "p": self.positions,
            "c": self.coordinates.words,
        }
        return {word: kind for kind, words in of_kind.items() for word in words}

    @property
    def decimals(self) -> tuple[int, int, int]:
        """Decimals of coordinates, lengths and angles."""
        return self.coordinates.decimals, self.lengths.decimals, self.angles.decimals

    def read(self, text: str) -> tuple[list[str], str]:
        """The words of a text without blanks, units and colons, and their kinds.

        ValueError for an unknown word.
        """
        words = text.split()
        kinds = [self._bare.get(word) for word in words]
        if None in kinds:
            raise ValueError(f"{words[kinds.index(None)][:20]!r} is no word of the vocabulary")
        return [word.rstrip(_ENDINGS) for word in words], "".join(filter(None, kinds))

    def rounded_lattice(self, lattice: np.ndarray) -> np.ndarray:
        """Lattice parameters [B, 6] rounded to bins."""
        lattice = np.asarray(lattice).reshape(-1, 6)
        lengths, angles = self.lengths.rounded(lattice[:, :3]), self.angles.rounded(lattice[:, 3:])
        return np.concatenate([lengths, angles], axis=1)

    def rounded_coordinates(self, frac: np.ndarray) -> np.ndarray:
        """Coordinates rounded to bins, in [0, 1)."""
        return np.round(self.coordinates.rounded(frac) % 1, MAX_DECIMALS) % 1

    def require_lattices(self, lattice: np.ndarray) -> None:
        """ValueError naming the first of lattices [B, 6] beyond the bins."""
        for axes, bins, name in (("abc", self.lengths, "length"), ("αβγ", self.angles, "angle")):
            parameters = lattice[:, :3] if name == "length" else lattice[:, 3:]
            for i, axis in np.argwhere(bins.lacks(parameters)).tolist():
                first, last = bins.words[0].strip(), bins.words[-1].strip()
                advice = ": raise max_length" if parameters[i, axis] > bins.high else ""
                raise ValueError(
                    f"crystal {i} cannot be written: {axes[axis]} is "
                    f"{parameters[i, axis]:.{bins.decimals}f}{bins.unit}, and the bins of cell "
                    f"{name}s are {first} to {last}{advice}"
                )

    @cached_property
    def _bare(self) -> dict[str, str]:
        """The kind of each word without its blank."""
        return {word.strip(): kind for word, kind in self.kinds.items()}


def _check_widths(config: WyckoffBins | P1Bins) -> None:
    """ValueError for invalid widths."""
    names = "coordinate_width", "length_width", "angle_width"
    check(config, max_length=POSITIVE, **dict.fromkeys(names, POSITIVE))
    owner = type(config).__name__
    for name in names:
        width = getattr(config, name)
        if Bins(0, 1, width).decimals > MAX_DECIMALS:
            raise ValueError(f"{owner}: {name} has at most {MAX_DECIMALS} decimals, not {width!r}")
    n = 1 / config.coordinate_width
    if n < 2 or abs(n - round(n)) > 1e-6:
        raise ValueError(
            f"{owner}: coordinate_width must divide 1, e.g. 0.001, not {config.coordinate_width!r}"
        )
    if config.max_length < config.length_width:
        raise ValueError(f"{owner}: max_length must be at least length_width")
    if config.angle_width > REDUCED_ANGLES[0]:
        raise ValueError(f"{owner}: angle_width must be at most {REDUCED_ANGLES[0]}")


def _decoded(tokens: Sequence[str], in_lines: Callable[[str], str], text: TextFormat) -> Decoded:
    """The crystals of texts in words, which `in_lines` turns into those of another format."""
    lines: list[str] = []
    faults: list[str | None] = []
    for words in tokens:
        try:
            lines.append(in_lines(words))
            faults.append(None)
        except ValueError as error:
            lines.append("")  # not a crystal
            faults.append(str(error))
    decoded = text.decode(lines)
    reasons = [mine or theirs for mine, theirs in zip(faults, decoded.reasons, strict=True)]
    return Decoded(decoded.crystals, decoded.ok, reasons)


def _with_units(numbers: Sequence[str], n_lengths: int) -> str:
    """Lattice parameters with their units."""
    return " ".join(
        [*(f"{x}Å" for x in numbers[:n_lengths]), *(f"{x}°" for x in numbers[n_lengths:])]
    )


def _n_free(group: int) -> tuple[int, int]:
    """Number of lengths and angles that a space group leaves independent."""
    free = FREE_LATTICE[tables().crystal_system[group - 1]]
    return int(free[:3].sum()), int(free[3:].sum())


def _positions(group: int) -> list[str]:
    """The words of a space group's Wyckoff positions, a first."""
    multiplicity = tables().multiplicity[group - 1]
    n_letters = int(tables().n_letters[group - 1])
    return [f" {multiplicity[index]}{letter(index)}" for index in range(1, n_letters + 1)]
