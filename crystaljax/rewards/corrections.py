"""MP2020 energy corrections (Wang et al., Sci. Rep. 11, 15496, 2021), for batches of crystals.

The Materials Project adds them to PBE and PBE+U energies. Energies of a potential that was trained
without them need them before they are compared with a hull of that project. The rules are those of
pymatgen's `MaterialsProject2020Compatibility` with its defaults, and its numbers are read from
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from crystaljax.composition import N_SPECIES, SYMBOLS, atomic_number, formula
from crystaljax.crystal import AtomicCell
from crystaljax.rewards.potentials.screening import neighbors

HYDROGEN, OXYGEN, SULFUR = 1, 8, 16

PEROXIDE_BOND, SUPEROXIDE_BOND, HYDROXIDE_BOND = 1.05 * 1.49, 1.05 * 1.35, 1.05 * 0.93
"""Å: an oxide with shorter O-O (or O-H) distances is a peroxide, a superoxide or a hydroxide."""

COORDINATION_REACH = 0.4
"""Å: atoms up to this much farther than its nearest neighbour are neighbours of a sulfur atom."""

MAX_AROUND = 4
"""The nearest atoms around a sulfur atom that decide what it is."""

MAX_GUESSED_ATOMS = 20
"""Largest formula unit whose oxidation states are guessed; larger ones would take too long."""


class CorrectionTable(NamedTuple):
    """The corrections, in eV per atom of an element."""

    oxide: dict[str, float]
    """Correction of an oxygen atom, by the kind of oxide."""
    sulfide: float
    """Correction of a sulfur atom, except in a sulfate."""
    anions: np.ndarray
    """float64 [119]: corrections of the other elements as anions; 0 for those without one."""
    mixing: dict[int, np.ndarray]
    """Corrections for mixing PBE+U with PBE, float64 [119] by element; the key is the most
    electronegative element."""
    electronegativity: np.ndarray
    """float64 [119]: electronegativities by Pauling; −inf where there is none."""


@cache
def table() -> CorrectionTable:
    """The corrections as pymatgen has them."""
    from pymatgen.core import Element
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    scheme = MaterialsProject2020Compatibility()
    kinds = ("oxide", "peroxide", "superoxide", "ozonide")
    anions = np.zeros(N_SPECIES)
    for symbol, value in scheme.comp_correction.items():
        if symbol not in (*kinds, "S"):
            anions[atomic_number(symbol)] = value
    mixing = {}
    for anion, values in scheme.u_corrections.items():
        mixing[atomic_number(anion)] = np.zeros(N_SPECIES)
        for symbol, value in values.items():
            mixing[atomic_number(anion)][atomic_number(symbol)] = value
    pauling = np.full(N_SPECIES, -np.inf)
    for z, symbol in enumerate(SYMBOLS, start=1):
        pauling[z] = Element(symbol).data.get("X") or -np.inf
    oxide = {kind: scheme.comp_correction[kind] for kind in kinds}
    return CorrectionTable(oxide, scheme.comp_correction["S"], anions, mixing, pauling)


def mp2020_correction(cells: Sequence[AtomicCell | None]) -> np.ndarray:
    """The correction of B crystals in eV/atom: float64 [B], nan for None.

    O-O distances distinguish oxides, peroxides, superoxides and ozonides. The neighbours of sulfur
    distinguish sulfides and sulfates. Other anions are corrected where their guessed oxidation
    state is −1 or lower, or, if there is no guess below 0, where they are the most electronegative
    element. If two elements are equally electronegative, as silicon and technetium, both are
    corrected (pymatgen: the one that the formula names last). The +U corrections are for oxides and
    fluorides. Pure elements have none.
    """
    known = [i for i, cell in enumerate(cells) if cell is not None]
    result = np.full(len(cells), np.nan)
    if not known:
        return result
    present = [cell for cell in cells if cell is not None]
    counts = np.stack([np.bincount(cell.species, minlength=N_SPECIES) for cell in present])
    counts = counts.astype(float)
    total = _anions(counts) + _mixing(counts)
    total += counts[:, OXYGEN] * [
        table().oxide[oxide_kind(cell)] if row[OXYGEN] else 0
        for cell, row in zip(present, counts, strict=True)
    ]
    total += counts[:, SULFUR] * [
        table().sulfide if row[SULFUR] and not is_sulfate(cell) else 0
        for cell, row in zip(present, counts, strict=True)
    ]
    is_element = (counts > 0).sum(axis=1) == 1
    result[known] = np.where(is_element, 0, total / counts.sum(axis=1))
    return result


def _anions(counts: np.ndarray) -> np.ndarray:
    """Corrections [B] of anions but oxygen and sulfur, eV per cell."""
    values, pauling = table().anions, table().electronegativity
    total = np.zeros(len(counts))
    for row in np.flatnonzero((counts[:, values != 0] > 0).any(axis=1)):
        present = counts[row] > 0
        states = _oxidation_states(formula(counts[row]))
        strongest = pauling[present].max()
        for z in np.flatnonzero(present & (values != 0)):
            state = states.get(SYMBOLS[z - 1], 0)
            if state <= -1 or (state >= 0 and pauling[z] == strongest):
                total[row] += values[z] * counts[row, z]
    return total


@lru_cache(maxsize=100_000)
def _oxidation_states(text: str) -> dict[str, float]:
    """pymatgen's likeliest oxidation states of a formula; none where it has no guess."""
    from pymatgen.core import Composition

    composition = Composition(text)
    if composition.reduced_composition.num_atoms > MAX_GUESSED_ATOMS:
        return {}
    guesses = composition.oxi_state_guesses(max_sites=-MAX_GUESSED_ATOMS)
    return dict(guesses[0]) if guesses else {}


def _mixing(counts: np.ndarray) -> np.ndarray:
    """Corrections [B] that bring PBE+U and PBE together, eV per cell."""
    pauling = np.where(counts > 0, table().electronegativity, -np.inf)
    strongest = pauling.argmax(axis=1)
    total = np.zeros(len(counts))
    for z, values in table().mixing.items():
        total += np.where(strongest == z, counts @ values, 0)
    return total


def oxide_kind(cell: AtomicCell) -> str:
    """ "oxide" (hydroxides too), "peroxide", "superoxide" or "ozonide", by the O-O distances."""
    edges = neighbors(cell, PEROXIDE_BOND)
    center, other = cell.species[edges.center], cell.species[edges.neighbor]
    to_hydrogen = (center == OXYGEN) & (other == HYDROGEN) & (edges.distance < HYDROXIDE_BOND)
    if to_hydrogen.any():
        return "oxide"
    between = (center == OXYGEN) & (other == OXYGEN)
    bonded = edges.center[between & (edges.distance < SUPEROXIDE_BOND)]
    if len(bonded):
        return "ozonide" if len(np.unique(bonded)) < len(bonded) else "superoxide"
    return "peroxide" if (between & (edges.distance < PEROXIDE_BOND)).any() else "oxide"


def is_sulfate(cell: AtomicCell) -> bool:
    """Whether the atoms around some sulfur atom are more electronegative, on average, than it."""
    pauling = table().electronegativity
    reach = 4.0
    edges = neighbors(cell, reach)
    atoms = np.flatnonzero(cell.species == SULFUR)
    longest = 2 * np.linalg.norm(cell.matrix, axis=1).max()
    while not np.isin(atoms, edges.center).all() and reach < longest:
        reach *= 2
        edges = neighbors(cell, reach)
    for atom in atoms:
        mine = edges.center == atom
        order = np.argsort(edges.distance[mine], kind="stable")[:MAX_AROUND]
        distance = edges.distance[mine][order]
        around = cell.species[edges.neighbor[mine][order]]
        around = around[distance < distance[:1] + COORDINATION_REACH]
        if len(around) and pauling[around].mean() > pauling[SULFUR]:
            return True
    return False
