"""Sizes of atoms in BCC metals and B2 compounds, from the literature."""

from __future__ import annotations

AVOGADRO = 6.02214076e23

_BCC_LATTICE = {
    "Al": 3.214, "Cr": 2.884, "Fe": 2.867, "Mo": 3.147, "Nb": 3.301, "Ta": 3.303, "Ti": 3.283,
    "V": 3.024, "W": 3.165, "Zr": 3.587,
}  # fmt: skip
# Å at 298 K: Lu, Selleby & Sundman, CALPHAD 29 (2005) 68.

_MOLAR_VOLUME = {
    "Ni": 6.59, "Co": 6.67, "Mn": 7.35, "Ru": 8.17, "Rh": 8.28, "Ir": 8.52, "Hf": 13.44,
    "Zn": 9.16, "Y": 19.88,
}  # fmt: skip
# cm³/mol of the stable structure at 298 K (pymatgen's Element.molar_volume, from webelements.com),
# for metals that are not BCC there: close-packed metals keep their volume within 3 % as BCC.

ATOMIC_VOLUME = {element: a**3 / 2 for element, a in _BCC_LATTICE.items()} | {
    element: volume / AVOGADRO * 1e24 for element, volume in _MOLAR_VOLUME.items()
}
"""Å³ of an atom of BCC metal at 298 K."""

THERMAL_EXPANSION = {
    "Al": 23.1, "Ti": 8.6, "V": 8.4, "Cr": 4.9, "Mn": 21.7, "Fe": 11.8, "Co": 13.0, "Ni": 13.4,
    "Zn": 30.2, "Y": 10.6, "Zr": 5.7, "Nb": 7.3, "Mo": 4.8, "Ru": 6.4, "Rh": 8.2, "Hf": 5.9,
    "Ta": 6.3, "W": 4.5, "Ir": 6.4,
}  # fmt: skip
"""Linear, in 1e-6/K at 25 °C: CRC Handbook of Chemistry and Physics, "Thermal and physical
properties of pure metals"."""

B2_LATTICE = {
    ("Al", "Co"): 2.862,
    ("Al", "Fe"): 2.909,
    ("Al", "Ni"): 2.887,
    ("Al", "Ru"): 2.989,
    ("Fe", "Ti"): 2.976,
    ("Ni", "Ti"): 3.015,
}
"""Å at room temperature: Villars & Calvert, Pearson's Handbook of Crystallographic Data for
Intermetallic Phases, 2nd ed. (1991); Al-Ru: density 7.96 g/cm³ of PAULING FILE sd_1820459."""
