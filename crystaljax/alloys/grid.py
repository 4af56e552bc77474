"""The grid of phases for curation and searches.

After appendices A.1.1 and A.2 of arXiv 2511.12036, with step sizes as options.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, product
from types import MappingProxyType

import numpy as np

from crystaljax.alloys.engines.table import composition_key
from crystaljax.composition import atomic_number

Shares = tuple[tuple[tuple[float, ...], ...], ...]
"""Points of the grid (shares of the elements) for one element, for two, ..."""


@dataclass(frozen=True)
class Roles:
    """Elements of each phase. ValueError for none, unknown or repeated ones."""

    bcc: tuple[str, ...]
    """Elements of the BCC candidates."""
    first_site: tuple[str, ...]
    """Elements of one sublattice of the B2 candidates."""
    second_site: tuple[str, ...]
    """Elements of the other."""

    def __post_init__(self) -> None:
        for name in ("bcc", "first_site", "second_site"):
            elements = getattr(self, name)
            if not elements or len(set(elements)) < len(elements):
                raise ValueError(f"{name} must be different elements, not {elements}")
            for element in elements:
                atomic_number(element)
        if len({*self.first_site, *self.second_site}) < 2:
            raise ValueError(f"both sites of the B2 have {self.first_site[0]} alone: name another")


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

In "alcocrni" (of alcocrni.tdb) and "al-fe-mn-ti" every element may have every role. COST507.tdb has
all binaries of the latter, though FeTi as a phase of its own and not as B2. These are the two
spaces with B2 among pycalphad's databases. (In its mc_fecocrnbti.tdb BCC_B2 has only parameters of
Co-Fe. With BCC_A2 as its disordered part, order raises the energy of CoFe at 373 K and above, so
that nothing orders.) "paper" has the 19 elements of arXiv 2511.12036; their roles are inferred from
the paper's examples (MnAl2Fe, ZrTiRu2, Nb67Mo33, Cr33Fe67) and from known CsCl compounds.
"""


PAPER_LEVELS = (20, 25, 33, 40, 50, 67, 75)
"""Percentages of the elements of BCC candidates in arXiv 2511.12036 (A.2)."""


@dataclass(frozen=True)
class GridConfig:
    """Grid of phases to try. ValueError for numbers out of range."""

    roles: Roles = field(default_factory=lambda: ROLES["alcocrni"])
    """Elements of each phase."""
    most_bcc: int = 3
    """Largest number of elements in a BCC candidate."""
    most_site: int = 2
    """Largest number of elements on a sublattice of a B2 candidate."""
    parts: tuple[int, ...] = (20,)
    """Parts into which BCC compositions are divided, in whole per cent: (20,) is steps of 5 %;
    (2, 3) is halves and thirds, as in the paper's TiV and Cr33Fe67."""
    site_parts: tuple[int, ...] = (4,)
    """Parts into which a sublattice is divided: (2,) is equal shares, as in the paper's MnAl2Fe;
    (4,) is quarters."""
    site_ratio: int = 1
    """Sites of the first sublattice for each of the second: 3 for L1₂, as in Ni3Al."""
    levels: tuple[int, ...] = ()
    """Percentages that an element of a BCC candidate may have, to the nearest one. Not given:
    any."""

    def __post_init__(self) -> None:
        for name in ("most_bcc", "most_site", "site_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("parts", "site_parts"):
            if not getattr(self, name) or not all(1 <= n <= 100 for n in getattr(self, name)):
                raise ValueError(f"{name} must be numbers from 1 to 100, not {getattr(self, name)}")

    @cached_property
    def bcc_shares(self) -> Shares:
        """Shares of BCC compositions, in whole per cent."""
        most = min(self.most_bcc, len(self.roles.bcc))
        return tuple(
            tuple(dict.fromkeys(map(_per_cent, filter(self._allowed, _divisions(n, self.parts)))))
            for n in range(1, most + 1)
        )

    def _allowed(self, shares: Sequence[float]) -> bool:
        """Whether the shares of a BCC are allowed percentages."""
        return not self.levels or all(round(100 * share) in self.levels for share in shares)

    @cached_property
    def first_shares(self) -> Shares:
        """Shares of the first sublattice; they sum to 1."""
        return self._site_shares(len(self.roles.first_site))

    @cached_property
    def second_shares(self) -> Shares:
        """Shares of the second sublattice."""
        return self._site_shares(len(self.roles.second_site))

    def occupied(self, first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
        """Amounts of a precipitate from its shares on both sublattices."""
        return {e: self.site_ratio * share for e, share in first.items()} | dict(second)

    def _site_shares(self, n_elements: int) -> Shares:
        most = min(self.most_site, n_elements)
        return tuple(tuple(_divisions(n, self.site_parts)) for n in range(1, most + 1))


def paper_grid(roles: Roles) -> GridConfig:
    """The grid of A.2: BCC of two or three elements at `PAPER_LEVELS`, B2 of one or two per site.

    Each element of a BCC has one of these percentages, so that fifths, quarters, thirds and halves
    that sum to 100 are included; the elements of a site have equal shares (25 or 50 % of all). With
    the roles of `ROLES["paper"]` it has 1430 BCC and 675 B2 candidates; the paper has 2413 and
    1101. The paper does not say which elements have which role, which combinations were tried, and
    whether the known phases at the start (24 and 57) are counted. If n elements all combine, there
    are 5 C(n, 2) + 7 C(n, 3) BCC candidates of two or three elements, n of one, 5 C(n, 4) of four
    and C(n, 5) of five. No n gives 2413. The nearest is 2392, for two or three of 13 elements; the
    difference would be the single elements among the 24 known phases, if they were 21.
    Combinations of stable elements with each other and with metastable ones do not give it either,
    for any numbers up to 26. For B2, no numbers of elements of the first, the second and both sites
    (26 in total) give 1101, with each composition counted once or once per occupation of the sites,
    except 3, 14 and 3 if a B2 has at most three elements.
    """
    return GridConfig(roles, parts=(2, 3, 4, 5), site_parts=(2,), levels=PAPER_LEVELS)


def bcc_candidates(config: GridConfig) -> list[dict[str, float]]:
    """BCC compositions on the grid: whole per cents of one to `most_bcc` elements, each once."""
    found: dict[str, dict[str, float]] = {}
    for amounts in _occupations(config.roles.bcc, config.bcc_shares):
        found.setdefault(composition_key(amounts), amounts)
    return list(found.values())


def b2_candidates(config: GridConfig) -> list[dict[str, float]]:
    """B2 compositions of one to `most_site` elements per site (none on both sites), each once."""
    found: dict[str, dict[str, float]] = {}
    firsts = _occupations(config.roles.first_site, config.first_shares)
    seconds = list(_occupations(config.roles.second_site, config.second_shares))
    for first, second in product(firsts, seconds):
        if not set(first) & set(second):
            amounts = config.occupied(first, second)
            found.setdefault(composition_key(amounts), amounts)
    return list(found.values())


def _occupations(elements: Sequence[str], shares: Shares) -> Iterator[dict[str, float]]:
    """All choices of elements with all shares."""
    for n, grid in enumerate(shares, 1):
        for chosen in combinations(elements, n):
            for share in grid:
                yield dict(zip(chosen, share, strict=True))


def _divisions(n: int, parts: Sequence[int]) -> Iterator[tuple[float, ...]]:
    """n shares above zero that sum to 1, multiples of one of 1 / parts, each once."""
    seen = set()
    for whole in parts:
        for first in product(range(1, whole), repeat=n - 1):
            shares = tuple(k / whole for k in (*first, whole - sum(first)))
            if shares[-1] > 0 and shares not in seen:
                seen.add(shares)
                yield shares


def _per_cent(shares: Sequence[float]) -> tuple[float, ...]:
    """Shares in whole per cent that sum to 100, by largest remainder (the last of equal ones)."""
    exact = 100 * np.array(shares)
    numbers = np.floor(exact + 1e-9)
    left = round(100 - numbers.sum())
    # Thirds are cut equally, up to rounding errors.
    cut = np.round(exact - numbers, 6)[::-1]
    most = len(numbers) - 1 - np.argsort(-cut, kind="stable")[:left]
    numbers[most] += 1
    return tuple(numbers.tolist())
