"""Displacements on whole arrays against StructureMatcher.get_rms_dist, pair by pair."""

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from crystaljax.data.prototypes import prototypes
from crystaljax.evaluation.displacement import rms_displacement
from crystaljax.evaluation.matching import StructureSet
from crystaljax.evaluation.rejection import Tolerances
from crystaljax.structures import to_structures

CSP = Tolerances(0.3, 0.5, 10.0)


def both_ways(
    pairs: list[tuple[Structure, Structure]], tolerances: Tolerances
) -> tuple[np.ndarray, np.ndarray]:
    """Displacements [N] of pairs, ours and pymatgen's; nan where they do not match."""
    matcher = StructureMatcher(**tolerances._asdict())
    sets = [StructureSet.from_structures([p[i] for p in pairs], "") for i in (0, 1)]
    first, second = (s.reduce(range(len(pairs))) for s in sets)
    ours = [rms_displacement(first[i], second[i], tolerances) for i in range(len(pairs))]
    theirs = [matcher.get_rms_dist(*pair) for pair in pairs]
    return np.array(ours), np.array([np.nan if r is None else r[0] for r in theirs])


def shaken(
    structure: Structure, rng: np.random.Generator, strain: float, noise: float
) -> Structure:
    copy = structure.copy()
    copy.apply_strain(rng.uniform(-strain, strain, 3))
    copy.perturb(rng.uniform(0, noise), seed=int(rng.integers(1 << 30)))
    copy.scale_lattice(copy.volume * rng.uniform(0.7, 1.5))
    return copy


@pytest.mark.parametrize("tolerances", [CSP, Tolerances()])
def test_as_pymatgen(tolerances: Tolerances) -> None:
    rng = np.random.default_rng(0)
    structures = [s for s in to_structures(prototypes(1).crystals, primitive=True) if s is not None]
    structures = [s for s in structures if len(s) <= 10]
    chosen = [structures[i] for i in rng.choice(len(structures), 40, replace=False)]
    pairs = [(shaken(s, rng, 0.2, 1.0), s) for s in chosen]
    # Of one composition, and other structures: with the elements of the first.
    by_counts: dict[tuple, list[Structure]] = {}
    for s in structures:
        kinds, numbers = np.unique(np.array(s.atomic_numbers), return_counts=True)
        names = dict(zip([str(s.species[0].from_Z(int(z))) for z in kinds], "CNOFPS", strict=False))
        copy = s.copy()
        copy.replace_species(names)
        by_counts.setdefault(tuple(numbers.tolist()), []).append(copy)
    alike = [group[:4] for group in by_counts.values() if len(group) > 1][:6]
    pairs += [(a, b) for group in alike for a in group for b in group if a is not b]
    ours, theirs = both_ways(pairs, tolerances)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert 0.1 < np.isnan(theirs).mean() < 0.9


def test_displacement_of_known_size() -> None:
    """Rocksalt with one atom off by d along x: half of it after the drift is taken off."""
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()
    moved = salt.copy()
    moved.translate_sites([0], [0.4, 0, 0], frac_coords=False)
    edge = (salt.volume / 2) ** (1 / 3)
    (found,), (expected,) = both_ways([(moved, salt)], CSP)
    assert found == pytest.approx(0.2 / edge, abs=1e-4)
    assert found == pytest.approx(expected, abs=1e-9)


def test_atoms_outside_the_box_are_not_assigned() -> None:
    """Where the least sum of distances has atoms outside the box that stol sets, another wins.

    In some of these perturbed chains, drift decides between that assignment and one inside.
    """
    sites = [[x / 9, -x / 9, z / 2] for x, z in ((0, 0), (6, 0), (4, 1), (3, 0), (1, 1), (7, 1))]
    lattice = Lattice.from_parameters(8.2, 8.2, 5, 90, 90, 158)
    chain = Structure(lattice, ["Li"] * 3 + ["Mg"] * 3, sites)
    pairs = []
    for seed in (*range(40, 60), 180, 331, 353):
        copy = chain.copy()
        copy.apply_strain([-0.09, 0.065, -0.017])
        copy.perturb(0.41, seed=seed)
        pairs.append((copy, chain))
    ours, theirs = both_ways(pairs, CSP)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_other_compositions_and_needles() -> None:
    """Other compositions never match; what arrays cannot hold is left to pymatgen."""
    salt = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    other = Structure(Lattice.cubic(4), ["Na", "Na"], [[0, 0, 0], [0.5, 0.5, 0.3]])
    needle = Structure(Lattice.orthorhombic(3, 3, 40), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    pairs = [(salt, other), (needle, salt), (needle, needle)]
    ours, theirs = both_ways(pairs, CSP)
    assert np.isnan(ours[:2]).all() and ours[2] < 1e-6
    np.testing.assert_array_equal(np.isnan(ours[1:]), np.isnan(theirs[1:]))
