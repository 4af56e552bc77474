"""Chemical elements and compositions: symbols, formulas and element counts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from functools import cache, lru_cache

import numpy as np

from crystaljax.crystal import Crystals

N_SPECIES = 119
"""Length of the element axis of count arrays: index = atomic number, 0 stays empty."""

SYMBOLS: tuple[str, ...] = tuple(
    (  # noqa: SIM905 (a table reads better so)
        "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As "
        "Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu "
        "Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np "
        "Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
    ).split()
)
"""Symbols of elements 1-118: `SYMBOLS[z - 1]`."""

_ATOMIC_NUMBER = {symbol: z for z, symbol in enumerate(SYMBOLS, start=1)}

# Pauling electronegativities of elements 1-118 (CRC Handbook; 9 where none is tabulated), which
# put the elements of a formula in the customary order: cations first.
# fmt: off
_ELECTRONEGATIVITY = np.array([
    2.2, 9, 0.98, 1.57, 2.04, 2.55, 3.04, 3.44, 3.98, 9, 0.93, 1.31, 1.61, 1.9, 2.19, 2.58, 3.16, 9,
    0.82, 1, 1.36, 1.54, 1.63, 1.66, 1.55, 1.83, 1.88, 1.91, 1.9, 1.65, 1.81, 2.01, 2.18, 2.55,
    2.96, 3, 0.82, 0.95, 1.22, 1.33, 1.6, 2.16, 1.9, 2.2, 2.28, 2.2, 1.93, 1.69, 1.78, 1.96, 2.05,
    2.1, 2.66, 2.6, 0.79, 0.89, 1.1, 1.12, 1.13, 1.14, 1.13, 1.17, 1.2, 1.2, 1.1, 1.22, 1.23, 1.24,
    1.25, 1.1, 1.27, 1.3, 1.5, 2.36, 1.9, 2.2, 2.2, 2.28, 2.54, 2, 1.62, 2.33, 2.02, 2, 2.2, 2.2,
    0.7, 0.9, 1.1, 1.3, 1.5, 1.38, 1.36, 1.28, *[1.3] * 9, *[9] * 15,
])
# fmt: on

_TOKEN = re.compile(r"([A-Z][a-z]?)|(\d+\.?\d*|\.\d+)|([(\[{])|([)\]}])")


def symbol(z: int) -> str:
    """Symbol of the element of atomic number `z`; ValueError outside 1-118."""
    if not 1 <= z <= len(SYMBOLS):
        raise ValueError(f"no element has the atomic number {z}: give one from 1 (H) to 118 (Og)")
    return SYMBOLS[z - 1]


def atomic_number(symbol: str) -> int:
    """Atomic number of an element's symbol; ValueError naming an unknown one."""
    if symbol in _ATOMIC_NUMBER:
        return _ATOMIC_NUMBER[symbol]
    hint = symbol.strip().capitalize()
    advice = f"did you mean {hint!r}?" if hint in _ATOMIC_NUMBER else "write for example Fe or Cl"
    raise ValueError(
        f"unknown element {symbol!r}: {advice} (symbols are one capital letter, then at most one"
        " small letter, from H to Og)"
    )


@lru_cache(maxsize=1 << 16)
def _parse(formula: str) -> tuple[tuple[int, float], ...]:
    """(atomic number, amount) pairs of a formula, by one pass with a stack of open groups."""
    stack: list[dict[int, float]] = [{}]
    last: dict[int, float] = {}  # what a number after it multiplies
    position = 0
    text = formula.replace(" ", "")
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"{text[position]!r} is neither element, number nor parenthesis")
        element, number, opening, closing = match.groups()
        if element:
            last = {atomic_number(element): 1.0}
        elif number:
            if not last:
                raise ValueError(f"the number {number} follows no element or group")
            last = {z: amount * (float(number) - 1) for z, amount in last.items()}
        elif opening:
            stack.append({})
            last = {}
        elif closing:
            if len(stack) == 1:
                raise ValueError("a parenthesis is closed that was never opened")
            last = stack.pop()
        for z, amount in last.items():
            stack[-1][z] = stack[-1].get(z, 0.0) + amount
        if number:
            last = {}
        position = match.end()
    if len(stack) > 1:
        raise ValueError("a parenthesis is never closed")
    counts = {z: amount for z, amount in stack[0].items() if amount > 0}
    if not counts:
        raise ValueError("it holds no element")
    return tuple(counts.items())


def parse_formula(formula: str) -> np.ndarray:
    """Amounts of the elements in a formula such as "Ba2NaOsO6" or "Ca(OH)2".

    Returns float64 [119], indexed by atomic number. ValueError naming the formula if it cannot
    be read.
    """
    return parse_formulas([formula])[0]


def parse_formulas(formulas: Iterable[str]) -> np.ndarray:
    """Amounts of the elements in N formulas: float64 [N, 119]; ValueError as `parse_formula`."""
    formulas = list(formulas)
    counts = np.zeros((len(formulas), N_SPECIES))
    for row, formula in zip(counts, formulas, strict=True):
        try:
            pairs = _parse(formula)
        except (ValueError, AttributeError) as error:  # AttributeError: an empty cell, not a text
            raise ValueError(f"cannot read the formula {formula!r}: {error}") from error
        for z, amount in pairs:
            row[z] = amount
    return counts


@cache
def covalent_radii() -> np.ndarray:
    """Covalent radii in Å by atomic number: float64 [119] (Cordero et al., Dalton Trans. 2008)."""
    import gemmi

    return np.array([0.0] + [gemmi.Element(z).covalent_r for z in range(1, len(SYMBOLS) + 1)])


@cache
def mendeleev_numbers() -> np.ndarray:
    """Pettifor's Mendeleev numbers by atomic number: float64 [119], 0 where there is none."""
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of elements that have none
        numbers = [Element(symbol).mendeleev_no for symbol in SYMBOLS]
    return np.nan_to_num(np.array([0.0, *numbers], float))


def element_counts(crystals: Crystals) -> np.ndarray:
    """Atoms of each element in the conventional cell: int32 [B, 119], indexed by atomic number.

    A slot whose space group or letter does not exist counts no atoms.
    """
    from crystaljax.symmetry.tables import tables

    multiplicity = tables().multiplicity
    group = np.asarray(crystals.space_group)
    letter = np.asarray(crystals.wyckoff)
    species = np.asarray(crystals.species)
    known = ((group >= 1) & (group <= len(multiplicity)))[:, None]
    known = known & (letter >= 0) & (letter < multiplicity.shape[1])
    known &= (species > 0) & (species < N_SPECIES)
    n_atoms = multiplicity[np.where(known, group[:, None] - 1, 0), np.where(known, letter, 0)]
    n_atoms = np.where(known, n_atoms, 0)
    cells = np.arange(len(group))[:, None] * N_SPECIES + np.where(known, species, 0)
    totals = np.bincount(cells.ravel(), n_atoms.ravel(), minlength=len(group) * N_SPECIES)
    return totals.reshape(len(group), N_SPECIES).astype(np.int32)


def formula(counts: np.ndarray) -> str:
    """Reduced formula of whole numbers of atoms [119], cations first: "NaCl"; "" for none."""
    numbers = np.asarray(counts, dtype=np.int64)
    if not numbers.any():
        return ""
    numbers = numbers // np.gcd.reduce(numbers)
    ordered = in_order(numbers).items()
    return "".join(f"{SYMBOLS[z - 1]}{n if n > 1 else ''}" for z, n in ordered)


def in_order(counts: np.ndarray) -> dict[int, int]:
    """Atoms [119] by atomic number, those that there are, cations first."""
    present = np.flatnonzero(counts)
    order = present[np.lexsort((present, _ELECTRONEGATIVITY[present - 1]))]
    return dict(zip(order.tolist(), counts[order].tolist(), strict=True))


def formulas(crystals: Crystals) -> list[str]:
    """Reduced formula of each crystal, cations first."""
    return [formula(row) for row in element_counts(crystals)]


def groups_by_formula(counts: np.ndarray, groups: np.ndarray) -> dict[str, list[int]]:
    """Space groups of crystals by their reduced formulas, from atoms [B, 119] and groups [B]."""
    found: dict[str, list[int]] = {}
    for row, group in zip(counts, np.asarray(groups).tolist(), strict=True):
        found.setdefault(formula(row), []).append(group)
    return found
