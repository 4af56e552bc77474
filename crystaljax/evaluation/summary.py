"""Crystals in a few words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from crystaljax.composition import formulas
from crystaljax.crystal import Crystals
from crystaljax.symmetry.tables import tables

N_NAMED = 8
"""Formulas, and space groups, that are named."""


def commonest(crystals: Crystals) -> list[str]:
    """Lines on B crystals: their commonest formulas and space groups."""
    groups = [group_name(group) for group in crystals.to_numpy().space_group.tolist()]
    return [_line("formulas", formulas(crystals)), _line("space groups", groups)]


def group_name(group: int) -> str:
    """Number and symbol of a space group, such as 225 Fm-3m."""
    return f"{group} {tables().symbol[group - 1]}"


def _line(name: str, values: Sequence[str]) -> str:
    counted = Counter(values)
    named = ", ".join(f"{value} ({n})" for value, n in counted.most_common(N_NAMED))
    more = ", ..." if len(counted) > N_NAMED else ""
    return f"{len(counted)} {name}: {named}{more}"
