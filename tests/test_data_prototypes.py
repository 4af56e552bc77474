"""The embedded dataset."""

import numpy as np
import pytest
from pymatgen.core import Element

from crystaljax.composition import SYMBOLS, element_counts
from crystaljax.data.dataset import load
from crystaljax.data.prototypes import FAMILIES, prototypes, substitutions
from crystaljax.data.rows import Dataset
from crystaljax.structures import to_structures


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load("prototypes")


def test_size_and_variety(dataset: Dataset) -> None:
    assert len(dataset) > 1500
    assert len(set(dataset.properties["prototype"].tolist())) > 240
    assert (dataset.space_group_counts > 0).sum() > 80
    assert dataset.crystals.n_sites.max() <= 20
    assert len(set(dataset.ids.tolist())) == len(dataset)
    assert {"Cinnabar", "Wurtzite"} <= set(dataset.properties["mineral"].tolist())


def test_the_seed_decides() -> None:
    """Same seed, same variants, however many are asked for; another seed, others."""
    few, more, other = (prototypes.__wrapped__(n, seed) for n, seed in ((2, 1), (3, 1), (2, 2)))
    rows = np.flatnonzero(np.isin(more.ids, few.ids))
    assert more.ids[rows].tolist() == few.ids.tolist()
    np.testing.assert_array_equal(more.crystals.lattice[rows], few.crystals.lattice)
    assert len(np.intersect1d(few.ids, other.ids)) < 0.8 * len(few)


def test_variants_keep_symmetry_and_distances_are_sensible(dataset: Dataset) -> None:
    rows = np.random.default_rng(0).choice(len(dataset), 60, replace=False)
    rows = rows[np.asarray(dataset.crystals.n_sites[rows]) <= 8]
    structures = to_structures(dataset.crystals[rows])
    groups = [s.get_space_group_info(symprec=0.01)[1] for s in structures]
    np.testing.assert_array_equal(groups, dataset.crystals.space_group[rows])
    assert (
        min(s.distance_matrix[~np.eye(len(s), dtype=bool)].min(initial=9) for s in structures) > 0.7
    )


def test_every_variant_is_of_its_prototypes_families(dataset: Dataset) -> None:
    family = {symbol: i for i, names in enumerate(FAMILIES) for symbol in names}
    classes = np.array([200] + [family.get(symbol, 20 + z) for z, symbol in enumerate(SYMBOLS)])
    counts = element_counts(dataset.crystals)
    number = np.array([int(id.split("-")[1]) for id in dataset.ids])
    for start in np.flatnonzero(np.diff(number, prepend=-1)):
        rows = np.flatnonzero(number == number[start])
        wanted = sorted((classes[z], counts[start, z]) for z in np.flatnonzero(counts[start]))
        for row in rows:
            found = sorted((classes[z], counts[row, z]) for z in np.flatnonzero(counts[row]))
            assert found == wanted


def test_substitutions_are_different_and_bounded() -> None:
    rng = np.random.default_rng(0)
    titanium = substitutions(np.array([22]), 9, rng)
    assert sorted(int(m[22]) for m in titanium) == [22, 40, 72]  # Ti, Zr, Hf: no more exist
    hydrogen = substitutions(np.array([1]), 9, rng)
    assert len(hydrogen) == 1
    pair = substitutions(np.array([26, 27]), 50, rng)
    chosen = {(int(m[26]), int(m[27])) for m in pair}
    assert len(chosen) == 50
    assert all(a != b for a, b in chosen)


def test_families_are_of_one_block() -> None:
    names = [symbol for family in FAMILIES for symbol in family]
    assert len(set(names)) == len(names)
    for family in FAMILIES:
        blocks = {Element(symbol).block for symbol in family}
        assert len(blocks - {"f"}) <= 1
        groups = {Element(symbol).group for symbol in family}
        assert len(groups) == 1 or groups <= {8, 9, 10} or "La" in family
