"""Shared parts of the text formats of symmetry-distinct sites.

A format parses each text into a `ReadText`; `decoded` makes crystals of a batch of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from crystaljax.composition import SYMBOLS, atomic_number
from crystaljax.crystal import Crystals, wrapped
from crystaljax.symmetry.orbits import FREE_LATTICE, constrain_lattice, project
from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, letter, tables
from crystaljax.tokenizations.base import Decoded
from crystaljax.tokenizations.wyckoff import WyckoffTokenization

MAX_SITES = 1000
"""Largest number of sites of a crystal; arrays of a batch are as wide as its longest text."""

MAX_LINES = 2 * MAX_SITES
"""Largest number of lines that are parsed; longer texts are endless repetitions."""

MAX_DECIMALS = 9
"""Largest number of decimals; float32, the type of coordinates, has about 7."""

_NUMBER = re.compile(rf"-?[0-9]{{1,6}}(?:\.[0-9]{{1,{MAX_DECIMALS}}})?")
_GROUP = re.compile(r"[0-9]{1,3}")
_AMOUNT = re.compile(r"([A-Z][a-z]?)([1-9][0-9]{0,5})?")


class ReadSite(NamedTuple):
    """A site of a text."""

    wyckoff: int
    """Letter index."""
    coordinates: Sequence[float]
    """x, y, z; dependent coordinates are zero, or as in the text."""
    species: int


class ReadText(NamedTuple):
    """A parsed text; dependent coordinates and parameters are zero, or as in the text."""

    space_group: int
    lattice: Sequence[float]
    """a, b, c in Å, α, β, γ in degrees."""
    sites: list[ReadSite]


class Rounding(NamedTuple):
    """Size of the last written decimal of each kind of number."""

    coordinate: float
    length: float
    angle: float


class Position(NamedTuple):
    """A Wyckoff position of a space group."""

    letter: int
    """Letter index."""
    multiplicity: int
    free: tuple[int, ...]
    """Axes of its independent coordinates."""

    @property
    def name(self) -> str:
        """Multiplicity and letter, as in "4f"."""
        return f"{self.multiplicity}{letter(self.letter)}"


@cache
def positions(group: int) -> Mapping[str, Position]:
    """The Wyckoff positions of a space group by their names, the most special first."""
    found = {}
    for index in range(1, int(tables().n_letters[group - 1]) + 1):
        free = np.flatnonzero(tables().free[group - 1, index]).tolist()
        position = Position(index, int(tables().multiplicity[group - 1, index]), tuple(free))
        found[position.name] = position
    return found


@cache
def free_parameters(group: int) -> tuple[int, ...]:
    """Mask of the independent ones of a, b, c, α, β, γ in a space group."""
    return tuple(np.flatnonzero(FREE_LATTICE[tables().crystal_system[group - 1]]).tolist())


@cache
def fixed_angles(group: int) -> Mapping[int, float]:
    """Angles in degrees that a space group fixes, by their index in the lattice (3, 4, 5)."""
    whole = np.asarray(constrain_lattice(np.array(group), np.zeros(6, np.float32))).tolist()
    return {axis: whole[axis] for axis in range(3, 6) if axis not in free_parameters(group)}


def writable(crystals: Crystals) -> Crystals:
    """The batch on the host; ValueError naming the first crystal that cannot be written."""
    batch = crystals.to_numpy()
    group, n_sites = batch.space_group, np.asarray(batch.n_sites)
    known = (group >= 1) & (group <= N_GROUPS)
    row = np.where(known, group, 1)[:, None] - 1
    in_range = (batch.wyckoff >= 0) & (batch.wyckoff < N_LETTERS)
    has_letter = tables().multiplicity[row, np.where(in_range, batch.wyckoff, 0)] > 0
    is_element = (batch.species >= 1) & (batch.species <= len(SYMBOLS))
    is_site = has_letter & in_range & is_element
    faults = {
        "it has no space group or no site": ~known | (n_sites == 0),
        "a site has no Wyckoff position of its space group, or no element": (
            ~is_site & (np.arange(batch.n_slots) < n_sites[:, None])
        ).any(axis=1),
        f"it has more than {MAX_SITES} sites": n_sites > MAX_SITES,
    }
    for reason, at_fault in faults.items():
        for i in np.flatnonzero(at_fault):
            raise ValueError(f"crystal {i} cannot be written: {reason}")
    return batch


def projected(crystals: Crystals) -> Crystals:
    """The same crystals with all coordinates projected onto their Wyckoff positions."""
    n = len(crystals)
    padded = crystals.padded(_power_of_two(n))
    group = np.maximum(padded.space_group, 1)[:, None]
    frac = np.asarray(project(group, padded.wyckoff, padded.frac))[:n]
    return replace(crystals, frac=frac)


def sites_of(batch: Crystals, i: int) -> Iterator[tuple[str, Position, list[float]]]:
    """Element, position and coordinates of each site of crystal i."""
    names = list(positions(int(batch.space_group[i])).values())
    n = int(batch.n_sites[i])
    for index, species, frac in zip(
        batch.wyckoff[i, :n].tolist(),
        batch.species[i, :n].tolist(),
        batch.frac[i, :n].tolist(),
        strict=True,
    ):
        yield SYMBOLS[species - 1], names[index - 1], frac


def check_decimals(*decimals: int) -> None:
    """ValueError for more decimals than can be decoded."""
    for n in decimals:
        if not 0 <= n <= MAX_DECIMALS:
            raise ValueError(f"{n} decimals: choose 0 to {MAX_DECIMALS}")


def coordinate(x: float, decimals: int) -> str:
    """A coordinate in [0, 1), also when rounded."""
    return f"{round(x % 1, decimals) % 1:.{decimals}f}"


def decoded(
    texts: Sequence[str],
    read: Callable[[str], ReadText],
    rounding: Rounding | None = None,
) -> Decoded:
    """The crystals of B texts.

    `read` parses one text and raises ValueError for an invalid one. Sites are sorted by letter,
    then x, y, z. With `rounding`, a text whose dependent coordinates or lattice parameters
    contradict the independent ones is not a crystal.
    """
    found = [_read_or_reason(read, text) for text in texts]
    good = [(i, x) for i, x in enumerate(found) if isinstance(x, ReadText)]
    counts = [len(x.sites) for _, x in good]
    crystals = _empty(len(texts), max(counts, default=1))
    if good:
        rows = np.array([i for i, _ in good])
        crystals.space_group[rows] = [x.space_group for _, x in good]
        crystals.lattice[rows] = [x.lattice for _, x in good]
        row = np.repeat(rows, counts)
        slot = np.concatenate([np.arange(n) for n in counts])
        sites = [site for _, x in good for site in x.sites]
        crystals.wyckoff[row, slot] = [site.wyckoff for site in sites]
        frac = np.array([site.coordinates for site in sites], np.float32)
        crystals.frac[row, slot] = wrapped(frac)
        crystals.species[row, slot] = [site.species for site in sites]
    whole = projected(crystals)
    if rounding is not None:
        for i, reason in _contradictions(crystals, whole, rounding):
            if isinstance(found[i], ReadText):
                found[i] = reason
    # Decoding of the Wyckoff sequence checks what single lines do not show.
    sequences = WyckoffTokenization(crystals.n_slots)
    result = sequences.decode(sequences.encode(_in_order(whole)))
    ok, reasons = result.ok, list(result.reasons)
    for i, x in enumerate(found):
        if isinstance(x, str):
            ok[i], reasons[i] = False, x
    kept = _masked(result.crystals, ok)[: len(texts)]
    return Decoded(kept, ok[: len(texts)], reasons[: len(texts)])


def _read_or_reason(read: Callable[[str], ReadText], text: str) -> ReadText | str:
    """A parsed text, or the reason that it is invalid."""
    if text.count("\n") > MAX_LINES:
        return f"more than {MAX_LINES} lines"
    try:
        return read(text)
    except ValueError as error:
        return str(error)


def _empty(n: int, n_sites: int) -> Crystals:
    """Zeros, with powers of two as numbers of rows and slots, so that few shapes are compiled."""
    rows, slots = _power_of_two(n), _power_of_two(n_sites)
    return Crystals(
        np.zeros(rows, np.int32),
        np.zeros((rows, slots), np.int32),
        np.zeros((rows, slots), np.int32),
        np.zeros((rows, slots, 3), np.float32),
        np.zeros((rows, 6), np.float32),
    )


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _masked(crystals: Crystals, ok: np.ndarray) -> Crystals:
    """The crystals with zeros where not ok."""
    return Crystals(
        np.where(ok, crystals.space_group, 0),
        np.where(ok[:, None], crystals.wyckoff, 0),
        np.where(ok[:, None], crystals.species, 0),
        np.where(ok[:, None, None], crystals.frac, 0),
        np.where(ok[:, None], crystals.lattice, 0),
    )


def _contradictions(
    given: Crystals, whole: Crystals, rounding: Rounding
) -> Iterator[tuple[int, str]]:
    """Reasons for rows whose dependent values contradict their independent ones.

    A dependent coordinate is a sum of up to two, so it may be off by 1.5 units of the last decimal.
    """
    moved = np.asarray(given.frac - whole.frac, float)
    off = np.abs(moved - np.round(moved)) > 2 * rounding.coordinate + 1e-6
    for row in np.flatnonzero(off.any(axis=(1, 2))):
        yield int(row), "coordinates that are not on their Wyckoff positions"
    lattice = np.asarray(constrain_lattice(np.maximum(given.space_group, 1), given.lattice))
    unit = np.repeat([rounding.length, rounding.angle], 3)
    strayed = np.abs(lattice - given.lattice) > unit + 1e-4
    for row in np.flatnonzero(strayed.any(axis=1) & (given.space_group > 0)):
        group = int(given.space_group[row])
        yield int(row), f"a cell that does not have the metric of space group {group}"


def _in_order(crystals: Crystals) -> Crystals:
    """The same crystals with sites sorted by letter, then x, y, z (a stable sort)."""
    letters = np.where(crystals.wyckoff == 0, N_LETTERS, crystals.wyckoff)
    order = np.lexsort((*np.moveaxis(crystals.frac, -1, 0)[::-1], letters))
    return Crystals(
        crystals.space_group,
        np.take_along_axis(crystals.wyckoff, order, 1),
        np.take_along_axis(crystals.species, order, 1),
        np.take_along_axis(crystals.frac, order[..., None], 1),
        crystals.lattice,
    )


def numbers(words: Sequence[str], n: int, of: str) -> list[float]:
    """The numbers that n words stand for; ValueError for another number of words, or no number."""
    if len(words) != n or not all(map(_NUMBER.fullmatch, words)):
        raise ValueError(f"{of}: {n} number{'s' * (n != 1)} expected, not {shown(words)}")
    return list(map(float, words))


def space_group(word: str) -> int:
    """The space group that a word stands for; ValueError if it is none."""
    if not _GROUP.fullmatch(word) or not 1 <= int(word) <= N_GROUPS:
        raise ValueError(f"{word[:40]!r} is no space group: one of 1-{N_GROUPS}")
    return int(word)


def placed(values: Sequence[float], places: Sequence[int], n: int) -> list[float]:
    """n numbers: the values at the given indices, zeros elsewhere."""
    found = [0.0] * n
    for place, value in zip(places, values, strict=True):
        found[place] = value
    return found


def position(word: str, group: int) -> Position:
    """The position of a name such as "4f"; ValueError if the space group has none."""
    found = positions(group).get(word.lstrip("0"))
    if found is None:
        raise ValueError(f"{word[:20]!r} is no Wyckoff position of space group {group}")
    return found


def amounts(formula: str) -> dict[int, int]:
    """Numbers of atoms by atomic number, of a formula without parentheses; ValueError otherwise."""
    found: dict[int, int] = {}
    end = 0
    for match in _AMOUNT.finditer(formula):
        if match.start() != end:
            break
        end = match.end()
        species = atomic_number(match[1])
        found[species] = found.get(species, 0) + int(match[2] or 1)
    if end != len(formula) or not found:
        raise ValueError(f"{formula[:40]!r} is no formula")
    return found


def contents(group: int, found: Iterable[ReadSite]) -> dict[int, int]:
    """Atoms in the conventional cell by atomic number."""
    names = list(positions(group).values())
    atoms: dict[int, int] = {}
    for site in found:
        multiplicity = names[site.wyckoff - 1].multiplicity
        atoms[site.species] = atoms.get(site.species, 0) + multiplicity
    return atoms


def shown(words: Sequence[str]) -> str:
    """A line, shortened for a message."""
    return repr(" ".join(words)[:40])
