"""Known structures with other elements: the nearest prototypes of a training set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np

from crystaljax.baselines.base import Proposals, content_of, no_crystals
from crystaljax.composition import N_SPECIES, element_counts, mendeleev_numbers
from crystaljax.conditions import Condition, unmet
from crystaljax.crystal import Crystals
from crystaljax.data.prototypes import substitute
from crystaljax.symmetry.equivalence import canonicalize
from crystaljax.symmetry.orbits import n_atoms

MAX_CANDIDATES = 50
"""Templates that are tried for each of k attempts, at most: many are of one prototype."""

MAX_PERMUTATIONS = 5040
"""Ways to put elements of equal amounts on a template, at most."""


class Substitution:
    """Structures of a training set whose elements are replaced by those of a formula.

    Templates have the formula's amounts of elements (the same anonymous formula). Elements go by
    Pettifor's chemical scale: a template is the nearer, the less the mean distance over its atoms
    between the Mendeleev numbers of an element and of its substitute (Pettifor, Solid State
    Commun. 51, 31 (1984), as pymatgen has them). Cells are scaled so that lengths follow the mean
    covalent radius. First come the nearest structures of each prototype (space group, and elements
    on Wyckoff positions), then the second nearest of each, and so on.
    """

    def __init__(self, train: Crystals, name: str) -> None:
        """`name`: of the training set, like "mp20_bt/train"."""
        self.name = f"substitution in structures of {name}"
        self._crystals = train.to_numpy()
        self._atoms = np.asarray(n_atoms(self._crystals, primitive=True))
        counts = element_counts(self._crystals)
        counts //= np.maximum(np.gcd.reduce(counts, axis=1, keepdims=True), 1)
        self._counts = counts
        self._templates: dict[tuple[int, ...], list[int]] = {}
        for row, amounts in enumerate(counts):
            self._templates.setdefault(_anonymous(amounts), []).append(row)

    def propose(self, conditions: Sequence[Condition], k: int, seed: int = 0) -> Proposals:
        """k structures for each condition; there is no chance in it, and the seed does nothing."""
        found = {condition: self._nearest(condition, k) for condition in dict.fromkeys(conditions)}
        reasons = [f"no more templates for {condition.formula}" for condition in conditions]
        return Proposals.of([found[condition] for condition in conditions], k, reasons)

    def _nearest(self, condition: Condition, k: int) -> Crystals:
        """Up to k structures for a condition, in the order of preference."""
        content = content_of(condition)
        rows = np.array(self._templates.get(_anonymous(content // np.gcd.reduce(content)), []), int)
        if condition.formula_units is not None:
            rows = rows[self._atoms[rows] == condition.formula_units * content.sum()]
        if not len(rows):
            return no_crystals()
        old, new = _elements(self._counts[rows]), _arrangements(content)
        share = np.sort(content[content > 0])[::-1] / content.sum()
        scale = mendeleev_numbers()
        distance = np.abs(scale[old][:, None] - scale[new]) @ share  # [R, P]
        order = np.argsort(distance, axis=None, kind="stable")[: MAX_CANDIDATES * k]
        row, arrangement = np.unravel_index(order, distance.shape)
        maps = np.tile(np.arange(N_SPECIES), (len(order), 1))
        np.put_along_axis(maps, old[row], new[arrangement], axis=1)
        crystals = canonicalize(substitute(self._crystals[rows[row]], maps))
        good = np.array([why is None for why in unmet(crystals, [condition] * len(order))])
        turn = _turns(crystals, row)
        kept = np.flatnonzero(good & (turn >= 0))
        return crystals[kept[np.argsort(turn[kept], kind="stable")[:k]]]


def _anonymous(counts: np.ndarray) -> tuple[int, ...]:
    """Amounts of the elements, the most first."""
    return tuple(np.sort(counts[counts > 0])[::-1].tolist())


def _elements(counts: np.ndarray) -> np.ndarray:
    """Elements int [R, n] of compositions [R, 119] of n elements, those of the most atoms first."""
    n = int((counts[0] > 0).sum())
    return np.argsort(-counts, axis=1, kind="stable")[:, :n]


def _arrangements(content: np.ndarray) -> np.ndarray:
    """Orders int [P, n] of the elements of a formula [119], the most first, equal ones permuted."""
    amounts = np.unique(content[content > 0])[::-1]
    blocks = [permutations(np.flatnonzero(content == amount).tolist()) for amount in amounts]
    found = []
    for parts in product(*blocks):
        found.append([z for part in parts for z in part])
        if len(found) == MAX_PERMUTATIONS:
            break
    return np.array(found)


def _turns(crystals: Crystals, template: np.ndarray) -> np.ndarray:
    """int [B]: number of crystals of the same prototype before each crystal.

    -1 of one that comes of the same template `template` int [B] as another before it and is the
    same: elements change places that are alike.
    """
    sites = np.stack([crystals.wyckoff, crystals.species], axis=-1).reshape(len(crystals), -1)
    kinds = np.column_stack([crystals.space_group, sites])
    places = np.round(crystals.frac, 3).reshape(len(crystals), -1)
    turns = np.zeros(len(kinds), int)
    seen: dict[bytes, int] = {}
    known: set[tuple[bytes, int, bytes]] = set()
    for row, (kind, place) in enumerate(zip(kinds, places, strict=True)):
        name = kind.tobytes()
        same = name, int(template[row]), place.tobytes()
        if same in known:
            turns[row] = -1
            continue
        known.add(same)
        turns[row] = seen.get(name, 0)
        seen[name] = turns[row] + 1
    return turns
