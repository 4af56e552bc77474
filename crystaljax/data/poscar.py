"""Parser of POSCAR texts."""

from __future__ import annotations

import numpy as np

from crystaljax.composition import atomic_number
from crystaljax.crystal import AtomicCell
from crystaljax.data.cells import atomic_cell, cartesian_cell
from crystaljax.validity import check_lattice, require_few


def parse_poscar(text: str) -> AtomicCell:
    """The crystal of a POSCAR of VASP 5 or later (its sixth line names the elements).

    https://www.vasp.at/wiki/POSCAR. ValueError with the reason if it cannot be read.
    """
    lines = text.strip("\r\n").splitlines()
    try:
        scale = float(lines[1])
        matrix = np.array([line.split()[:3] for line in lines[2:5]], float)
        counts = [int(count) for count in lines[6].split()]
        symbols = lines[5].split()
        start = 8 if lines[7].strip().lower().startswith("s") else 7  # selective dynamics
        mode = lines[start].strip().lower()
    except (ValueError, IndexError):
        raise ValueError("no POSCAR with a line of elements (VASP 5 or later)") from None
    if len(counts) != len(symbols) or min(counts, default=0) < 1:
        raise ValueError(f"a POSCAR with the counts {lines[6]!r} of the elements {lines[5]!r}")
    require_few(sum(counts))
    if not np.isfinite(scale) or scale == 0:
        raise ValueError(f"no unit cell: the POSCAR's scale is {lines[1].strip()!r}")
    check_lattice(matrix)
    if scale < 0:  # the volume
        scale = float((-scale / abs(np.linalg.det(matrix))) ** (1 / 3))
    matrix *= scale
    rows = [line.split()[:3] for line in lines[start + 1 : start + 1 + sum(counts)]]
    if len(rows) < sum(counts) or any(len(row) < 3 for row in rows):
        raise ValueError(f"the POSCAR lists fewer positions than its {sum(counts)} atoms")
    positions = np.array(rows, float)
    species = np.repeat([atomic_number(symbol) for symbol in symbols], counts)
    if mode.startswith(("c", "k")):
        return cartesian_cell(matrix, positions * scale, species)
    return atomic_cell(matrix, positions, species)
