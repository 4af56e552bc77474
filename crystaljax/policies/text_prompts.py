"""Conditions as prompts: the fields of templates, and which template asks for a condition."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any, NamedTuple

import numpy as np

from crystaljax.composition import element_counts, formula, formulas, parse_formulas
from crystaljax.conditions import Condition, marked
from crystaljax.crystal import Crystals
from crystaljax.policies.text_metadata import ELEMENT, PromptValues, is_infilling
from crystaljax.symmetry.tables import tables
from crystaljax.text.prompts import PromptTemplate

OF_CRYSTALS = ("formula", "space_group", "formula_units")
"""Fields that any crystal has; all others are properties."""


def crystal_fields(
    crystals: Crystals, properties: Mapping[str, np.ndarray] | None = None
) -> list[dict[str, Any]]:
    """Values of prompt fields of each crystal: reduced formula, space group's number, formula
    units in the primitive cell, and those properties that are finite numbers."""
    counts = np.asarray(element_counts(crystals))
    groups = np.asarray(crystals.space_group)
    units = np.gcd.reduce(counts, axis=1) // tables().n_centering[np.maximum(groups, 1) - 1]
    found: list[dict[str, Any]] = [
        {"formula": name, "space_group": int(group), "formula_units": int(n)}
        for name, group, n in zip(formulas(crystals), groups, units, strict=True)
    ]
    for name, column in (properties or {}).items():
        if np.issubdtype(column.dtype, np.number) and name not in OF_CRYSTALS:
            for row in np.flatnonzero(np.isfinite(column)).tolist():
                found[row][name] = float(column[row])
    return found


def condition_fields(condition: Condition) -> dict[str, Any]:
    """Values of prompt fields that a condition gives."""
    found: dict[str, Any] = dict(condition.properties)
    if (content := condition.content) is not None:
        found["formula"] = formula(content)
        if condition.formula_units is not None:
            found["formula_units"] = condition.formula_units * int(np.gcd.reduce(content))
    if (groups := condition.space_groups) is not None and len(groups) == 1:
        found["space_group"] = groups[0]
    return found


def asking(template: PromptTemplate, row: Mapping[str, Any]) -> Condition:
    """The condition that a template asks for with these values of its fields.

    The template has its clauses chosen. ValueError naming fields that have no value.
    """
    names = template.prompt_fields
    if missing := names - row.keys():
        raise ValueError(f"the prompt {template.name!r} needs {_listed(missing)}: give conditions")
    return Condition(
        formula=row["formula"] if names & {"formula", "formula_units"} else None,
        formula_units=row["formula_units"] if "formula_units" in names else None,
        space_group=row["space_group"] if "space_group" in names else None,
        properties={name: row[name] for name in sorted(names - set(OF_CRYSTALS))},
    )


class Request(NamedTuple):
    """Prompt of a condition."""

    template: PromptTemplate
    given: dict[str, Any]
    """Values of its fields that the condition gives."""
    open: tuple[str, ...]
    """Its fields that are drawn from the training data."""


@dataclass(frozen=True)
class CrystalPrompts:
    """Templates of prompts for crystals, and the training data's values of their fields.

    ValueError for a template whose completion is not one {text} with fixed text around it.
    """

    templates: tuple[PromptTemplate, ...]
    values: PromptValues

    def __post_init__(self) -> None:
        if not self.templates:
            raise ValueError("no prompt template asks for a crystal: give one at least")
        for template in self.templates:
            around(template)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that can be asked in prompts."""
        every = (names for t in self.templates for names in (t.prompt_fields, *t.clause_fields))
        return tuple(sorted(set().union(*every)))

    def least(self, row: Mapping[str, Any]) -> Condition:
        """The condition that asks for least of a crystal with these prompt fields.

        ValueError if no template does with them.
        """
        offered = [x for t in self.templates for x in _saying(t, frozenset(), self.fields)]

        def rank(template: PromptTemplate) -> tuple[int, int]:
            return len(template.prompt_fields - row.keys()), len(template.prompt_fields)

        return asking(min(offered, key=rank), row)

    def request(self, condition: Condition, in_prompt: frozenset[str] = frozenset()) -> Request:
        """The template that asks for a condition.

        Formula, properties and the fields `in_prompt` have to be among its own. Of such templates
        those come first whose fields are given or known of training data, then those of which all
        are given, then those that use most of what is given, then those with the fewest others. Of
        clauses all those are said of which all fields are given or needed.

        ValueError for what no template asks, and for fields that are neither given nor known of
        training data.
        """
        given = condition_fields(condition)
        needed = set(condition.properties) | in_prompt | ({"formula"} & given.keys())
        if missing := needed - set(self.fields):
            raise ValueError(
                f"the model cannot be asked for {_listed(missing)}: prompts have"
                f" {_listed(self.fields) or 'no fields'}"
            )
        wanted = needed | given.keys()
        offered = [x for t in self.templates for x in _saying(t, wanted, self.fields)]
        suited = [t for t in offered if needed <= t.prompt_fields]
        if not suited:
            raise ValueError(f"no prompt template asks for {_listed(needed)} together")

        def rank(template: PromptTemplate) -> tuple[bool, bool, int, int]:
            opened = template.prompt_fields - given.keys()
            unknown = not opened <= self.values.columns.keys()
            return unknown, bool(opened), -len(template.prompt_fields & given.keys()), len(opened)

        best = min(suited, key=rank)
        fields = sorted(best.prompt_fields)
        opened = tuple(name for name in fields if name not in given)
        if unknown := set(opened) - self.values.columns.keys():
            raise ValueError(
                f"the prompt {best.name!r} needs {_listed(unknown)}, which the condition does not"
                " give, nor the folder of the model as its training data had it: ask for it"
            )
        return Request(best, {name: given[name] for name in fields if name in given}, opened)

    def drawn(self, condition: Condition, names: Sequence[str], uniform: float) -> dict[str, Any]:
        """Values of some fields by a random number in [0, 1), as often as in the training data.

        Of crystals with the formula and the space groups of the condition where there are such,
        and never of other elements than those allowed, or without those required. ValueError if
        that leaves none.
        """
        if not names:
            return {}
        weight = self._weight(condition, "space_group" in names)
        total = np.cumsum(weight)
        row = min(int(np.searchsorted(total, uniform * total[-1], side="right")), len(total) - 1)
        return {name: self.values.columns[name][row] for name in names}

    def _weight(self, condition: Condition, group_is_drawn: bool) -> np.ndarray:
        """float [K]: how often each set of values is to be drawn."""
        weight = np.asarray(self.values.counts, float)
        if condition.formula is None and "formula" in self.values.columns:
            if condition.elements is not None:
                weight = weight * ~(self._elements & ~marked(condition.elements)).any(axis=1)
            required = marked(condition.required)
            weight = weight * self._elements[:, required].all(axis=1)
        groups = condition.space_groups
        if groups is not None and "space_group" in self.values.columns:
            fits = weight * np.isin(self.values.columns["space_group"], groups)
            if fits.any() or group_is_drawn:
                weight = fits
        if condition.formula is not None and "formula" in self.values.columns:
            name = condition_fields(condition)["formula"]
            same = weight * (np.asarray(self.values.columns["formula"]) == name)
            weight = same if same.any() else weight
        if not weight.any():
            raise ValueError(
                f"no crystal of the training data is as {condition}, from which the prompt could be"
                " drawn: ask for a formula and a space group, or for less"
            )
        return weight

    @cached_property
    def _elements(self) -> np.ndarray:
        """bool [K, 119]: elements of each formula."""
        return parse_formulas(self.values.columns["formula"]) > 0


def _saying(
    template: PromptTemplate, wanted: Collection[str], known: Collection[str]
) -> list[PromptTemplate]:
    """A template with all clauses of wanted fields; if it needs one, with one of known fields."""
    clauses = list(enumerate(template.clause_fields))
    said = [i for i, names in clauses if names <= set(wanted)]
    if len(said) >= template.n_clauses_min:
        return [template.saying(said)]
    return [template.saying([i]) for i, names in clauses if names <= set(known)]


def around(template: PromptTemplate) -> tuple[str, str]:
    """Text before and after what is asked for in completions: a crystal's text, or an element.

    ValueError for a completion that has it not once, or more.
    """
    answer = ELEMENT if is_infilling(template) else "text"
    before, after = "", ""
    fields: list[str] = []
    for literal, name, specification, _ in Formatter().parse(template.completion):
        before, after = (before, after + literal) if fields else (before + literal, after)
        if name is not None:
            fields.append(name + (specification or ""))
    if fields != [answer]:
        raise ValueError(
            f"prompt template {template.name!r}: the completion must have the field {{{answer}}},"
            f" once and no other, and is {template.completion!r}"
        )
    return before, after


def stripped(text: str, template: PromptTemplate) -> str:
    """A completion without what its template puts around the answer."""
    before, after = around(template)
    return text.removeprefix(before).removesuffix(after)


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
