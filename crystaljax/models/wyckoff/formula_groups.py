"""p(space group | formula), estimated from training crystals of similar formulas.

Crystals of the same anonymous formula (AB2, ABC3) are weighted by the similarity of their elements
to those in the same roles. The prior of this distribution is that of all crystals of the anonymous
formula, whose prior is that of the whole training set (Dirichlet priors). Mean ln p of the crystals
of mp20_bt/val, estimated from mp20_bt/train: -3.86 with the space groups of the training set, -2.98
with those of the anonymous formula, and -2.09 with this estimate (mp20_bt/test: -3.91, -2.98 and
-2.14).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations, product

import numpy as np

from crystaljax.composition import mendeleev_numbers, parse_formulas
from crystaljax.symmetry.tables import N_GROUPS

SCALE = 2.0
"""Sum of the differences of Mendeleev numbers over the elements at which a crystal counts 1/e."""

ANONYMOUS = 0.3
"""Weight of the prior by the anonymous formula, in crystals."""

MARGINAL = 10.0
"""Weight, in crystals, of the training set's distribution in that of the anonymous formula."""

MAX_ARRANGEMENTS = 720
"""Largest number of permutations of elements of equal amounts that are tried."""

Anonymous = tuple[int, ...]
"""Amounts of the elements, in increasing order."""


@dataclass(frozen=True)
class _Known:
    """Crystals of one anonymous formula."""

    elements: np.ndarray
    """int [R, K]: elements, by increasing amount."""
    group: np.ndarray
    """int [R]: rows of group tables."""


class FormulaGroups:
    """p(space group | formula), see the module.

    Args:
      known: space groups of the training crystals by reduced formula.
      space_group_counts: int [230], of the whole training set.
    """

    def __init__(self, known: Mapping[str, Sequence[int]], space_group_counts: np.ndarray) -> None:
        self._marginal = np.asarray(space_group_counts, float) / np.sum(space_group_counts)
        rows: dict[Anonymous, tuple[list[np.ndarray], list[int]]] = {}
        for content, groups in zip(parse_formulas(known), known.values(), strict=True):
            amounts, elements = _anonymous(content.astype(int))
            some = rows.setdefault(amounts, ([], []))
            some[0].extend([elements] * len(groups))
            some[1].extend(group - 1 for group in groups)
        self._known = {
            amounts: _Known(np.array(elements), np.array(group))
            for amounts, (elements, group) in rows.items()
        }

    def __call__(self, content: np.ndarray) -> np.ndarray:
        """float64 [230]: probabilities for a formula, int [119] atoms of each element."""
        amounts, elements = _anonymous(np.asarray(content, int))
        known = self._known.get(amounts)
        if known is None:
            return self._marginal
        like = np.bincount(known.group, minlength=N_GROUPS) + MARGINAL * self._marginal
        like = like / like.sum()
        number = mendeleev_numbers()
        distance = np.full(len(known.group), np.inf)
        for order in _arrangements(amounts):
            apart = np.abs(number[known.elements] - number[elements[order]]).sum(axis=1)
            distance = np.minimum(distance, apart)
        near = np.bincount(known.group, np.exp(-distance / SCALE), N_GROUPS) + ANONYMOUS * like
        return near / near.sum()


def _anonymous(content: np.ndarray) -> tuple[Anonymous, np.ndarray]:
    """The anonymous formula, and the elements int [K] in its order."""
    elements = np.flatnonzero(content)
    elements = elements[np.argsort(content[elements], kind="stable")]
    amounts = content[elements] // np.gcd.reduce(content[elements])
    return tuple(amounts.tolist()), elements


def _arrangements(amounts: Anonymous) -> list[list[int]]:
    """Permutations of the elements that do not change the amounts."""
    blocks = [
        permutations([i for i, n in enumerate(amounts) if n == amount])
        for amount in dict.fromkeys(amounts)
    ]
    return [
        [i for part in parts for i in part] for parts in islice(product(*blocks), MAX_ARRANGEMENTS)
    ]
