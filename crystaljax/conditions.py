"""Conditions on crystals."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from crystaljax.composition import N_SPECIES, atomic_number, element_counts, parse_formula, symbol
from crystaljax.crystal import Crystals
from crystaljax.symmetry.tables import N_GROUPS, check_group, letter_index, tables


@dataclass(frozen=True)
class Condition:
    """Condition on one crystal; fields that are not given are free.

    ValueError for a condition that nothing can meet: unknown elements or positions, elements that
    are required but not allowed, numbers that are no space group.
    """

    formula: str | None = None
    """Composition, such as SrTiO3, in whole numbers of atoms."""
    formula_units: int | None = None
    """Number of formula units (as written) in the primitive cell. Not given: any."""
    elements: tuple[str, ...] | None = None
    """Elements that may occur. Not given: all."""
    required: tuple[str, ...] = ()
    """Elements that must occur."""
    space_group: int | tuple[int, ...] | None = None
    """Space group, or several, of which the crystal may have any."""
    template: tuple[str, ...] | None = None
    """Wyckoff letters of all sites in alphabetical order, such as a a b."""
    properties: Mapping[str, float] = field(default_factory=dict)
    """Values of named properties, such as band_gap (eV). It is not checked whether samples have
    them."""

    def __post_init__(self) -> None:
        self._check_formula()
        self._check_elements()
        self._check_space_groups()
        self._check_template()
        for name, value in self.properties.items():
            if not math.isfinite(value):
                raise ValueError(f"the property {name} is asked to be {value}: give a number")

    def _check_formula(self) -> None:
        units = self.formula_units
        if units is not None and units < 1:
            raise ValueError(f"{units} formula units: give at least 1, or leave them out")
        if self.formula is None:
            if units is not None:
                raise ValueError(f"{units} formula units, and no formula: give one")
            return
        content = parse_formula(self.formula)
        if (content % 1 != 0).any():
            raise ValueError(f"{self.formula}: give whole numbers of atoms")
        if self.elements is not None:
            refuse(content > 0, marked(self.elements), "the formula has", "those allowed")
        refuse(marked(self.required), content > 0, "required is", "those of the formula")

    def _check_elements(self) -> None:
        if self.elements == ():
            raise ValueError("no element is allowed: name some, or leave the elements out")
        allowed = np.ones(N_SPECIES, bool) if self.elements is None else marked(self.elements)
        refuse(marked(self.required), allowed, "required is", "those allowed")

    def _check_space_groups(self) -> None:
        if self.space_groups == ():
            raise ValueError("no space group is allowed: name some, or leave them out")
        for group in self.space_groups or ():
            check_group(group)

    def _check_template(self) -> None:
        if self.template is None:
            return
        letters = self.letters
        if not len(letters):
            raise ValueError("a template of no sites: name their letters, or leave it out")
        if (np.diff(letters) < 0).any():
            raise ValueError(f"template {' '.join(self.template)}: sort its letters")
        n_required = int(marked(self.required).sum())
        if n_required > len(letters):
            raise ValueError(
                f"{n_required} elements are required on {len(letters)} sites: require fewer"
            )

    def __hash__(self) -> int:
        values = [getattr(self, f.name) for f in fields(self) if f.name != "properties"]
        return hash((*values, tuple(sorted(self.properties.items()))))

    @property
    def asked(self) -> frozenset[str]:
        """Names of the fields that ask for something; empty of an unconditional one."""
        free: dict[str, Any] = {"required": (), "properties": {}}
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) != free.get(f.name))

    @property
    def space_groups(self) -> tuple[int, ...] | None:
        """The space groups that it may have; None if any."""
        group = self.space_group
        return group if group is None or isinstance(group, tuple) else (int(group),)

    @property
    def content(self) -> np.ndarray | None:
        """int [119]: atoms of each element in the formula as written."""
        return None if self.formula is None else parse_formula(self.formula).astype(int)

    @property
    def letters(self) -> np.ndarray:
        """int [n]: indices (a = 1) of the template's letters; ValueError for one that is none."""
        return np.array([letter_index(x) for x in self.template or ()], np.int32)


def chemical_system(text: str) -> tuple[str, ...]:
    """The elements of a chemical system such as Li-Fe-O (or Li,Fe,O): crystals have exactly these.

    Give them as `Condition.elements` and as `Condition.required`. ValueError for another text.
    """
    names = tuple(re.split(r"[-,\s]+", text))
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(f"{text!r} is no chemical system: write each element once, as in Li-Fe-O")
    marked(names)
    return names


def element_names(words: Iterable[str]) -> tuple[str, ...]:
    """Names in a list whose words may be lists themselves, as in Fe O, Fe,O or Fe-O."""
    return tuple(name for word in words for name in re.split(r"[-,\s]+", word) if name)


def chosen(conditions: Sequence[Condition], n: int, seed: int) -> list[Condition]:
    """n of the conditions in a random order; when all were taken, it starts again."""
    order = np.random.default_rng(seed).permutation(len(conditions))
    return [conditions[i] for i in np.resize(order, n).tolist()]


def unmet(crystals: Crystals, conditions: Sequence[Condition]) -> list[str | None]:
    """Part of its condition [B] that each of B crystals does not meet; None if it meets all.

    Properties are not checked, as that needs a model of them.
    """
    batch = crystals.to_numpy()
    found: list[str | None] = [None] * len(batch)
    rows_of: dict[Condition, list[int]] = {}
    for row, condition in enumerate(conditions):
        rows_of.setdefault(condition, []).append(row)
    counts = element_counts(batch)
    for condition, rows in rows_of.items():
        at = np.array(rows)
        for reason, wrong in _violations(batch[at], counts[at], condition):
            for row in at[wrong].tolist():
                found[row] = found[row] or reason
    return found


def _violations(
    crystals: Crystals, counts: np.ndarray, condition: Condition
) -> list[tuple[str, np.ndarray]]:
    """Reasons, and which of B crystals they are true of (bool [B]); `counts` int [B, 119]."""
    group, reasons = np.asarray(crystals.space_group), []
    groups, content = condition.space_groups, condition.content
    if groups is not None:
        reasons.append(("another space group than asked for", ~np.isin(group, groups)))
    if content is not None:
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        wrong = np.abs(shares - content / content.sum()).max(axis=1) > 1e-9
        reasons.append(("another composition than asked for", wrong))
        if condition.formula_units is not None:
            n_cells = tables().n_centering[np.clip(group, 1, N_GROUPS) - 1]
            wanted = condition.formula_units * content.sum()
            wrong = counts.sum(axis=1) != wanted * n_cells
            reasons.append(("another number of formula units than asked for", wrong))
    if condition.elements is not None:
        other = (counts > 0) & ~marked(condition.elements)
        reasons.append(("elements that were not allowed", other.any(axis=1)))
    if condition.required:
        lacking = (counts == 0) & marked(condition.required)
        reasons.append(("without a required element", lacking.any(axis=1)))
    if condition.template is not None:
        letters = condition.letters
        n_slots = max(crystals.n_slots, len(letters))
        has = np.sort(np.pad(crystals.wyckoff, ((0, 0), (0, n_slots - crystals.n_slots))), axis=1)
        wanted = np.sort(np.pad(letters, (0, n_slots - len(letters))))
        reasons.append(("another Wyckoff template than asked for", (has != wanted).any(axis=1)))
    return reasons


def marked(symbols: Sequence[str]) -> np.ndarray:
    """bool [119]: which elements are named; ValueError for an unknown one."""
    found = np.zeros(N_SPECIES, bool)
    found[[atomic_number(name) for name in symbols]] = True
    return found


def refuse(found: np.ndarray, among: np.ndarray, what: str, where: str) -> None:
    """ValueError naming the elements of one mask that are not in the other."""
    if (found & ~among).any():
        names = ", ".join(symbol(int(z)) for z in np.flatnonzero(found & ~among))
        raise ValueError(f"{what} {names}, which is not among {where}")
