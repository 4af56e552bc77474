"""Conditions as demands on the sequences of a Wyckoff transformer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from crystaljax.composition import N_SPECIES, symbol
from crystaljax.conditions import Condition, marked
from crystaljax.symmetry.occupations import Outlook, outlook
from crystaljax.symmetry.placements import Atoms, Template
from crystaljax.symmetry.tables import N_GROUPS, tables

OPEN_UNITS = 1, 2, 3, 4, 5, 6, 8, 10, 12, 16
"""Numbers of formula units in the primitive cell that are tried if none is given."""

OPEN_PARTS = 400
"""Largest number of remainders of a composition (see `Occupations`) if the number of formula units
is open; one formula unit may have more."""


UNKNOWN = 0.03
"""Assumed share of crystals with an element if the training data are unknown."""


class TrainingCounts(NamedTuple):
    """Statistics of the training data."""

    space_groups: np.ndarray
    """int [230]: number of crystals of each space group (or relative frequency to draw it)."""
    elements: np.ndarray | None = None
    """int [119]: number of crystals with each element."""
    of_formula: Callable[[np.ndarray], np.ndarray] | None = None
    """float64 [230] p(space group | formula), from atoms int [119]."""


@dataclass(frozen=True, eq=False)
class Demand:
    """Demands of one condition on sequences, as arrays."""

    known: np.ndarray
    """bool [119]: elements that are sampled by default."""
    allowed: np.ndarray
    """bool [119]: elements that may occur."""
    required: np.ndarray
    """bool [119]: elements that must occur."""
    frequency: np.ndarray
    """float32 [119]: log-odds that crystals have each element."""
    template: np.ndarray | None
    """int32 [n]: the letters of all sites."""
    species: np.ndarray
    """int [K]: elements of the formula, in the order of `atoms`."""
    atoms: tuple[tuple[int, ...], ...]
    """[U][K]: contents of the primitive cell that it may have; none if no formula is asked for."""
    prior: np.ndarray
    """float64 [230]: probabilities of the space groups, of those that may have it."""
    groups: np.ndarray
    """bool [230]: space groups that tables are made for."""

    @property
    def binding(self) -> bool:
        """Whether some samples of the model in these space groups would not meet it."""
        return self.asks_elements or self.template is not None

    @property
    def asks_elements(self) -> bool:
        """Whether some elements that the model samples are not allowed."""
        return bool((self.known & ~self.allowed).any() or self.required.any())

    @property
    def letters(self) -> Template:
        """The template's letters."""
        return None if self.template is None else tuple(self.template.tolist())

    def outlook(self, unit: int) -> Outlook:
        """The outlook on one of the contents that the cell may have."""
        return outlook(self.atoms[unit], self.letters, self.groups)

    def contents(self, unit: int) -> tuple[Atoms, Template]:
        """Arguments of `occupations` for one of the contents."""
        return self.atoms[unit], self.letters


def make_demands(
    conditions: Sequence[Condition],
    max_sites: int,
    training: TrainingCounts,
) -> list[Demand]:
    """The demand of each condition; ValueError naming the first impossible one, with the reason.

    Space groups have their frequencies in the training data; requested groups that it lacks count
    once. Elements that it lacks are sampled only if the condition's elements or formula name them.
    """
    made: dict[Condition, Demand] = {}
    for i, condition in enumerate(conditions):
        try:
            if condition not in made:
                made[condition] = _make(condition, max_sites, training)
        except ValueError as error:
            if len(conditions) == 1:
                raise
            raise ValueError(f"condition {i + 1} of {len(conditions)}: {error}") from error
    return [made[condition] for condition in conditions]


def _make(
    condition: Condition,
    max_sites: int,
    training: TrainingCounts,
) -> Demand:
    if condition.properties:
        names = ", ".join(condition.properties)
        raise ValueError(
            f"the Wyckoff transformer cannot be asked for properties ({names}): it can for a "
            "formula, elements, space groups and a template"
        )
    known = np.arange(N_SPECIES) > 0
    if training.elements is not None:
        known &= np.asarray(training.elements) > 0
    allowed = known if condition.elements is None else marked(condition.elements)
    required = marked(condition.required)
    content = condition.content
    if content is not None:
        allowed = required = content > 0
    elif condition.elements is None and (required & ~known).any():
        names = ", ".join(symbol(int(z)) for z in np.flatnonzero(required & ~known))
        raise ValueError(
            f"required is {names}, which is not among those that the model has seen in training: "
            "to sample it all the same, name all elements that may occur"
        )
    template = None if condition.template is None else condition.letters
    n_slots = max_sites if template is None else len(template)
    if n_slots > max_sites:
        raise ValueError(f"a template of {n_slots} sites: 1 to {max_sites} can be")
    if required.sum() > n_slots:
        raise ValueError(
            f"{required.sum()} elements are required on {n_slots} sites at most: require fewer"
        )
    prior = _group_weights(condition, training.space_groups)
    groups, species = prior > 0, np.zeros(0, int)
    atoms: tuple[tuple[int, ...], ...] = ()
    if content is not None:
        species = _sorted_species(content)
        atoms, fits = _units(condition, groups, max_sites)
        prior = prior * fits
    if not prior.any():
        raise ValueError(_impossible(condition, max_sites))
    prior = prior / prior.sum()
    frequency = _log_odds(training.elements, int(np.sum(training.space_groups)))
    known = known | allowed
    return Demand(known, allowed, required, frequency, template, species, atoms, prior, groups)


def with_groups(
    conditions: Sequence[Condition],
    max_sites: int,
    training: TrainingCounts,
    rng: np.random.Generator,
) -> list[Condition]:
    """Conditions of formulas with a space group each, drawn by p(space group | formula).

    Groups that cannot hold the formula are not drawn; tables are made only for groups that are
    tried. Conditions without a formula, with one group, or that no group can meet are not changed,
    and none is if p(space group | formula) is unknown.
    """
    found = list(conditions)
    if training.of_formula is None:
        return found
    rows_of: dict[Condition, list[int]] = {}
    for row, condition in enumerate(conditions):
        asked = condition.space_groups
        if condition.formula is not None and (asked is None or len(asked) > 1):
            rows_of.setdefault(condition, []).append(row)
    for condition, rows in rows_of.items():
        weight = _weights_of_formula(condition, training)
        groups = _fitting(condition, weight, len(rows), max_sites, rng)
        for row, group in zip(rows, groups, strict=False):  # no groups if none fits
            found[row] = replace(condition, space_group=group + 1)
    return found


def _weights_of_formula(condition: Condition, training: TrainingCounts) -> np.ndarray:
    """float64 [230]: weights of the groups that a condition allows, for its formula.

    Requested groups that the training data lack have the smallest weight of the others.
    """
    assert training.of_formula is not None and condition.content is not None
    allowed = _group_weights(condition, training.space_groups) > 0
    weight = np.where(allowed, training.of_formula(condition.content), 0)
    rarest = weight[weight > 0].min(initial=1.0)
    return np.where(allowed & (weight == 0), rarest, weight)


def _fitting(
    condition: Condition, weight: np.ndarray, n: int, max_sites: int, rng: np.random.Generator
) -> list[int]:
    """n rows of group tables, drawn by weights [230] among groups that can hold a formula.

    Empty if none can, or the formula is too large for a test.
    """
    drawn, fits = np.full(n, -1), np.zeros(N_GROUPS, bool)
    while (left := drawn < 0).any():
        if not weight.any():
            return []
        cumulative = np.cumsum(weight)
        uniform = rng.random(int(left.sum())) * cumulative[-1]
        drawn[left] = np.searchsorted(cumulative, uniform, side="right")
        new = np.bincount(drawn[left], minlength=N_GROUPS).astype(bool) & ~fits
        for group in np.flatnonzero(new):
            try:
                atoms, _ = _units(condition, np.arange(N_GROUPS) == group, max_sites)
            except ValueError:
                return []
            fits[group] = bool(atoms)
        weight = np.where(new & ~fits, 0, weight)
        drawn[~fits[drawn]] = -1
    return [int(group) for group in drawn]


def _log_odds(element_counts: np.ndarray | None, n_crystals: int) -> np.ndarray:
    """float32 [119]: log-odds that crystals have each element; all equal if unknown."""
    if element_counts is None:
        return np.full(N_SPECIES, math.log(UNKNOWN / (1 - UNKNOWN)), np.float32)
    share = (np.asarray(element_counts, float) + 1) / (n_crystals + 2)
    share = np.clip(share, 1e-4, 0.9)
    return np.log(share / (1 - share)).astype(np.float32)


def _group_weights(condition: Condition, counts: np.ndarray) -> np.ndarray:
    """float64 [230]: weights of the groups that the condition allows, by their positions."""
    weight = np.asarray(counts, float)
    if condition.space_groups is not None:
        chosen = np.isin(np.arange(1, N_GROUPS + 1), condition.space_groups)
        weight = np.where(chosen, np.maximum(weight, 1), 0)
    if condition.template is not None:
        letters = condition.letters
        again = letters[1:][np.diff(letters) == 0]
        weight = weight * (tables().multiplicity[:, letters] > 0).all(axis=1)
        weight = weight * (tables().n_free[:, again] > 0).all(axis=1)
    return weight


def _sorted_species(content: np.ndarray) -> np.ndarray:
    """int [K]: elements of a formula (int [119] atoms of each), by increasing amount."""
    species = np.flatnonzero(content)
    return species[np.argsort(content[species], kind="stable")]


def _units(
    condition: Condition, groups: np.ndarray, max_sites: int
) -> tuple[tuple[tuple[int, ...], ...], np.ndarray]:
    """Contents of the primitive cell that fit some groups, and these groups: bool [230].

    ValueError for a formula with too many remainders.
    """
    content = condition.content
    assert content is not None
    content = content[_sorted_species(content)]
    letters = None if condition.template is None else tuple(condition.letters.tolist())
    if condition.formula_units is not None:
        numbers: tuple[int, ...] = (condition.formula_units,)
    else:
        numbers, content = OPEN_UNITS, content // math.gcd(*content.tolist())
    found, fits = [], np.zeros(N_GROUPS, bool)
    for n in numbers:
        atoms = tuple((n * content).tolist())
        n_parts = math.prod(m + 1 for m in atoms)
        if n > 1 and condition.formula_units is None and n_parts > OPEN_PARTS:
            break
        fit = outlook(atoms, letters, groups).fits(max_sites)
        if fit.any():
            found.append(atoms)
            fits |= fit
    return tuple(found), fits


def _impossible(condition: Condition, max_sites: int) -> str:
    wishes = {
        "template": None if condition.template is None else " ".join(condition.template),
        "formula": condition.formula,
    }
    asked = " and ".join(f"{name} {value}" for name, value in wishes.items() if value is not None)
    if not asked:
        return "no space group is in the training data: name some"
    return (
        f"no space group that may be drawn has the positions that the {asked} needs, on "
        f"{max_sites} sites at most: allow more space groups, or another number of formula units "
        "in the primitive cell; a template lists the letters of all sites"
    )
