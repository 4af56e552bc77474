"""Sizes of atoms in BCC and FCC metals and in B2 and L1₂ compounds, from the literature."""

from __future__ import annotations

from pymatgen.core import Element

AVOGADRO = 6.02214076e23

_BCC_LATTICE = {
    "Al": 3.214, "Cr": 2.884, "Fe": 2.867, "Mo": 3.147, "Nb": 3.301, "Ta": 3.303, "Ti": 3.283,
    "V": 3.024, "W": 3.165, "Zr": 3.587,
}  # fmt: skip
# Å at 298 K: Lu, Selleby & Sundman, CALPHAD 29 (2005) 68.

_NOT_BCC = ("Ni", "Co", "Mn", "Ru", "Rh", "Ir", "Hf", "Zn", "Y")
# Of these the molar volume of the stable structure at 298 K is taken (pymatgen's
# `Element.molar_volume`): close-packed metals keep their volume within 3 % as BCC.

ATOMIC_VOLUME = {element: a**3 / 2 for element, a in _BCC_LATTICE.items()} | {
    element: float(Element(element).molar_volume) / AVOGADRO * 1e24 for element in _NOT_BCC
}
"""Å³ per atom of BCC metals at 298 K."""

THERMAL_EXPANSION = {
    element: float(Element(element).coefficient_of_linear_thermal_expansion)
    for element in ATOMIC_VOLUME
}
"""Linear thermal expansion of the elements, in 1/K at 25 °C, from pymatgen."""

_USUAL = {
    ("Al", "Co"): 2.862, ("Al", "Fe"): 2.909, ("Al", "Ni"): 2.887, ("Al", "Ru"): 2.99,
    ("Fe", "Ti"): 2.976, ("Ni", "Ti"): 3.015,
}  # fmt: skip
# Measured, near room temperature. Al-Ru: 7.96 g/cm³ of Al1.002Ru0.998, which is 2.989 Å (P. Villars
# & K. Cenzual, PAULING FILE, SpringerMaterials sd_1820459). Ni-Ti: austenite has 0.3015 nm
# (University of Cambridge, DoITPoMS, "Shape memory alloys"). The others are usual values; cells
# relaxed by DFT (Materials Project) agree with them within 0.04 Å. Of all but Al-Ru and Ni-Ti such
# cells are in MP-20; cells of these two relaxed by CHGNet 0.3.0, which learnt from the Materials
# Project's, have 2.999 and 3.004 Å.

_RELAXED = {
    ("Al", "Ir"): 3.018, ("Al", "Rh"): 3.007, ("Al", "Y"): 3.606, ("Co", "Hf"): 3.150,
    ("Co", "Mn"): 2.854, ("Mn", "Rh"): 3.045, ("Rh", "Y"): 3.444, ("Ru", "Ti"): 3.085,
    ("Ru", "V"): 3.015,
}  # fmt: skip
# Relaxed by DFT (PBE): the Materials Project's CsCl cells, as they are in MP-20 (CC BY 4.0).

B2_LATTICE = _USUAL | _RELAXED
"""Lattice parameters in Å of B2 compounds near room temperature, by elements in alphabetical order.
"""

_FCC_LATTICE = {"Al": 3.703, "Co": 3.544, "Cr": 3.634, "Ni": 3.524}
# Å at 298 K of FCC nickel, and with so much more for a mole fraction of 1 as the others add to γ:
# Al 0.179, Co 0.020, Cr 0.110: P. Caron, Superalloys 2000 (TMS), 737. Aluminium itself has 4.05.

FCC_VOLUME = ATOMIC_VOLUME | {element: a**3 / 4 for element, a in _FCC_LATTICE.items()}
"""Å³ per atom in FCC nickel at 298 K; for most elements the volume in another structure, as above.
"""

L12_LATTICE = {("Ni", "Al"): 3.570}
"""Lattice parameters in Å of L1₂ compounds A₃B near room temperature, by A and B. Ni3Al: P. Caron,
Superalloys 2000."""
