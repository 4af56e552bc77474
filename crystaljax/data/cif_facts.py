"""Checks of a CIF's volume, formula and Z against the atoms that were read."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from crystaljax.composition import N_SPECIES, formula, parse_formula
from crystaljax.data.cif_sites import number

ROUNDING = 0.7
"""Tolerance of amounts in a formula with two decimals or more, in units of the last decimal."""

VOLUME_TOLERANCE = 0.005
"""Relative tolerance of a stated volume: cell parameters and volumes are rounded."""


def check_volume(volume: float, stated: str) -> None:
    """ValueError unless a cell's volume (Å³) equals the stated one within its precision."""
    value = number(stated)
    decimals = len(stated.partition("(")[0].partition(".")[2])
    if abs(volume - value) > VOLUME_TOLERANCE * volume + 10.0**-decimals:
        raise ValueError(
            f"the cell's volume is {volume:.2f} Å³, but _cell_volume says {stated}: one of its"
            " parameters, or the volume, is wrong"
        )


def check_composition(species: np.ndarray, stated: str, z: float) -> None:
    """ValueError unless the atoms are Z formula units.

    Args:
      species: int [N], the atoms of the cell.
      stated: the formula, "" if there is none; an unreadable one is ignored. It may be that of the
        cell or of a formula unit, reduced or rounded; deuterium counts as hydrogen.
      z: formula units in the cell, nan if not stated. The unit is the formula or a whole fraction
        of it: files give the contents of the cell beside Z of the reduced formula.
    """
    counts = np.bincount(species, minlength=N_SPECIES).astype(float)
    z = z if z >= 1 else float("nan")
    readings = _readings(stated)
    if not readings:
        if np.isfinite(z) and (counts % z).any():
            raise ValueError(
                f"the cell holds {formula(counts)} with {len(species)} atoms, which is not"
                f" {z:g} formula units as _cell_formula_units_Z says"
            )
        return
    fitting = [
        (amounts, units)
        for amounts, error in readings
        if (units := _units(counts, amounts, error)) is not None
    ]
    if not fitting:
        raise ValueError(
            f"the atoms read are {formula(counts)}, but _chemical_formula_sum says {stated!r}"
        )
    if np.isfinite(z) and not any(_is_units(z, *fit) for fit in fitting):
        raise ValueError(
            f"the cell holds {formula(counts)} with {len(species)} atoms, but {stated!r} with"
            f" Z = {z:g} is stated"
        )


@lru_cache(maxsize=4096)
def _readings(text: str) -> list[tuple[np.ndarray, float]]:
    """Possible amounts [119] of a formula, each with its rounding errors."""
    text = re.sub(r"(?<=\d)\(\d+\)", "", text)  # an uncertainty
    texts = [re.sub(r"[DT](?![a-z])", "H", text)]
    if text.upper() == text:  # NA1 CL1
        texts.append(" ".join(part.capitalize() for part in text.split()))
    decimals = [len(digits) for digits in re.findall(r"\.(\d+)", text)]
    error = ROUNDING * 10.0 ** -min(decimals) if min(decimals, default=0) > 1 else 0.0
    readings = []
    for reading in texts:
        try:
            readings.append((parse_formula(reading), error))
        except ValueError:
            continue
    return readings


def _units(counts: np.ndarray, amounts: np.ndarray, error: float) -> tuple[float, float] | None:
    """Smallest and largest possible number of formula units in the counts [119]; None if none."""
    there = np.flatnonzero(counts)
    counts, stated = counts[there], amounts[there]
    if not stated.all() or amounts.sum() > stated.sum() + error:
        return None
    low = float((counts / (stated + error)).max())
    high = float((counts / np.maximum(stated - error, 1e-9)).min())
    return (low * (1 - 1e-9), high * (1 + 1e-9)) if low <= high * (1 + 1e-9) else None


def _is_units(z: float, amounts: np.ndarray, units: tuple[float, float]) -> bool:
    """Whether the cell can be z units, each of these amounts [119] or a whole fraction of them."""
    part = max(round(z / units[1]), 1)
    return units[0] <= z / part <= units[1] and (part == 1 or not (amounts % part).any())
