"""Formation energies from elemental reference energies."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np

from crystaljax.composition import N_SPECIES, SYMBOLS, atomic_number


@cache
def _mp_references() -> np.ndarray:
    text = files("crystaljax.rewards").joinpath("mp_elemental_references.json").read_text("utf-8")
    energies = np.full(N_SPECIES, np.nan)
    for symbol, energy in json.loads(text)["energies"].items():
        energies[atomic_number(symbol)] = energy
    energies.flags.writeable = False
    return energies


def mp_references() -> np.ndarray:
    """Elemental reference energies of the Materials Project: float64 [119] in eV/atom.

    Indexed by atomic number; nan for the elements (beyond Pu, Po, At, ...) that have none. They
    are the energies of the most stable elemental entries of the release of 2023-02-07 (no element
    has an MP2020 correction), as distributed with matbench-discovery (CC BY 4.0). Read-only.
    """
    return _mp_references()


def formation_energy(
    counts: np.ndarray, energy_per_atom: np.ndarray, references: np.ndarray | None = None
) -> np.ndarray:
    """Formation energy in eV/atom: the energy minus that of the same atoms in their elements.

    `counts` [B, 119] atoms of each element, `energy_per_atom` [B] in eV/atom, `references` [119]
    in eV/atom (default: the Materials Project's). Returns float64 [B], nan where an element has
    no reference (`missing_elements` says which) or there are no atoms.
    """
    references = mp_references() if references is None else np.asarray(references, np.float64)
    counts = np.asarray(counts, np.float64)
    lacking = (counts > 0) & np.isnan(references)
    with np.errstate(invalid="ignore"):  # no atoms: 0 / 0 = nan is the answer
        reference = counts @ np.nan_to_num(references) / counts.sum(axis=1)
    energy = np.asarray(energy_per_atom, np.float64) - reference
    return np.where(lacking.any(axis=1), np.nan, energy)


def missing_elements(counts: np.ndarray, references: np.ndarray | None = None) -> list[list[str]]:
    """Symbols of the elements in each row of `counts` [B, 119] that `references` [119] lacks."""
    references = mp_references() if references is None else references
    lacking = (np.asarray(counts) > 0) & np.isnan(references)
    return [[SYMBOLS[z - 1] for z in np.flatnonzero(row)] for row in lacking]
