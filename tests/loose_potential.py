"""The text of a file with a potential of a user's own."""

POTENTIAL = '''
import numpy as np
from crystaljax.rewards.potentials.base import Energies, Relaxed
from crystaljax.structures import to_cells
from crystaljax.validity import structure_valid


class Loose:
    """The larger the volume of an atom, the lower its energy; tin has none."""

    name, level, elements = "loose", "MP", np.arange(1, 119)

    def energies(self, crystals):
        cells = to_cells(crystals, True) if hasattr(crystals, "lattice") else crystals
        cells = list(cells)
        value = np.array([-abs(np.linalg.det(c.matrix)) / len(c.species) / 1e3 for c in cells])
        reasons = ["tin" if (c.species == 50).any() else None for c in cells]
        ok = np.array([x is None for x in reasons], bool)
        return Energies(np.where(ok, value, np.nan), ok, reasons)

    def relax(self, crystals, *, fmax=0.02, max_steps=500):
        found = self.energies(crystals)
        cells = [c if ok else None for c, ok in zip(crystals, found.ok)]
        steps = np.where(found.ok, 3, 0)
        e = found.energy
        return Relaxed(cells, e, e.copy(), steps, found.ok, found.ok, found.reasons)
'''
