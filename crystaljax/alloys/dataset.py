"""Training data for models that propose alloys: phases on a grid, paired, and written as texts.

After appendix A.2 of arXiv 2511.12036: candidates of BCC and of B2 are made on a grid, kept where
an engine finds one phase (`curation`), and paired with several B2 volumes each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from types import MappingProxyType
from typing import Literal

import numpy as np

from crystaljax.alloys.composition import (
    Candidate,
    write_formula,
    write_percentages,
)
from crystaljax.alloys.table import composition_key
from crystaljax.text.examples import Chat, Example
from crystaljax.text.prompts import PromptTemplate

NORMAL_MEAN = 0.45
"""Mean of the B2 volume fractions, where they are drawn from a normal distribution."""


@dataclass(frozen=True)
class Roles:
    """Which elements each phase may have."""

    bcc: tuple[str, ...]
    """Elements of the BCC candidates."""
    first_site: tuple[str, ...]
    """Elements of one sublattice of the B2 candidates."""
    second_site: tuple[str, ...]
    """Elements of the other."""


def _all(*elements: str) -> Roles:
    return Roles(elements, elements, elements)


ROLES: Mapping[str, Roles] = MappingProxyType(
    {
        "alcocrni": _all("Al", "Co", "Cr", "Ni"),
        "al-fe-mn-ti": _all("Al", "Fe", "Mn", "Ti"),
        "paper": Roles(
            ("Ti", "V", "Cr", "Mn", "Fe", "Zr", "Nb", "Mo", "Hf", "Ta", "W"),
            ("Al", "Ti", "Y", "Zr", "Hf"),
            ("Cr", "Mn", "Fe", "Co", "Ni", "Zn", "Ru", "Rh", "Ir"),
        ),
    }
)
"""Sets of roles by name.

In "alcocrni" (of alcocrni.tdb) and "al-fe-mn-ti" (whose binaries COST507.tdb has all, though
FeTi as a phase of its own and not as B2) every element may be anywhere. "paper" has the 19 elements
of arXiv 2511.12036; who is where is inferred, from the paper's examples (MnAl2Fe, ZrTiRu2,
Nb67Mo33, Cr33Fe67) and from known CsCl compounds.
"""


@dataclass(frozen=True)
class GridConfig:
    """Which phases are tried."""

    roles: Roles = field(default_factory=lambda: ROLES["alcocrni"])
    """Which elements each phase may have."""
    most_bcc: int = 3
    """Most elements of a BCC candidate."""
    most_site: int = 2
    """Most elements of a sublattice of a B2 candidate."""
    parts: tuple[int, ...] = (20,)
    """Parts into which BCC compositions are divided, in whole per cent: (20,) is steps of 5 %;
    (2, 3) is halves and thirds, as in the paper's TiV and Cr33Fe67."""
    site_parts: tuple[int, ...] = (4,)
    """Parts into which a sublattice is divided: (2,) is equal shares, as in the paper's MnAl2Fe;
    (4,) is quarters."""

    def __post_init__(self) -> None:
        for name in ("parts", "site_parts"):
            numbers = getattr(self, name)
            if not numbers or not all(1 <= n <= 100 for n in numbers):
                raise ValueError(f"{name} must be numbers from 1 to 100, and are {numbers}")


@dataclass(frozen=True)
class PairsConfig:
    """How phases are paired."""

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


def bcc_candidates(config: GridConfig) -> list[dict[str, float]]:
    """BCC compositions on the grid: whole per cents of one to `most_bcc` elements, each once."""
    found: dict[str, dict[str, float]] = {}
    for n in range(1, config.most_bcc + 1):
        for elements in combinations(config.roles.bcc, n):
            for shares in _divisions(n, config.parts):
                amounts = dict(zip(elements, _per_cent(shares), strict=True))
                found.setdefault(composition_key(amounts), amounts)
    return list(found.values())


def b2_candidates(config: GridConfig) -> list[dict[str, float]]:
    """B2 compositions with one to `most_site` elements on each site, none on both, each once."""
    found: dict[str, dict[str, float]] = {}
    roles = config.roles
    sites = (list(_sites(elements, config)) for elements in (roles.first_site, roles.second_site))
    for first, second in product(*sites):
        if not set(first) & set(second):
            amounts = first | second
            found.setdefault(composition_key(amounts), amounts)
    return list(found.values())


def _sites(elements: Sequence[str], config: GridConfig) -> Iterator[dict[str, float]]:
    """Occupations of a sublattice, which sum to 1."""
    for n in range(1, config.most_site + 1):
        for chosen in combinations(elements, n):
            for shares in _divisions(n, config.site_parts):
                yield dict(zip(chosen, shares, strict=True))


def _divisions(n: int, parts: Sequence[int]) -> Iterator[tuple[float, ...]]:
    """n shares above zero that sum to 1, multiples of one of 1 / parts, each once."""
    seen = set()
    for whole in parts:
        for first in product(range(1, whole), repeat=n - 1):
            shares = tuple(k / whole for k in (*first, whole - sum(first)))
            if shares[-1] > 0 and shares not in seen:
                seen.add(shares)
                yield shares


def _per_cent(shares: Sequence[float]) -> list[float]:
    """Shares in whole per cent that sum to 100: by largest remainder, of equal ones the last."""
    exact = 100 * np.array(shares)
    numbers = np.floor(exact + 1e-9)
    left = round(100 - numbers.sum())
    # Thirds are cut equally, up to rounding errors.
    cut = np.round(exact - numbers, 6)[::-1]
    most = len(numbers) - 1 - np.argsort(-cut, kind="stable")[:left]
    numbers[most] += 1
    return [float(number) for number in numbers]


def candidates(
    bcc: Sequence[Mapping[str, float]],
    b2: Sequence[Mapping[str, float]],
    config: PairsConfig = PairsConfig(),
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
        drawn = random.normal(NORMAL_MEAN, config.spread, (len(pairs), n)).clip(low, high)
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


def alloy_fields(candidate: Candidate) -> dict[str, str]:
    """What templates of alloys say of a candidate: "bcc" (in per cent), "b2" and "volume"."""
    return {
        "bcc": write_percentages(candidate.bcc),
        "b2": write_formula(candidate.b2),
        "volume": f"{candidate.b2_volume:.1f}",
    }


def alloy_prompt_fields(elements: Collection[str]) -> dict[str, str]:
    """What templates of alloys ask with: "elements", from which to choose."""
    return {"elements": ", ".join(elements)}


def alloy_examples(
    candidates: Sequence[Candidate],
    template: PromptTemplate,
    elements: Collection[str],
    *,
    chat: bool = False,
) -> list[Example | Chat]:
    """Examples to learn from, or chats for models that chat, one of each candidate.

    `elements`: those that the prompt allows. ValueError: the template needs another field.
    """
    asked = alloy_prompt_fields(elements)
    make = template.chat if chat else template.example
    return [make(asked | alloy_fields(candidate)) for candidate in candidates]
