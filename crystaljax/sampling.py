"""Demands on a Wyckoff transformer's samples, and the arrays that stand for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crystaljax.composition import atomic_number, parse_formula, symbol
from crystaljax.models.wyckoff.constraints import Composition, Constraints
from crystaljax.symmetry.occupations import Occupations, occupations
from crystaljax.symmetry.tables import N_GROUPS, letter_index, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of sampling."""

    temperature: float = 1.0
    """Below 1 likelier crystals, above 1 more varied ones."""
    top_p: float = 1.0
    """Draw letters and elements only from the likeliest that make up this probability."""
    elements: tuple[str, ...] | None = None
    """Elements that may occur; all if not given."""
    required: tuple[str, ...] = ()
    """Elements that must occur."""
    space_groups: tuple[int, ...] | None = None
    """Space groups to draw from, as often as in the training data; all if not given."""
    template: tuple[str, ...] | None = None
    """Wyckoff letters of all sites, such as a a b; only groups that have them are drawn."""
    formula: str | None = None
    """Content of the primitive cell, such as Sr1Ti1O3."""
    max_candidates: int = 8
    """Candidates drawn for each sample, at most, where demands on elements, template or formula
    need some to choose from; samples whose weights still differ tell by their effective size."""
    batch_size: int = 256
    """Samples made at a time; the result does not depend on it."""


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
    """Occupations by the atoms of a formula; its elements are those required, in order."""
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
    config: SamplingConfig, max_sites: int, element_counts: np.ndarray | None = None
) -> Demands:
    """The arrays that a sampling configuration asks for; ValueError if it contradicts itself.

    `element_counts` int [119] of the training data: elements that it lacks are sampled only if
    `elements` or the formula name them.
    """
    if not 0 < config.temperature < float("inf"):
        raise ValueError(f"temperature {config.temperature}: it must be positive and finite")
    if not 0 < config.top_p <= 1:
        raise ValueError(f"top-p {config.top_p}: it must be above 0, and 1 at most")
    if config.max_candidates < 1:
        raise ValueError(f"{config.max_candidates} candidates for each sample: give at least 1")
    known = np.arange(N_SPECIES) > 0
    if element_counts is not None:
        known &= np.asarray(element_counts) > 0
    allowed = known
    if config.elements is not None:
        if not config.elements:
            raise ValueError("no element is allowed: name some, or leave the elements out")
        allowed = _marked(config.elements)
    required = _marked(config.required)
    atoms: tuple[int, ...] | None = None
    if config.formula is not None:
        content = _whole_numbers(config.formula)
        if config.elements is not None:
            _refuse(content > 0, allowed, "the formula has", "those allowed")
        _refuse(required, content > 0, "required is", "those of the formula")
        atoms = tuple(content[content > 0].tolist())
        allowed = required = content > 0
    if config.elements is None:
        _refuse(
            required,
            allowed,
            "required is",
            "those that the model has seen in training: to sample it all the same, name all "
            "elements that may occur",
        )
    _refuse(required, allowed, "required is", "those allowed")
    template = _template(config.template, max_sites)
    n_slots = max_sites if config.template is None else len(config.template)
    if required.sum() > n_slots:
        raise ValueError(
            f"{required.sum()} elements are required on {n_slots} sites at most: require fewer"
        )
    table = None
    if atoms is not None:
        letters = None if template is None else tuple(template[template > 0].tolist())
        table = occupations(atoms, letters, 0 if letters is None else max_sites)
    return Demands(known | allowed, allowed, required, template, table, max_sites)


def possible_groups(config: SamplingConfig, demands: Demands, counts: np.ndarray) -> np.ndarray:
    """float64 [230]: probabilities of the space groups that may be drawn, by the data's counts.

    Left out are groups that lack positions of the template, or positions to make up the formula
    of. `counts` int [230] of the training data; groups asked for that it lacks count once.
    ValueError if none is possible.
    """
    weight = np.asarray(counts, float)
    if config.space_groups is not None:
        chosen = np.array(config.space_groups, int)
        if not len(chosen) or ((chosen < 1) | (chosen > N_GROUPS)).any():
            raise ValueError(f"space groups {config.space_groups}: they are numbered 1-230")
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
        wishes = {"template": config.template, "formula": config.formula}
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


def _template(letters: tuple[str, ...] | None, max_sites: int) -> np.ndarray | None:
    """See `Demands.template`."""
    if letters is None:
        return None
    if not 0 < len(letters) <= max_sites:
        raise ValueError(f"a template of {len(letters)} sites: 1 to {max_sites} can be")
    indices = np.array([letter_index(x) for x in letters], np.int32)
    if (np.diff(indices) < 0).any():
        raise ValueError(f"template {' '.join(letters)}: sort its letters")
    return np.pad(indices, (0, max_sites + 1 - len(indices)))


def _whole_numbers(formula: str) -> np.ndarray:
    """int [119]: atoms of each element in a formula; ValueError if they are not whole numbers."""
    content = parse_formula(formula)
    if (content % 1 != 0).any():
        raise ValueError(f"{formula}: give whole numbers of atoms")
    return content.astype(int)


def _refuse(found: np.ndarray, among: np.ndarray, what: str, where: str) -> None:
    """ValueError naming the elements of one mask that are not in the other."""
    if (found & ~among).any():
        names = ", ".join(symbol(int(z)) for z in np.flatnonzero(found & ~among))
        raise ValueError(f"{what} {names}, which is not among {where}")


def _marked(symbols: tuple[str, ...]) -> np.ndarray:
    """bool [119]: which elements are named; ValueError for an unknown one."""
    marked = np.zeros(N_SPECIES, bool)
    marked[[atomic_number(symbol) for symbol in symbols]] = True
    return marked
