"""Training data for models that propose alloys: phases an engine finds single, paired.

After appendix A.2 of arXiv 2511.12036: candidates of BCC and of B2 are made on a grid, kept where
the engine finds one phase, and paired with several B2 volumes each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal, NamedTuple

import numpy as np

from crystaljax.alloys.composition import Candidate, fractions, write_formula
from crystaljax.alloys.thermodynamics import TEMPERATURES, Equilibria, Thermodynamics

_AT_ONCE = 64  # compositions that are computed before the next are listed


@dataclass(frozen=True)
class CurationConfig:
    """Which phases are tried, what is kept, and how phases are paired."""

    bcc_elements: tuple[str, ...] = ("Co", "Cr", "Ni")
    """Elements of the BCC candidates."""
    first_site: tuple[str, ...] = ("Al",)
    """Elements of one sublattice of the B2 candidates."""
    second_site: tuple[str, ...] = ("Co", "Cr", "Ni")
    """Elements of the other."""
    most_bcc: int = 3
    """Most elements of a BCC candidate."""
    most_site: int = 2
    """Most elements of a sublattice; they share it equally."""
    step: int = 10
    """Steps of BCC compositions, in per cent; the last element of three takes what is left."""
    purity: float = 0.99
    """Fraction of the phase that is asked for, at some temperature."""
    volumes: Literal["normal", "uniform"] = "normal"
    """How B2 volumes are drawn: N(0.45, `spread`) clipped to the range, or uniformly in it; the
    paper says both."""
    spread: float = 0.1
    """Standard deviation of the normal distribution, which the paper leaves open."""
    volume_range: tuple[float, float] = (0.20, 0.70)
    """Least and largest B2 volume fraction."""
    volumes_of_pair: int = 3
    """Candidates of each pair of phases."""
    validation: float = 0.1
    """Share of the pairs of phases that is kept for validation."""
    seed: int = 0
    """Of the drawn volumes and the split."""


class Curated(NamedTuple):
    """What was found."""

    bcc: list[dict[str, float]]
    """BCC compositions (amounts) that are single-phase."""
    b2: list[dict[str, float]]
    """B2 compositions that are."""
    failed: dict[str, str]
    """Formula -> reason, of candidates of which no temperature could be computed."""


def bcc_candidates(config: CurationConfig) -> Iterator[dict[str, float]]:
    """BCC compositions on the grid: percentages of one to `most_bcc` elements."""
    if not 0 < config.step <= 50:
        raise ValueError(f"steps of BCC compositions must be 1 to 50 %, not {config.step}")
    for n in range(1, config.most_bcc + 1):
        for elements in combinations(config.bcc_elements, n):
            for shares in _percentages(n, config.step):
                yield dict(zip(elements, map(float, shares), strict=True))


def _percentages(n: int, step: int) -> Iterator[tuple[int, ...]]:
    """n numbers of at least `step` that sum to 100, all but the last multiples of it."""
    steps = range(step, 100, step)
    for first in product(steps, repeat=n - 1):
        if (last := 100 - sum(first)) >= step:
            yield (*first, last)


def b2_candidates(config: CurationConfig) -> Iterator[dict[str, float]]:
    """B2 compositions with one to `most_site` elements on each site, no element on both."""
    seen = set()
    sites = (_sites(config.first_site, config), _sites(config.second_site, config))
    for first, second in product(*sites):
        amounts: dict[str, float] = {}
        for site in (first, second):
            amounts |= {element: 1 / len(site) for element in site}
        key = frozenset((frozenset(first), frozenset(second)))
        if not set(first) & set(second) and key not in seen:
            seen.add(key)
            yield amounts


def _sites(elements: Sequence[str], config: CurationConfig) -> list[tuple[str, ...]]:
    numbers = range(1, config.most_site + 1)
    return [chosen for n in numbers for chosen in combinations(elements, n)]


def is_single(equilibria: Equilibria, *, ordered: bool, purity: float) -> np.ndarray:
    """bool [C]: at some temperature more than `purity` is B2 (`ordered`) or disordered BCC."""
    return np.asarray((equilibria.amount("bcc", ordered) > purity).any(axis=1))


def curate(
    engine: Thermodynamics, config: CurationConfig, temperatures: np.ndarray = TEMPERATURES
) -> Curated:
    """The candidates of both phases that the engine finds single."""
    failed: dict[str, str] = {}
    kept: dict[bool, list[dict[str, float]]] = {}
    for ordered, candidates in ((False, bcc_candidates(config)), (True, b2_candidates(config))):
        tried = list(candidates)
        kept[ordered] = []
        for start in range(0, len(tried), _AT_ONCE):
            part = tried[start : start + _AT_ONCE]
            table = engine.equilibria([fractions(one) for one in part], temperatures)
            single = is_single(table, ordered=ordered, purity=config.purity)
            for one, good, solved, reasons in zip(
                part, single, table.solved, table.reasons, strict=True
            ):
                if not solved.any():
                    failed[write_formula(one)] = str(reasons[0])
                elif good:
                    kept[ordered].append(one)
    return Curated(kept[False], kept[True], failed)


def candidates(
    bcc: Sequence[Mapping[str, float]], b2: Sequence[Mapping[str, float]], config: CurationConfig
) -> tuple[list[Candidate], list[Candidate]]:
    """All pairs of phases with their volumes, for training and for validation.

    All volumes of a pair are on the same side of the split. The volumes have one decimal, as in
    the paper.
    """
    random = np.random.default_rng(config.seed)
    pairs = list(product(bcc, b2))
    n = config.volumes_of_pair
    low, high = config.volume_range
    if config.volumes == "normal":
        drawn = random.normal(0.45, config.spread, (len(pairs), n)).clip(low, high)
    else:
        drawn = random.uniform(low, high, (len(pairs), n))
    volumes = np.round(100 * drawn, 1)
    held = set(random.permutation(len(pairs))[: round(config.validation * len(pairs))].tolist())
    sides: tuple[list[Candidate], list[Candidate]] = ([], [])
    for place, (matrix, precipitate) in enumerate(pairs):
        sides[place in held].extend(
            Candidate(matrix, precipitate, float(volume)) for volume in volumes[place]
        )
    return sides
