"""Tests of crystaljax.evaluation.matching against plain StructureMatcher on all pairs."""

import time

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from crystaljax.crystal import Crystals
from crystaljax.data.prototypes import prototypes
from crystaljax.evaluation.matching import (
    StructureSet,
    clusters,
    first_matches,
    novel_mask,
    once,
    rms_to_relaxed,
    unique_mask,
)
from crystaljax.evaluation.rejection import may_match
from crystaljax.structures import to_structures


@pytest.fixture(scope="module")
def confusing() -> list[Structure]:
    """Small structures of few formulas, many alike: strained, shaken, in other cells, scaled."""
    rng = np.random.default_rng(0)
    crystals = prototypes(1).crystals
    structures = [s for s in to_structures(crystals, primitive=True) if len(s) <= 8][:60]
    elements = ["C", "Si", "O"]
    made = []
    for structure in structures:
        kinds = sorted({site.specie.symbol for site in structure})
        if len(kinds) > 3:
            continue
        names = dict(zip(kinds, elements, strict=False))
        base = structure.copy()
        base.replace_species(names)
        for _ in range(3):
            copy = base.copy()
            copy.apply_strain(rng.uniform(-0.06, 0.06, 3))
            copy.perturb(rng.uniform(0, 0.3), seed=int(rng.integers(1 << 30)))
            if rng.random() < 0.3 and len(copy) < 5:
                copy = copy * (2, 1, 1)
            copy.scale_lattice(copy.volume * rng.uniform(0.5, 2))
            made.append(copy)
    rng.shuffle(made)  # type: ignore[arg-type]
    return made


def test_novel_as_all_pairs(confusing: list[Structure]) -> None:
    samples, reference = confusing[:60], confusing[60:120]
    found = first_matches(
        StructureSet.from_structures(samples, "samples"),
        StructureSet.from_structures(reference, "reference"),
    )
    matcher = StructureMatcher()
    expected = []
    for sample in samples:
        matches = (i for i, other in enumerate(reference) if matcher.fit(other, sample))
        expected.append(next(matches, -1))
    np.testing.assert_array_equal(found, expected)
    assert 0.2 < (found < 0).mean() < 0.9  # the sets are such that both happen


def test_clusters_as_group_structures(confusing: list[Structure]) -> None:
    samples = StructureSet.from_structures(confusing[:90], "samples")
    found = clusters(samples)
    reduced = samples.reduce(range(90))
    in_order = sorted(range(90), key=lambda row: reduced[row].order)
    position = {id(confusing[row]): row for row in in_order}
    expected = np.full(90, -1)
    for group in StructureMatcher().group_structures([confusing[row] for row in in_order]):
        rows = [position[id(s)] for s in group]
        expected[rows] = rows[0]
    np.testing.assert_array_equal(found, expected)
    assert 0.1 < unique_mask(samples).mean() < 0.9
    assert unique_mask(samples).sum() == len(np.unique(expected))


def test_clusters_do_not_depend_on_the_order(confusing: list[Structure]) -> None:
    samples = confusing[:90]
    order = np.random.default_rng(1).permutation(90)
    found = clusters(StructureSet.from_structures(samples, "samples"))
    shuffled = clusters(StructureSet.from_structures([samples[i] for i in order], "samples"))
    np.testing.assert_array_equal(order[shuffled], found[order])


def test_of_a_cluster_one_counts_if_one_has_it_all() -> None:
    cluster = np.array([2, 0, 2, 2, -1, 0])
    mask = np.array([False, False, True, True, True, False])
    np.testing.assert_array_equal(np.flatnonzero(once(mask, cluster)), [2])
    assert once(np.ones(6, bool), cluster).sum() == 2


def test_cheap_tests_reject_only_what_cannot_match(confusing: list[Structure]) -> None:
    structures = StructureSet.from_structures(confusing[:70], "samples")
    reduced = structures.reduce(range(70))
    matcher = StructureMatcher()
    rejected = 0
    for i, first in reduced.items():
        for j, second in reduced.items():
            if structures.formulas[i] == structures.formulas[j]:
                if may_match(first, second):
                    continue
                rejected += 1
                args = (first.structure, second.structure)
                assert not matcher.fit(*args, skip_structure_reduction=True)
    assert rejected > 500


def test_crystals_and_their_other_cells() -> None:
    crystals = prototypes(1).crystals[:60]
    twice = Crystals.concatenate([crystals, crystals[:30]])
    samples = StructureSet.from_crystals(twice, "samples")
    cluster = clusters(samples)
    np.testing.assert_array_equal(cluster[60:], cluster[:30])
    assert not unique_mask(samples)[60:].any()  # the first of each two is the one
    reference = StructureSet.from_structures(to_structures(crystals[:30]), "conventional cells")
    novel = novel_mask(samples, reference)
    assert not novel[:30].any()
    assert not novel[60:].any()
    assert novel[30:60].mean() > 0.8
    assert not samples.failures


def test_polymorphs_are_not_the_same() -> None:
    cubic = Structure(Lattice.cubic(4.2), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    rocksalt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.6), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    swapped = Structure(cubic.lattice, ["Cl", "Cs"], cubic.frac_coords)
    structures = StructureSet.from_structures([cubic, rocksalt, swapped], "CsCl")
    cluster = clusters(structures)
    assert cluster[0] == cluster[2] != cluster[1]


def test_no_structure_costs_only_itself() -> None:
    good = Structure(Lattice.cubic(4), ["Cu"], [[0, 0, 0]])
    needle = Structure(Lattice.orthorhombic(0.1, 0.1, 5000), ["Cu"], [[0, 0, 0]])
    flat = Structure(np.ones((3, 3)), ["Cu"], [[0, 0, 0]])
    samples = StructureSet.from_structures([None, needle, good, flat, good], "samples")
    np.testing.assert_array_equal(clusters(samples), [-1, -1, 2, -1, 2])
    assert samples.failures[0] == "no atoms"
    assert "elongated" in samples.failures[1]
    assert set(samples.failures) == {0, 1, 3}
    reference = StructureSet.from_structures([needle, None], "reference")
    np.testing.assert_array_equal(novel_mask(samples, reference), [0, 0, 1, 0, 1])
    assert 0 in reference.failures


def test_long_supercells_are_compared_as_primitive_cells() -> None:
    """Their lattice is too elongated to be compared, and that of the crystal is not."""
    cell = Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    long = Structure(Lattice.tetragonal(3.5, 210), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    samples = StructureSet.from_structures([cell, cell * (1, 1, 60), long], "samples")
    assert clusters(samples).tolist() == [0, 0, -1]
    assert "elongated" in samples.failures[2]


def test_slow_comparisons_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    def slow(*_: object, **__: object) -> bool:
        end = time.thread_time() + 60
        while time.thread_time() < end:
            pass
        waited.append("to the end")
        return True

    monkeypatch.setattr(StructureMatcher, "fit", slow)
    copper = Structure(Lattice.cubic(4), ["Cu"], [[0, 0, 0]])
    gold = Structure(Lattice.cubic(4), ["Au"], [[0, 0, 0]])
    samples = StructureSet.from_structures([copper, copper, gold], "samples", seconds=2)
    np.testing.assert_array_equal(unique_mask(samples), [True, False, True])
    assert "2 s" in samples.failures[1]
    assert not waited


def test_the_reference_is_reduced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    crystals = prototypes(1).crystals[:20]
    reference = StructureSet.from_crystals(crystals, "reference")
    novel_mask(StructureSet.from_crystals(crystals, "samples"), reference)

    reduce = StructureSet._reduce

    def check(self: StructureSet, structures: dict) -> None:
        assert not (self is reference and structures)
        reduce(self, structures)

    monkeypatch.setattr(StructureSet, "_reduce", check)
    novel_mask(StructureSet.from_crystals(crystals, "samples"), reference)


def test_rms_is_that_of_the_matcher() -> None:
    structures = [s for s in to_structures(prototypes(1).crystals[:40]) if len(s) <= 12]
    relaxed = []
    for i, structure in enumerate(structures):
        copy = structure.copy()
        copy.perturb(0.1, seed=i)
        relaxed.append(None if i == 0 else copy)
    structures[1] = None  # type: ignore[call-overload]
    structures[2] = Structure(Lattice.cubic(4), ["Cu"], [[0, 0, 0]])
    found, reasons = rms_to_relaxed(structures, relaxed)
    assert reasons == {}
    assert np.isnan(found[:3]).all()
    for i in range(3, len(structures)):
        unit = (relaxed[i].volume / len(relaxed[i])) ** (1 / 3)
        expected = StructureMatcher().get_rms_dist(relaxed[i], structures[i])
        if expected is None:
            assert np.isnan(found[i])
        else:
            assert found[i] == pytest.approx(expected[0] * unit)
    assert np.isfinite(found).mean() > 0.5
    assert 0 < np.nanmean(found) <= 0.1
