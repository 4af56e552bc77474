"""Canonical and random descriptions: the same crystal, and one canonical form for all."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystaljax.crystal import Crystals
from crystaljax.structures import to_structures
from crystaljax.symmetry import equivalence, orbits
from crystaljax.symmetry.equivalence import canonicalize, random_equivalent
from crystaljax.symmetry.tables import tables

LATTICES = np.array(
    [
        [5, 6, 7, 95, 103, 98],
        [7, 6, 5, 90, 103, 90],
        [6, 5, 7, 90, 90, 90],
        [5, 5, 7, 90, 90, 90],
        [5, 5, 7, 90, 90, 120],
        [5, 5, 7, 90, 90, 120],
        [5, 5, 5, 90, 90, 90],
    ],
    np.float32,
)


def random_crystals(seed: int, n_sites: int = 3, grid: int | None = None) -> Crystals:
    """A crystal in each group; coordinates are multiples of 1/grid where one is given."""
    rng = np.random.default_rng(seed)
    group = np.arange(1, 231)
    letters = rng.integers(1, tables().n_letters[:, None] + 1, (230, n_sites)).astype(np.int32)
    letters[:, 0] = 1 + (letters[:, 0] - 1) // 2  # more of the special positions
    letters.sort(axis=1)
    species = rng.integers(1, 4, letters.shape).astype(np.int32)
    repeats = (letters[:, 1:] == letters[:, :-1]) & ~tables().free[
        group[:, None] - 1, letters[:, 1:]
    ].any(-1)
    letters[:, 1:][repeats] = tables().n_letters[np.nonzero(repeats)[0]]
    letters.sort(axis=1)
    frac = rng.uniform(size=(230, n_sites, 3)).astype(np.float32)
    if grid:
        frac = np.round(frac * grid) / np.float32(grid)
    frac = np.array(orbits.project(group[:, None], letters, frac))
    return Crystals(group, letters, species, frac, LATTICES[tables().crystal_system])


def same(a: Crystals, b: Crystals) -> np.ndarray:
    """bool [B]: equal descriptions, coordinates and lengths to a tolerance."""
    difference = a.frac - b.frac
    difference -= np.round(difference)
    return (
        (a.space_group == b.space_group)
        & (a.wyckoff == b.wyckoff).all(1)
        & (a.species == b.species).all(1)
        & (np.abs(difference).max((1, 2)) < 1e-4)
        & (np.abs(a.lattice - b.lattice).max(1) < 1e-3)
    )


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.sampled_from([None, None, 7, 8, 12]))
def test_all_equivalents_have_one_canonical_form(seed, grid):
    crystals = random_crystals(seed, grid=grid)
    canonical = canonicalize(crystals)
    assert same(canonicalize(canonical), canonical).all()
    other = random_equivalent(np.random.default_rng(seed), crystals)
    assert same(canonicalize(other), canonical).all()


def test_descriptions_are_of_the_same_crystal():
    from pymatgen.analysis.structure_matcher import StructureMatcher

    crystals = random_crystals(5, n_sites=2)
    others = canonicalize(random_equivalent(np.random.default_rng(1), crystals))
    small = np.flatnonzero(np.asarray(orbits.n_atoms(crystals, primitive=True)) <= 8)
    assert len(small) > 60
    matcher = StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.1, scale=False)
    pairs = zip(
        to_structures(crystals[small], primitive=True),
        to_structures(others[small], primitive=True),
        strict=True,
    )
    failed = [row for row, (a, b) in zip(small, pairs, strict=True) if not matcher.fit(a, b)]
    assert failed == []


def test_descriptions_keep_distances_in_every_group():
    """Sorted interatomic distances tell crystals apart; they must not change at all."""
    crystals = random_crystals(6)
    other = random_equivalent(np.random.default_rng(2), crystals)
    size = int(orbits.n_atoms(crystals, primitive=True).max())
    for a, b in zip(_distances(crystals, size), _distances(other, size), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def _distances(crystals: Crystals, size: int) -> list[np.ndarray]:
    """Sorted distances of all pairs of atoms, those of different elements set apart."""
    cells = orbits.expand(crystals, size, primitive=True).to_numpy()
    images = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3)
    result = []
    for frac, species, matrix in zip(cells.frac, cells.species, cells.matrix, strict=True):
        atoms = species > 0
        points, kind = frac[atoms].astype(float), species[atoms] ** 2
        difference = points[:, None] - points
        difference -= np.round(difference)
        metric = matrix.astype(float) @ matrix.T
        images_of = difference[:, :, None] + images
        squares = np.einsum("ijkc,cd,ijkd->ijk", images_of, metric, images_of).min(-1)
        result.append(np.sort((np.sqrt(squares) + 100 * (kind[:, None] + kind)).ravel()))
    return result


def test_random_descriptions_reach_every_coset_and_representative():
    """P-1 with one atom at 1a: the eight inversion centres are equally likely."""
    one = Crystals(
        np.full(4000, 2),
        np.ones((4000, 1), np.int32),
        np.ones((4000, 1), np.int32),
        np.zeros((4000, 1, 3), np.float32),
        np.tile(LATTICES[0], (4000, 1)),
    )
    drawn = random_equivalent(np.random.default_rng(0), one)
    counts = np.bincount(drawn.wyckoff[:, 0], minlength=10)[1:9]
    assert counts.min() > 400 and counts.sum() == 4000
    # Pnma 4c (x, 1/4, z): four points of the orbit have this form, times four origins
    one = Crystals(
        np.full(4000, 62),
        np.full((4000, 1), 3, np.int32),
        one.species,
        np.tile(np.float32([0.1, 0.25, 0.2]), (4000, 1, 1)),
        np.tile(LATTICES[2], (4000, 1)),
    )
    drawn = random_equivalent(np.random.default_rng(0), one)
    assert (drawn.frac[:, 0, 1] == 0.25).all()
    points, counts = np.unique(drawn.frac[:, 0].round(4), axis=0, return_counts=True)
    assert len(points) == 16 and counts.min() > 180


def test_polar_origins_are_free_and_canonically_at_an_atom():
    wurtzite = Crystals(
        np.full(1000, 186),
        np.full((1000, 2), 2, np.int32),
        np.tile(np.array([[30, 16]], np.int32), (1000, 1)),
        np.tile(np.float32([[1 / 3, 2 / 3, 0.1], [1 / 3, 2 / 3, 0.475]]), (1000, 1, 1)),
        np.tile(LATTICES[5], (1000, 1)),
    )
    drawn = random_equivalent(np.random.default_rng(0), wurtzite)
    heights = drawn.frac[drawn.species == 30][:, 2]
    histogram = np.histogram(heights, bins=10, range=(0, 1))[0]
    assert histogram.min() > 60
    canonical = canonicalize(drawn)
    assert same(canonical, canonicalize(wurtzite)).all()
    assert (canonical.frac[:, :, 2].min(axis=1) == 0).all()


def test_sites_stand_in_order_and_on_their_positions():
    crystals = random_equivalent(np.random.default_rng(0), random_crystals(3, n_sites=5))
    for batch in (crystals, canonicalize(crystals)):
        group = batch.space_group[:, None]
        projected = np.asarray(orbits.project(group, batch.wyckoff, batch.frac))
        difference = projected - batch.frac
        assert np.abs(difference - np.round(difference)).max() < 1e-6
        keys = np.concatenate([batch.wyckoff[..., None], batch.frac.round(4)], axis=-1).tolist()
        assert all(row == sorted(row) for row in keys)


def test_rows_that_are_no_crystals_come_back_as_they_are():
    crystals = random_crystals(1)[:4]
    crystals.wyckoff[1, 2] = 20  # P-1 has nine letters
    crystals.space_group[2] = 0
    crystals.frac[3, 0, 0] = np.nan
    for result in (canonicalize(crystals), random_equivalent(np.random.default_rng(0), crystals)):
        for field in ("space_group", "wyckoff", "species", "frac", "lattice"):
            before, after = getattr(crystals, field)[1:], getattr(result, field)[1:]
            np.testing.assert_array_equal(after, before)
    assert len(canonicalize(crystals[:0])) == 0


def test_the_mirror_image_of_an_enantiomorph_keeps_its_group():
    crystals = random_crystals(2)
    drawn = random_equivalent(np.random.default_rng(4), crystals)
    np.testing.assert_array_equal(drawn.space_group, crystals.space_group)


@pytest.mark.parametrize("grid", [None, 4])
def test_first_sites_rule_out_no_canonical_description(
    monkeypatch: pytest.MonkeyPatch, grid: int | None
) -> None:
    """Ruling out descriptions by their first sites changes no result, in any group."""
    crystals = random_crystals(5, n_sites=6, grid=grid)
    monkeypatch.setattr(equivalence, "MANY_SITES", 10**9)
    expected = canonicalize(crystals)
    monkeypatch.setattr(equivalence, "MANY_SITES", 0)
    found = canonicalize(crystals)
    for field in ("wyckoff", "species", "frac", "lattice"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


def large(n: int, n_species: int, layered: bool = False) -> Crystals:
    """A crystal of P1 with n atoms around the points of a grid."""
    rng = np.random.default_rng(n)
    k = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(k)] * 3), axis=-1).reshape(-1, 3)[:n]
    jitter = rng.uniform(-0.2, 0.2, (n, 3)) * [not layered, 1, 1]
    frac = ((grid + 0.5 + jitter) / k).astype(np.float32)
    species = rng.integers(1, n_species + 1, (1, n)).astype(np.int32)
    lattice = np.array([[k * 3, k * 3.1, k * 3.2, 88, 91, 94]], np.float32)
    return Crystals(np.ones(1, int), np.ones((1, n), np.int32), species, frac[None], lattice)


@pytest.mark.parametrize(
    ("n", "n_species", "layered"), [(216, 1, False), (216, 2, False), (125, 1, True)]
)
def test_large_cells_have_the_same_canonical_form_as_before(
    monkeypatch: pytest.MonkeyPatch, n: int, n_species: int, layered: bool
) -> None:
    crystals = large(n, n_species, layered)
    found = canonicalize(crystals)
    other = random_equivalent(np.random.default_rng(0), crystals)
    assert same(canonicalize(other), found).all()
    monkeypatch.setattr(equivalence, "MANY_SITES", 10**9)
    assert same(canonicalize(crystals), found).all()


def test_thousands_of_sites_take_seconds_and_little_memory() -> None:
    """All descriptions together would be millions of sites: gigabytes."""
    crystals = large(3000, 1)
    tracemalloc.start()
    found = canonicalize(crystals)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6
    assert np.abs(found.frac[0, 0]).max() == 0
    assert (np.diff(found.frac[0, :, 0]) > -1e-4).all()  # in order, but for ties


def test_a_large_crystal_does_not_widen_the_others() -> None:
    """Rows are handled fewer at a time where one has very many sites; the results are theirs."""
    few = random_crystals(0)[:20]
    both = Crystals.concatenate([few, large(1000, 3), few])
    found = canonicalize(both)
    assert same(found[:20].with_slots(3), canonicalize(few)).all()
    assert same(found[21:].with_slots(3), canonicalize(few)).all()
