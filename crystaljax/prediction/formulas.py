"""Formulas that structures are predicted for, those that cannot be asked marked."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crystaljax.composition import formula, parse_formula, symbol
from crystaljax.conditions import Condition
from crystaljax.policies.base import Policy, SamplingConfig


@dataclass(frozen=True)
class Asked:
    """A formula as it was given."""

    name: str
    """The formula as written by the user."""
    formula: str = ""
    """Reduced, cations first; empty if it cannot be read."""
    condition: Condition | None = None
    """The demand on its structures; None if there will be none."""
    reason: str | None = None
    """Reason that there will be none."""
    remark: str = ""
    """A doubt about its structures."""

    @property
    def units(self) -> str:
        """The number of formula units in the primitive cell, for tables; empty if not asked."""
        if self.condition is None:
            return ""
        return str(self.condition.formula_units or "open")

    @staticmethod
    def of(name: str, formula_units: int | None = None) -> Asked:
        """A formula, of which any number of units may be in the primitive cell if none is given."""
        name = name.strip()
        try:
            condition = Condition(formula=name, formula_units=formula_units)
            reduced = formula(parse_formula(name).astype(int))
        except ValueError as error:
            return Asked(name, reason=str(error))
        return Asked(name, reduced, condition)

    def refused(self, reason: str) -> Asked:
        """The formula without structures."""
        return replace(self, condition=None, reason=reason)


def read_formulas(path: str | Path) -> list[Asked]:
    """Formulas of a table: column formula, and formula_units where their number is fixed.

    Rows that cannot be asked are marked. ValueError for a table without the column or rows;
    FileNotFoundError.
    """
    path = Path(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if "formula" not in (reader.fieldnames or ()):
            raise ValueError(f"{path} has no column formula: name it so in the first line")
        rows = list(reader)
    if not rows:
        raise ValueError(f"{path} has no formulas: give one a line")
    return [_of_row(row["formula"] or "", row.get("formula_units") or "") for row in rows]


def _of_row(name: str, units: str) -> Asked:
    if not units.strip():
        return Asked.of(name)
    try:
        return Asked.of(name, int(units))
    except ValueError:
        return Asked(name, reason=f"{units!r} formula units: give a whole number, or none")


def checked(asked: Sequence[Asked], policy: Policy, sampling: SamplingConfig) -> list[Asked]:
    """The formulas, those marked that a policy cannot be asked, and those asked for before.

    Elements that the policy has not seen in training are remarked on.

    ValueError, with the reasons, if there are none, or none is left.
    """
    if not asked:
        raise ValueError("no formulas: give some, such as SrTiO3, or a file of them")
    found: list[Asked] = []
    first: dict[tuple[bytes, int | None], str] = {}
    for one in asked:
        if one.condition is None:
            found.append(one)
            continue
        key = _content(one.condition)
        if key in first:
            found.append(one.refused(f"asked for already, as {first[key]}"))
            continue
        first[key] = one.name
        try:
            policy.check([one.condition], sampling)
            found.append(replace(one, remark=_remark(policy, one.condition)))
        except ValueError as error:
            found.append(one.refused(str(error)))
    if all(one.condition is None for one in found):
        reasons = "; ".join(f"{one.name or 'an empty one'}: {one.reason}" for one in found[:3])
        more = f"; and {len(found) - 3} more" * (len(found) > 3)
        raise ValueError(f"no structure can be predicted for the formulas given: {reasons}{more}")
    return found


def _remark(policy: Policy, condition: Condition) -> str:
    """A sentence on the elements of a formula that no training crystal has; empty if all have some.

    Empty, too, for a policy that does not know the elements of its training crystals.
    """
    seen = np.asarray(getattr(getattr(policy, "metadata", None), "element_counts", None) or 0)
    if not seen.any():
        return ""
    assert condition.content is not None
    new = [symbol(int(z)) for z in np.flatnonzero((condition.content > 0) & (seen == 0))]
    return f"the model saw no crystal with {', '.join(new)}" if new else ""


def _content(condition: Condition) -> tuple[bytes, int | None]:
    """A key of what a condition asks: atoms in the cell, or their ratios if that is open."""
    content = condition.content
    assert content is not None
    if condition.formula_units is not None:
        return (content * condition.formula_units).tobytes(), 0
    return (content // np.gcd.reduce(content)).tobytes(), None
