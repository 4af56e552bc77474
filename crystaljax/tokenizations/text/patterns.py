"""Building blocks (regular expressions) of the patterns of text formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from crystaljax.composition import SYMBOLS, atomic_number
from crystaljax.symmetry.tables import N_GROUPS, tables
from crystaljax.text.expressions import one_of
from crystaljax.tokenizations.text.sites import coordinate, fixed_angles, positions


def groups_and_elements(
    space_groups: Iterable[int] | None, elements: Iterable[str] | None
) -> tuple[list[int], str]:
    """The space groups of a pattern, all by default, and the expression for one of its elements.

    ValueError for an unknown space group or element, and for an empty list.
    """
    groups = sorted(set(range(1, N_GROUPS + 1) if space_groups is None else space_groups))
    symbols = sorted(set(SYMBOLS if elements is None else elements))
    if not groups or not symbols:
        raise ValueError("a pattern needs a space group and an element")
    for group in groups:
        if not 1 <= group <= N_GROUPS:
            raise ValueError(f"{group} is no space group: one of 1-{N_GROUPS}")
    for name in symbols:
        atomic_number(name)
    return groups, one_of(symbols)


def by_tail(groups: Iterable[int], head: Callable[[int], str], tail: Callable[[int], str]) -> str:
    """An expression for the texts of some groups, each a head and a tail.

    Groups with the same tail share it, which keeps the expression small.
    """
    heads: dict[str, list[str]] = {}
    for group in groups:
        heads.setdefault(tail(group), []).append(head(group))
    return "|".join(f"(?:{'|'.join(names)}){rest}" for rest, names in heads.items())


def length(decimals: int) -> str:
    """Expression for a length in Å, 1 to 1000."""
    return rf"[1-9][0-9]{{0,2}}{fraction(decimals)}"


def angle(decimals: int) -> str:
    """Expression for an angle in degrees."""
    return rf"1?[0-9]{{2}}{fraction(decimals)}"


def any_coordinate(decimals: int) -> str:
    """Expression for a coordinate in [0, 1)."""
    return f"0{fraction(decimals)}"


def fraction(decimals: int) -> str:
    """Expression for the decimal point and `decimals` digits; empty for 0."""
    return rf"\.[0-9]{{{decimals}}}" if decimals else ""


def sites(group: int, decimals: int) -> dict[str, list[str]]:
    """Expressions for x, y, z, each with the positions of a space group that share them.

    Constant coordinates are literal; the others may be any number.
    """
    anything = any_coordinate(decimals)
    found: dict[str, list[str]] = {}
    for name, place in positions(group).items():
        operation = tables().op_start[group - 1, place.letter]
        constants = tables().translation[operation].tolist()
        varying = tables().varying[group - 1, place.letter].tolist()
        numbers = [
            anything if varies else re.escape(coordinate(x, decimals))
            for x, varies in zip(constants, varying, strict=True)
        ]
        found.setdefault(" ".join(numbers), []).append(name)
    return found


def angles(group: int, decimals: int) -> list[str]:
    """Expressions for α, β, γ of a space group; fixed angles are literal."""
    fixed = fixed_angles(group)
    return [
        re.escape(f"{fixed[axis]:.{decimals}f}") if axis in fixed else angle(decimals)
        for axis in range(3, 6)
    ]
