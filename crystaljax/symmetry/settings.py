"""Space-group settings: operations of a space group from its names in a file.

A space-group type (a number from 1 to 230) is described in many settings: other axes, another
cell, another origin. Hall symbols and listed operations determine the setting. Hermann-Mauguin
symbols leave open the origin, the axes of R lattices and, in their short monoclinic forms, the
unique axis. The number alone stands for the standard axes. The 530 settings of ITA are those of
spglib; gemmi adds unusual centrings.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import zip_longest
from typing import NamedTuple

import gemmi
import numpy as np
import spglib

from crystaljax.symmetry.tables import check_group

EXACT_METRIC = 3e-4
"""Misfit of a lattice to operations that rounded cell parameters explain (see `misfit`)."""

MAX_MISFIT = 0.01
"""Largest misfit of a lattice to its operations: lengths 0.5 % off, or angles 0.6 degrees."""

_DENOMINATOR = gemmi.Op.DEN
"""Translations are exact in units of 1/24 of a lattice vector."""

_MAX_OPERATIONS = 4 * 192
_STANDARD_CODES = ("", "b", "b1", "h", "r", "1", "2")
"""Codes of the settings with standard axes."""

_SUFFIXES = (re.compile(r"(.+?)[:(]([-a-z0-9]+)\)*"), re.compile(r"(.+?)(s|z|hr?|r|o[12])"))
_CODE_OF_SUFFIX = {
    **{"s": "1", "z": "2"},  # ICSD: origin at the high site symmetry, or at the centre
    **{"o1": "1", "o2": "2", "hr": "h", "hexagonal": "h", "rhombohedral": "r"},
}


class Operations(NamedTuple):
    """A space group in one setting, as operations modulo the lattice; the identity is the first."""

    rotation: np.ndarray
    """float64 [n, 3, 3]: act on columns of fractional coordinates."""
    translation: np.ndarray
    """float64 [n, 3] in [0, 1)."""
    key: bytes
    """The sorted operations: equal for equal settings."""


class Setting(NamedTuple):
    """One of the tabulated settings."""

    number: int
    code: str
    """ITA coordinate system code without "abc": "b1", "cab", "2", "2cab", "h"; "" for standard."""
    hall: str
    key: bytes


class Names(NamedTuple):
    """Names and numbers of a space group in a file (not its operations)."""

    hall: str | None = None
    symbols: tuple[str, ...] = ()
    """Hermann-Mauguin symbols, each in any spelling."""
    number: int | None = None
    code: str | None = None
    """ITA coordinate system code."""

    def __str__(self) -> str:
        said = [repr(symbol) for symbol in self.symbols]
        said += [f"Hall {self.hall!r}"] if self.hall is not None else []
        said += [f"number {self.number}"] if self.number is not None else []
        said += [f"coordinate system code {self.code!r}"] if self.code is not None else []
        return ", ".join(said)


@lru_cache(maxsize=1024)
def parse_operations(triplets: tuple[str, ...]) -> Operations:
    """Operations written like 'x+1/2, -y, z'; the identity is added if it is not listed.

    ValueError if one cannot be read, is no symmetry of any lattice, or if they form no group.
    """
    try:
        parsed = [gemmi.Op(triplet) for triplet in triplets]
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"a symmetry operation of the CIF cannot be read: {error}") from None
    operations = _operations(parsed, triplets)
    _check_group(operations)
    return operations


@lru_cache(maxsize=1024)
def from_hall(symbol: str) -> Operations:
    """Operations of a Hall symbol, tabulated or not; ValueError if it cannot be read."""
    try:
        return _operations(list(gemmi.symops_from_hall(symbol)), ())
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"the Hall symbol {symbol!r} cannot be read: {error}") from None


def misfit(operations: Operations, matrix: np.ndarray) -> float:
    """Distortion of a lattice by the operations: the largest change of a metric-tensor element.

    In units of the product of the two vectors' lengths (rows of `matrix`), so that it is twice a
    relative error of lengths, or an error of an angle in radians.
    """
    if len(operations.rotation) == 1:
        return 0.0
    metric = matrix @ matrix.T
    lengths = np.sqrt(np.diagonal(metric))
    moved = np.swapaxes(operations.rotation, 1, 2) @ metric @ operations.rotation
    return float((np.abs(moved - metric) / np.outer(lengths, lengths)).max())


@lru_cache(maxsize=1024)
def settings_of(names: Names) -> tuple[Setting, ...]:
    """The settings that agree with the names: one if they determine the setting, never none.

    The Hall symbol is trusted most, then Hermann-Mauguin symbols with their information on the
    setting, then the number. ValueError for names that contradict one another, and if the most
    trusted name is unknown.
    """
    pool = list(_tabulated()) if names.hall is None else _of_hall(names.hall)
    for symbol in names.symbols:
        exact = _of_symbol(symbol)
        if not exact and names.hall is None:
            raise ValueError(f"the space group {symbol!r} is unknown")
        numbers: set[int] = set()
        if names.hall is not None or names.code is not None:
            # The setting is known, so the short symbol may be that of the space-group type.
            own = pool[:1] and pool[0].key not in _numbers()  # a setting that no symbol determines
            numbers = {s.number for s in exact if own or _is_of_type(symbol, s)}
        if exact:
            pool = [s for s in pool if s in exact or s.number in numbers]
    if names.number is not None:
        pool = [setting for setting in pool if setting.number == names.number]
    if names.code is not None:
        pool = _with_code(pool, names.code)
    if not pool:
        raise ValueError(f"the names of the space group contradict one another: {names}")
    return tuple({setting.key: setting for setting in pool[::-1]}.values())[::-1]


def group_number(text: str) -> int:
    """Number of a space group that is named by it or by its Hermann-Mauguin symbol, such as Fm-3m.

    ValueError for another text.
    """
    if re.fullmatch(r"-?\d+(\.0*)?", text):  # 225.0, as in a column with empty cells by pandas
        number = int(float(text))
        check_group(number)
        return number
    try:
        return settings_of(Names(symbols=(text,)))[0].number
    except ValueError:
        raise ValueError(
            f"{text!r} is no space group: give its number, or its symbol as in Fm-3m"
        ) from None


def choose(names: Names, matrix: np.ndarray) -> tuple[Setting, ...]:
    """The settings of the names that a lattice [3, 3] (Å) fits best, () if it fits none.

    If the axes remain open, a number alone stands for the standard ones, and the unique axis of a
    monoclinic symbol is b. ValueError as in `settings_of`.
    """
    settings = settings_of(names)
    errors = [misfit(from_hall(setting.hall), matrix) for setting in settings]
    for limit in (EXACT_METRIC, MAX_MISFIT):
        fitting = [s for s, error in zip(settings, errors, strict=True) if error <= limit]
        if fitting:
            break
    if names.hall is None and names.code is None and not names.symbols:
        usual = [setting for setting in fitting if setting.code in _STANDARD_CODES]
    else:
        usual = [s for s in fitting if 3 <= s.number <= 15 and s.code.lstrip("-").startswith("b")]
    return tuple(usual or fitting)


def number_of(operations: Operations) -> int | None:
    """Number of the space-group type of operations in any setting; None if it is not found."""
    return _numbers().get(operations.key) or _number_by_search(operations)


def _number_by_search(operations: Operations) -> int | None:
    try:
        with _quiet_spglib():
            found = spglib.get_spacegroup_type_from_symmetry(
                operations.rotation.astype(np.int32), operations.translation
            )
    except spglib.SpglibError:
        return None
    return found.number if found else None


def _operations(parsed: Sequence[gemmi.Op], triplets: Sequence[str]) -> Operations:
    """Distinct operations modulo the lattice; ValueError if one is no symmetry of any lattice."""
    rotation = np.array([np.eye(3, dtype=int) * _DENOMINATOR, *(op.rot for op in parsed)])
    translation = np.array([[0, 0, 0], *(op.tran for op in parsed)]) % _DENOMINATOR
    whole = (rotation % _DENOMINATOR == 0).all((1, 2))
    rotation = np.where(whole[:, None, None], rotation // _DENOMINATOR, 0)
    proper = np.abs(np.round(np.linalg.det(rotation))) == 1
    bad = np.flatnonzero(~proper | (np.abs(rotation) > 9).any((1, 2)))
    if bad.size:
        raise ValueError(f"{triplets[bad[0] - 1]!r} is no symmetry operation of a lattice")
    flat = np.concatenate([rotation.reshape(-1, 9), translation], axis=1).astype(np.int8)
    first = list({row.tobytes(): i for i, row in reversed(list(enumerate(flat)))}.items())[::-1]
    if len(first) > _MAX_OPERATIONS:
        raise ValueError(f"{len(first)} symmetry operations are more than a space group has")
    chosen = [i for _, i in first]
    rotation, translation = rotation[chosen], translation[chosen]
    key = b"".join(sorted(code for code, _ in first))
    return Operations(rotation.astype(float), translation / _DENOMINATOR, key)


def _check_group(operations: Operations) -> None:
    """ValueError unless the product of any two operations is among them, modulo the lattice."""
    rotation = operations.rotation.astype(int)
    translation = np.rint(operations.translation * _DENOMINATOR).astype(int)
    product = (rotation[:, None] @ rotation).reshape(-1, 9)
    moved = (rotation @ translation.T).swapaxes(1, 2) + translation[:, None]
    weights = np.random.default_rng(0).integers(2**62, size=12)  # a hash: one number for each
    codes = np.concatenate([product, moved.reshape(-1, 3) % _DENOMINATOR], axis=1) @ weights
    known = np.concatenate([rotation.reshape(-1, 9), translation], axis=1) @ weights
    if not np.isin(codes, known).all():
        raise ValueError("the symmetry operations form no group: their products are not all listed")


@cache
def _kinds() -> tuple[spglib.SpaceGroupType, ...]:
    """spglib's descriptions of the 530 settings of ITA."""
    with _quiet_spglib():
        kinds = [spglib.get_spacegroup_type(index) for index in range(1, 531)]
    return tuple(kind for kind in kinds if kind is not None)


@contextmanager
def _quiet_spglib() -> Iterator[None]:
    """Silence spglib's warning at every call about future exceptions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@cache
def _tabulated() -> tuple[Setting, ...]:
    """The settings of ITA, then those that only gemmi knows."""
    found = [
        Setting(kind.number, kind.choice.lower(), kind.hall_symbol, from_hall(kind.hall_symbol).key)
        for kind in _kinds()
    ]
    known = {setting.key for setting in found}
    extra = (group for group in gemmi.spacegroup_table() if from_hall(group.hall).key not in known)
    found += (Setting(g.number, _own_code(g), g.hall, from_hall(g.hall).key) for g in extra)
    return tuple(found)


def _own_code(group: gemmi.SpaceGroup) -> str:
    """A code for a setting that is not tabulated in ITA; it matches no code in files."""
    return f"gemmi {group.xhm()}"


@cache
def _symbols() -> dict[str, set[Setting]]:
    """Settings by their Hermann-Mauguin symbols: short and full ones, in the usual variants."""
    table: dict[str, set[Setting]] = {}
    gemmis: dict[bytes, list[str]] = {}
    for group in gemmi.spacegroup_table():
        gemmis.setdefault(from_hall(group.hall).key, []).append(group.hm)
    for setting, kind in zip_longest(_tabulated(), _kinds()):
        symbols = list(gemmis.get(setting.key, ()))
        if kind is not None:
            own = kind.international.split("=")
            symbols += [kind.international_full, *own[1 if len(own) > 1 else 0 :]]
        for symbol in symbols:
            for variant in _variants(symbol, symbols, setting.number):
                table.setdefault(_plain(variant), set()).add(setting)
    return table


def _variants(symbol: str, others: list[str], number: int) -> Iterator[str]:
    """The symbol and other ways to write it."""
    yield symbol
    parts = symbol.split()
    if 3 <= number <= 15:  # without the axes of no symmetry: P 1 21/c 1 is P 21/c
        yield " ".join(part for part in parts if part != "1")
    if number >= 200:  # before 1935 and after: F m 3 m
        yield symbol.replace("-3", "3")
    if 123 <= number <= 142 and "/" in parts[1]:  # P 4/m 21/b m is P 4/m 21/b 2/m
        yield " ".join([*parts[:2], *(p if "/" in p else f"2/{p}" for p in parts[2:])])
    if any(part.endswith("/e") for part in parts):  # C 2/m 2/m 2/e was C 2/m 2/m 2/a
        for other in others:
            planes = other.split()
            if len(planes) == len(parts) and "/" not in other:
                pairs = zip(parts, planes, strict=True)
                yield " ".join(part.replace("/e", f"/{plane}") for part, plane in pairs)


@cache
def _type_symbols() -> dict[str, int]:
    """The numbers of the short symbols of space-group types."""
    standard = [kind for kind in _kinds() if kind.choice.lower() in _STANDARD_CODES]
    return {_plain(kind.international_short): kind.number for kind in standard}


def _is_of_type(symbol: str, setting: Setting) -> bool:
    return _type_symbols().get(_plain(symbol)) == setting.number


@lru_cache(maxsize=1024)
def _of_symbol(symbol: str) -> set[Setting]:
    """The settings of a Hermann-Mauguin symbol, with or without a suffix for the setting."""
    text = _plain(symbol)
    screws = re.sub(r"([2346])\(([1-5])\)", r"\1\2", text)  # P 2(1)/c
    if screws in _symbols():
        return _symbols()[screws]
    for suffix in _SUFFIXES:
        for match in filter(None, map(suffix.fullmatch, (text, screws))):
            code = _CODE_OF_SUFFIX.get(match[2], match[2])
            found = _with_code(list(_symbols().get(match[1], ())), code)
            if found:
                return set(found)
    return set()


def _plain(symbol: str) -> str:
    """A symbol in small letters, without spaces and marks of subscripts; suffixes like ":2"."""
    text = re.sub(r"<[^>]*>|[\s_~^]", "", symbol.replace("\N{MINUS SIGN}", "-")).lower()
    text = re.sub(r"[:(]*origin(?:choice)?[:=]?([12])", r":\1", text)
    return re.sub(r"[:(]*(hexagonal|rhombohedral)(?:axes|setting)?", r":\1", text)


def _with_code(settings: list[Setting], code: str) -> list[Setting]:
    """The settings with a coordinate system code, given in full or for the origin alone."""
    code = re.sub(r"^([12]?)abc$", r"\1", code.strip().lower())
    codes = (code, code[:-1]) if code[-1:] == "1" and len(code) > 1 else (code,)  # b1 or b
    exact = [setting for setting in settings if setting.code in codes]
    return exact or [s for s in settings if code in ("1", "2") and s.code.startswith(code)]


@cache
def _numbers() -> dict[bytes, int]:
    return {setting.key: setting.number for setting in _tabulated()}


def _of_hall(hall: str) -> list[Setting]:
    """The settings of a Hall symbol: tabulated ones or, for another cell or origin, its own."""
    key = from_hall(hall).key
    settings = [setting for setting in _tabulated() if setting.key == key]
    if settings:
        return settings
    number = number_of(from_hall(hall))
    if number is None:
        raise ValueError(f"the Hall symbol {hall!r} stands for no space group")
    return [Setting(number, "", hall, key)]
