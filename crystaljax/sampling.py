"""Conditions as arrays: what they demand of a Wyckoff transformer's samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crystaljax.conditions import Condition, marked, refuse
from crystaljax.models.wyckoff.constraints import Composition, Constraints
from crystaljax.symmetry.occupations import Occupations, occupations
from crystaljax.symmetry.tables import N_GROUPS, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES


@dataclass(frozen=True, eq=False)
class Demands:
    """Demands on every sample of a run, as arrays."""

    known: np.ndarray
    """bool [119]: elements that are sampled unless other ones are demanded."""
    allowed: np.ndarray
    """bool [119]: elements that may occur."""
    required: np.ndarray
    """bool [119]: elements that must occur."""
    template: np.ndarray | None
    """int32 [max sites + 1]: the letters of all sites, then zeros."""
    occupations: Occupations | None
    """Where the atoms of a formula fit; its elements are those required, in order."""
    max_sites: int

    @property
    def binding(self) -> bool:
        """Some samples of the model would not meet them."""
        return (
            bool((self.known & ~self.allowed).any() or self.required.any())
            or self.template is not None
            or self.occupations is not None
        )

    def constraints(self, group: np.ndarray) -> Constraints:
        """The same demands on one sample in each of N space groups, int [N]."""

        def rows(values: np.ndarray) -> np.ndarray:
            return np.broadcast_to(values, (len(group), *values.shape))

        composition = None
        if self.occupations is not None:
            composition = Composition.of(np.flatnonzero(self.required), self.occupations, group)
        return Constraints(
            rows(self.known),
            rows(self.allowed),
            rows(self.required),
            None if self.template is None else rows(self.template),
            composition,
        )


def make_demands(
    condition: Condition, max_sites: int, element_counts: np.ndarray | None = None
) -> Demands:
    """The arrays that a condition asks for; ValueError if the model cannot meet it.

    `element_counts` int [119] of the training data: elements that it lacks are sampled only if
    `elements` or the formula name them.
    """
    known = np.arange(N_SPECIES) > 0
    if element_counts is not None:
        known &= np.asarray(element_counts) > 0
    allowed = known if condition.elements is None else marked(condition.elements)
    required = marked(condition.required)
    atoms: tuple[int, ...] | None = None
    if condition.content is not None:
        content = condition.content * (condition.formula_units or 1)
        atoms = tuple(content[content > 0].tolist())
        allowed = required = content > 0
    refuse(
        required,
        allowed,
        "required is",
        "those that the model has seen in training: to sample it all the same, name all "
        "elements that may occur",
    )
    template = _template(condition, max_sites)
    n_slots = max_sites if condition.template is None else len(condition.template)
    if required.sum() > n_slots:
        raise ValueError(
            f"{required.sum()} elements are required on {n_slots} sites at most: require fewer"
        )
    table = None
    if atoms is not None:
        letters = None if template is None else tuple(template[template > 0].tolist())
        table = occupations(atoms, letters, 0 if letters is None else max_sites)
    return Demands(known | allowed, allowed, required, template, table, max_sites)


def possible_groups(condition: Condition, demands: Demands, counts: np.ndarray) -> np.ndarray:
    """float64 [230]: probabilities of the space groups that may be drawn, by the data's counts.

    Left out are groups that lack positions of the template, or positions to make up the formula
    of. `counts` int [230] of the training data; groups asked for that it lacks count once.
    ValueError if none is possible.
    """
    weight = np.asarray(counts, float)
    if condition.space_groups is not None:
        chosen = np.array(condition.space_groups, int)
        weight = np.where(np.isin(np.arange(N_GROUPS), chosen - 1), np.maximum(weight, 1), 0)
    fits = np.ones(N_GROUPS, bool)
    if demands.template is not None:
        letters = demands.template[demands.template > 0]
        again = letters[1:][np.diff(letters) == 0]
        fits &= (tables().multiplicity[:, letters] > 0).all(axis=1)
        fits &= (tables().n_free[:, again] > 0).all(axis=1)
    if demands.occupations is not None:
        fits &= demands.occupations.fits(demands.max_sites)
    if not (weight * fits).any():
        wishes = {"template": condition.template, "formula": condition.formula}
        asked = " and ".join(
            f"{name} {value if isinstance(value, str) else ' '.join(value)}"
            for name, value in wishes.items()
            if value is not None
        )
        raise ValueError(
            f"no space group that may be drawn has the positions that the {asked} needs, on "
            f"{demands.max_sites} sites at most: "
            + (
                "allow more space groups"
                if fits.any()
                else "a formula is the content of the whole primitive cell, a template lists the "
                "letters of all its sites"
            )
        )
    return weight * fits / (weight * fits).sum()


def _template(condition: Condition, max_sites: int) -> np.ndarray | None:
    """See `Demands.template`."""
    if condition.template is None:
        return None
    letters = condition.letters
    if len(letters) > max_sites:
        raise ValueError(f"a template of {len(letters)} sites: 1 to {max_sites} can be")
    return np.pad(letters, (0, max_sites + 1 - len(letters)))
