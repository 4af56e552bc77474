"""Tests of atomic cells, and of atoms on one position."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crystaljax import validity
from crystaljax.crystal import AtomicCell
from crystaljax.validity import SAME_POSITION, check_cell


@pytest.mark.parametrize("few", [0, 64])
def test_coinciding_atoms_against_pymatgen(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the tree as by comparing all pairs, in cells of every shape."""
    monkeypatch.setattr(validity, "FEW_ATOMS", few)
    rng = np.random.default_rng(0)
    for _ in range(200):
        matrix = Lattice.from_parameters(*rng.uniform(2, 40, 3), *rng.uniform(62, 115, 3)).matrix
        frac = rng.uniform(-1, 2, (12, 3))
        step = rng.normal(size=3)
        step *= SAME_POSITION * rng.choice([0.5, 0.98, 1.02, 3]) / np.linalg.norm(step)
        frac[7] = frac[3] + rng.integers(-2, 3, 3) + np.linalg.solve(matrix.T, step)
        distances = Structure(matrix, ["H"] * 12, frac).distance_matrix
        closest = np.min(distances[np.triu_indices(12, 1)])
        cell = AtomicCell(matrix, frac, np.full(12, 1))
        if closest < SAME_POSITION:
            with pytest.raises(ValueError, match="atoms 3 and 7"):
                check_cell(cell)
        else:
            assert check_cell(cell) is cell
