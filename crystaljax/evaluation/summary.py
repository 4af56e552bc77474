"""Short summaries of crystals, for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from crystaljax.composition import formulas
from crystaljax.crystal import Crystals
from crystaljax.symmetry.tables import tables

N_NAMED = 8
"""Number of formulas, and of space groups, that are listed."""


def commonest(crystals: Crystals) -> list[str]:
    """Two lines: the most common formulas and space groups of B crystals."""
    groups = [group_name(group) for group in crystals.to_numpy().space_group.tolist()]
    return [_line("formula", formulas(crystals)), _line("space group", groups)]


def group_name(group: int) -> str:
    """Number and symbol of a space group, such as 225 Fm-3m."""
    return f"{group} {tables().symbol[group - 1]}"


def _line(name: str, values: Sequence[str]) -> str:
    counted = Counter(values)
    named = ", ".join(f"{value} ({n})" for value, n in counted.most_common(N_NAMED))
    more = ", ..." if len(counted) > N_NAMED else ""
    plural = "" if len(counted) == 1 else "s"
    return f"{len(counted)} {name}{plural}: {named}{more}"
