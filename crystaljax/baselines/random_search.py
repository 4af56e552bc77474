"""Random structures of a formula, symmetric ones, from PyXtal."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from crystaljax.baselines.base import Proposals, content_of, no_crystals
from crystaljax.composition import SYMBOLS
from crystaljax.conditions import Condition, unmet
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.evaluation.safeguards import time_limit
from crystaljax.models.wyckoff.demands import OPEN_PARTS, OPEN_UNITS
from crystaljax.progress import tracked
from crystaljax.structures import from_structure
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.symmetry.occupations import outlook

DRAWS = 20
"""Structures drawn for each attempt, at most: many groups seldom keep atoms apart."""

SECONDS = 5.0
"""Time for one structure."""


class RandomSearch:
    """Random structures in random space groups that can hold the composition.

    Ab initio random structure searching (Pickard and Needs, J. Phys.: Condens. Matter 23, 053201
    (2011)) draws structures and relaxes them; these are PyXtal's (Fredericks et al., Comput. Phys.
    Commun. 261, 107810 (2021)), with its volumes and least distances. Where the number of formula
    units is open, it is drawn from those that the Wyckoff transformer is held to (`OPEN_UNITS` of
    the reduced formula, of at most `OPEN_PARTS` remainders), as far as the cell has at most
    `max_atoms`.

    ImportError without PyXtal.
    """

    def __init__(self, max_atoms: int, max_sites: int = 20) -> None:
        """`max_atoms` of primitive cells, at most; `max_sites`: Wyckoff sites at most."""
        _pyxtal()
        self.name = "random search"
        self.max_atoms, self.max_sites = max_atoms, max_sites

    def propose(self, conditions: Sequence[Condition], k: int, seed: int = 0) -> Proposals:
        """k structures for each condition, the same of a seed; they are in no order."""
        found, reasons = [], []
        for number, condition in enumerate(tracked(conditions, "random structures")):
            rng = np.random.default_rng([seed, number])
            crystals, why = self._draw(condition, k, rng)
            found.append(crystals)
            reasons.append(why)
        return Proposals.of(found, k, reasons)

    def _draw(self, condition: Condition, k: int, rng: np.random.Generator) -> tuple[Crystals, str]:
        """Up to k structures, and the reason why there are no more."""
        try:
            kinds = self._kinds(condition)
        except ValueError as error:
            return no_crystals(), str(error)
        cells: list[AtomicCell] = []
        kept = no_crystals()
        for _ in range(DRAWS):
            cells = []
            for _ in range(k - len(kept)):
                content, groups = kinds[int(rng.integers(len(kinds)))]
                cell = _structure(content, int(rng.choice(groups)), rng)
                cells += [] if cell is None else [cell]
            drawn, reasons = symmetrize(cells)
            drawn = drawn[np.array([reason is None for reason in reasons], bool)]
            good = [why is None for why in unmet(drawn, [condition] * len(drawn))]
            kept = Crystals.concatenate([kept, drawn[np.array(good, bool)]])
            if len(kept) == k:
                break
        return kept, f"no more structures of {condition.formula} in {DRAWS} draws for each"

    def _kinds(self, condition: Condition) -> list[tuple[np.ndarray, np.ndarray]]:
        """Atoms [119] that the primitive cell may have, each with the space groups for them.

        ValueError, with the reason, if there are none.
        """
        found = []
        for content in _contents(condition):
            if content.sum() <= self.max_atoms:
                groups = self._groups(condition, content)
                found += [(content, groups)] if len(groups) else []
        if not found:
            raise ValueError(
                f"no space group holds {condition.formula} with at most {self.max_atoms} atoms"
            )
        return found

    def _groups(self, condition: Condition, content: np.ndarray) -> np.ndarray:
        """Space groups that can hold the atoms [119] of a primitive cell, and may be taken.

        ValueError for atoms in too many ways (`symmetry.occupations`).
        """
        atoms = tuple(content[content > 0].tolist())
        groups = np.flatnonzero(outlook(atoms).fits(self.max_sites)) + 1
        asked = condition.space_groups
        return groups if asked is None else groups[np.isin(groups, asked)]


def _contents(condition: Condition) -> list[np.ndarray]:
    """Atoms int [119] that the primitive cell may have, by the condition's formula units."""
    content = content_of(condition)
    if condition.formula_units is not None:
        return [condition.formula_units * content]
    content = content // np.gcd.reduce(content)
    several = [n * content for n in OPEN_UNITS if n > 1]
    return [content, *(x for x in several if np.prod(x + 1, dtype=float) <= OPEN_PARTS)]


def _structure(content: np.ndarray, group: int, rng: np.random.Generator) -> AtomicCell | None:
    """A random structure of the atoms [119] of a primitive cell; None if none was found."""
    pyxtal = _pyxtal()
    elements = np.flatnonzero(content)
    crystal = pyxtal()
    try:
        with time_limit(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of volumes that it increases
            crystal.from_random(
                3,
                group,
                [SYMBOLS[z - 1] for z in elements],
                content[elements].tolist(),
                conventional=False,
                max_count=1,
                random_state=rng,
            )
            return from_structure(crystal.to_pymatgen()) if crystal.valid else None
    except Exception:  # noqa: BLE001 (one draw costs no more than itself)
        return None


def _pyxtal() -> Any:
    """PyXtal's class of crystals."""
    try:
        from pyxtal import pyxtal
    except ImportError as error:
        raise ImportError(
            'random search needs PyXtal: run pip install "crystaljax[pyxtal]"'
        ) from error
    return pyxtal
