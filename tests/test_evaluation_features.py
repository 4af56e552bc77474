"""Features of compositions and structures."""

import numpy as np
import pytest
from pymatgen.core import Element, Lattice, Structure
from scipy.spatial.distance import pdist

from crystaljax.composition import parse_formulas
from crystaljax.evaluation.features import (
    N_BINS,
    RANGE,
    FeatureSpace,
    composition_features,
    diversity,
    element_properties,
    novelty,
    structure_features,
)
from crystaljax.structures import from_structure


def rocksalt(a: float, first: str = "Na", second: str = "Cl") -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(a), [first, second], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


def test_compositions_by_hand() -> None:
    water, again, none = composition_features(
        parse_formulas(["H2O", "H4O2", "H"]) * [[1], [1], [0]]
    )
    n = element_properties().shape[1]
    electronegativity = 5
    h, o = Element("H").X, Element("O").X
    mean = (2 * h + o) / 3
    expected = [mean, (2 * abs(h - mean) + abs(o - mean)) / 3, h, o, h]
    np.testing.assert_allclose(water[electronegativity::n], expected)
    np.testing.assert_allclose(water, again)
    assert np.isnan(none).all()
    assert np.isfinite(element_properties()).all()


def test_structures_of_other_cells_sizes_and_elements_are_the_same() -> None:
    base = rocksalt(5.6)
    others = [base.get_primitive_structure(), base * (2, 1, 1), rocksalt(4.2, "Mg", "O")]
    found = structure_features([from_structure(s) for s in [base, *others]])
    np.testing.assert_allclose(found[1:], np.tile(found[0], (3, 1)), atol=1e-6)
    caesium = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    away = structure_features([from_structure(caesium), None])
    assert np.abs(away[0] - found[0]).max() > 0.5
    assert np.isnan(away[1]).all()


def test_radial_distribution_counts_neighbours() -> None:
    """Its integral over a shell is the coordination number: 6 in simple cubic, at distance 1."""
    cubic = Structure(Lattice.cubic(3), ["Po"], [[0, 0, 0]])
    (found,) = structure_features([from_structure(cubic)])
    r = (np.arange(N_BINS) + 0.5) * RANGE / N_BINS
    shell = np.abs(r - 1) < 0.2
    integral = (4 * np.pi * r**2 * (found + 1))[shell].sum() * RANGE / N_BINS
    assert integral == pytest.approx(6, rel=0.02)


def test_diversity_and_novelty() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    assert diversity(x).mean() == pytest.approx(pdist(x).mean())
    x[2] = np.nan
    expected = [np.linalg.norm(y - row, axis=1).min() for row in x]
    np.testing.assert_allclose(novelty(x, y), expected)
    assert np.isnan(novelty(x, y)[2]) and np.isnan(diversity(x)[2])
    assert np.isnan(diversity(x[:1])).all()


def test_scaled_by_the_reference() -> None:
    cells = [from_structure(rocksalt(5.6)), from_structure(rocksalt(5, "K", "Br"))]
    counts = parse_formulas(["NaCl", "KBr"]).astype(int)
    space = FeatureSpace.of("two", counts, [*cells])
    np.testing.assert_allclose(space.composition.std(axis=0).max(), 1)
    np.testing.assert_allclose(space.compositions(counts), space.composition)
    np.testing.assert_allclose(novelty(space.structures(cells), space.structure), 0, atol=1e-9)


def test_distances_that_the_reference_lacks_do_not_count_by_the_thousand() -> None:
    """Structures scatter by 1 on average, and one with close neighbours is some scatters away."""
    rng = np.random.default_rng(0)
    cells = []
    for _ in range(12):
        structure = rocksalt(5.6)
        structure.perturb(0.4, seed=int(rng.integers(1000)))
        cells.append(from_structure(structure))
    space = FeatureSpace.of("perturbed", parse_formulas(["NaCl"] * 12).astype(int), cells)
    assert space.structure.var(axis=0).mean() == pytest.approx(1)
    close = rocksalt(5.6)
    close.translate_sites([0], [0.25, 0, 0])  # 1.4 Å from a neighbour that was at 2.8
    away = novelty(space.structures([from_structure(close)]), space.structure)
    assert 1 < away[0] < 60
