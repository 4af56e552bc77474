"""Every table entry against pyxtal, and against spglib, which has tables of its own."""

import dataclasses
import string
import time

import numpy as np
import pytest

from crystaljax.crystal import Crystals
from crystaljax.symmetry import orbits
from crystaljax.symmetry import tables as module
from crystaljax.symmetry.tables import letter, letter_index, tables

STANDARD_CHOICES = ("", "b", "b1", "H", "2")
"""spglib's names of the standard settings: no choice, axis b, hexagonal axes, origin 2."""

METRICS = np.array(
    [
        [7.1, 8.3, 9.7, 95, 103, 98],
        [7.1, 8.3, 9.7, 90, 97, 90],
        [7.1, 8.3, 9.7, 90, 90, 90],
        [7.1, 7.1, 9.7, 90, 90, 90],
        [7.1, 7.1, 9.7, 90, 90, 120],
        [7.1, 7.1, 9.7, 90, 90, 120],
        [7.1, 7.1, 7.1, 90, 90, 90],
    ],
    np.float32,
)


def operations(number: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and translations (24ths) of one position."""
    start = tables().op_start[number - 1, w]
    rows = slice(start, start + tables().multiplicity[number - 1, w])
    shifts = np.round(tables().translation[rows] * 24).astype(int)
    return tables().rotation[rows].astype(int), shifts


def as_set(rotations: np.ndarray, translations: np.ndarray) -> set[tuple[int, ...]]:
    """Operations as hashable integers, translations in 24ths modulo 24."""
    rows = zip(rotations, translations, strict=True)
    return {(*r.ravel().astype(int).tolist(), *(t.astype(int) % 24).tolist()) for r, t in rows}


@pytest.fixture(scope="module")
def halls() -> dict[int, int]:
    """spglib's Hall number of each group's standard setting."""
    import spglib

    found: dict[int, int] = {}
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        if kind.choice in STANDARD_CHOICES:
            found.setdefault(kind.number, hall)
    return found


def test_every_position_against_pyxtal():
    from pyxtal.symmetry import Group

    checked = 0
    for number in range(1, 231):
        group = Group(number)
        i = number - 1
        assert tables().symbol[i] == group.symbol
        assert tables().n_letters[i] == len(list(group))
        assert module.SYSTEMS[tables().crystal_system[i]] == group.lattice_type.replace(
            "rhombohedral", "trigonal"
        )
        assert (tables().multiplicity[i] > 0).sum() == tables().n_letters[i]
        for w, position in enumerate(reversed(list(group)), start=1):
            position.get_site_symmetry()
            assert position.letter == letter(w)
            assert tables().multiplicity[i, w] == position.multiplicity
            assert tables().site_symmetry[i, w] == position.site_symm
            assert tables().free[i, w].sum() == position.get_dof()
            assert tables().n_free[i, w] == position.get_dof()
            rotations, shifts = operations(number, w)
            theirs = np.array([op.rotation_matrix for op in position.ops])
            np.testing.assert_array_equal(rotations, theirs)
            vectors = np.array([op.translation_vector for op in position.ops]) * 24
            np.testing.assert_array_equal(shifts, np.round(vectors).astype(int) % 24)
            constant = [not any(c in part for c in "xyz") for part in first_triplet(position)]
            np.testing.assert_array_equal(tables().varying[i, w], ~np.array(constant))
            checked += 1
    assert checked == 1731


def first_triplet(position) -> list[str]:
    """The first operation as three strings."""
    return position.ops[0].as_xyz_str().split(",")


def test_every_group_against_spglib(halls):
    import spglib

    assert sorted(halls) == list(range(1, 231))
    for number, hall in halls.items():
        database = spglib.get_symmetry_from_database(hall)
        shifts = np.round(database["translations"] * 24)
        theirs = as_set(database["rotations"], shifts)
        assert as_set(*operations(number, tables().n_letters[number - 1])) == theirs
        kind = spglib.get_spacegroup_type(hall)
        assert tables().symbol[number - 1][0] == kind.international_short[0]
        distinct = {rotation.tobytes() for rotation in database["rotations"]}
        assert int(tables().n_centering[number - 1]) * len(distinct) == len(theirs)


def every_position_occupied() -> Crystals:
    """A crystal in each group: element w at each position w, three more at general points."""
    group = np.arange(1, 231)
    letters = np.where(np.arange(1, 31) <= tables().n_letters[:, None], np.arange(1, 31), 0)
    species = letters.copy()
    letters[:, 27:] = tables().n_letters[:, None]
    species[:, 27:] = [100, 101, 102]
    letters[tables().n_letters > 6, 27:] = 0
    frac = np.random.default_rng(3).uniform(size=(230, 30, 3)).astype(np.float32)
    return Crystals(group, letters, species, frac, METRICS[tables().crystal_system])


def test_letters_and_site_symmetries_against_spglib(halls):
    """spglib may move the origin, which permutes letters as an element of the normaliser does."""
    import spglib

    cells = orbits.expand(every_position_occupied(), 1024, primitive=True).to_numpy()
    for i in range(230):
        n = cells.n_atoms[i]
        cell = cells.matrix[i].astype(float), cells.frac[i, :n].astype(float), cells.species[i, :n]
        dataset = spglib.get_symmetry_dataset(cell, symprec=1e-4, hall_number=halls[i + 1])
        assert dataset is not None and dataset.number == i + 1
        found = np.zeros(module.N_LETTERS, int)
        for z, name, site_symmetry in zip(
            cell[2].tolist(), dataset.wyckoffs, dataset.site_symmetry_symbols, strict=True
        ):
            found[min(z, tables().n_letters[i])] = letter_index(name)
            assert tables().site_symmetry[i, letter_index(name)] == site_symmetry
        elements = tables().equivalent_start[i] + np.arange(tables().n_equivalents[i])
        assert (tables().equivalent_letter[elements] == found).all(axis=1).any()


def test_normaliser_elements_map_the_group_onto_itself():
    """The identity comes first; each map takes a position's orbits to orbits of the same size."""
    general = tables().n_letters
    for number in range(1, 231):
        own = as_set(*operations(number, general[number - 1]))
        start = tables().equivalent_start[number - 1]
        count = tables().n_equivalents[number - 1]
        letters = tables().equivalent_letter[start : start + count]
        assert (np.sort(letters, axis=1) == np.sort(letters[0])).all()
        assert (letters[0, 1 : general[number - 1] + 1] == np.arange(general[number - 1]) + 1).all()
        sizes = tables().multiplicity[number - 1]
        np.testing.assert_array_equal(sizes[letters], np.tile(sizes, (count, 1)))
        for element in range(start, start + count):
            linear = tables().equivalent_rotation[element, general[number - 1]].astype(int)
            shift = tables().equivalent_translation[element, general[number - 1]]
            shift = np.round(shift * 24).astype(int)
            inverse = np.round(np.linalg.inv(linear)).astype(int)
            rotations, shifts = operations(number, general[number - 1])
            conjugates = linear @ rotations @ inverse
            moved = shifts @ linear.T + shift - conjugates @ shift
            assert as_set(conjugates, moved) == own


@pytest.mark.parametrize(
    "number, index",
    [
        (1, 2),
        (2, 8),
        (16, 96),
        (47, 48),
        (62, 8),
        (123, 4),
        (166, 2),
        (215, 4),
        (216, 8),
        (225, 2),
        (227, 2),
    ],
)
def test_normaliser_indices_of_ita(number, index):
    """Indices in the Euclidean normaliser (ITA tables 3.5.2.3-5), polar shifts left out.

    In orthorhombic groups times the permutations of axes that keep the group: 6 in 16 and 47.
    """
    assert tables().n_equivalents[number - 1] == index


def test_tables_are_small_and_quick():
    size = sum(array.nbytes for array in vars(tables()).values())
    assert size < 10e6
    assert module.PATH.stat().st_size < 1e6
    tables.cache_clear()
    start = time.process_time()  # other processes do not count
    tables()
    assert time.process_time() - start < 0.2


def test_letters_and_their_indices():
    assert [letter_index(c) for c in string.ascii_lowercase + "A"] == list(range(1, 28))
    assert [letter(i) for i in (1, 26, 27)] == ["a", "z", "A"]
    for wrong in ("B", "", "ab", "1"):
        with pytest.raises(ValueError, match="not a Wyckoff letter"):
            letter_index(wrong)
    for wrong_index in (0, 28):
        with pytest.raises(ValueError, match="not the index"):
            letter(wrong_index)


def test_tables_match_their_build_script_on_a_sample():
    from crystaljax.symmetry.build_tables import check_position, read_group

    symbol, positions = read_group(227)
    assert symbol == tables().symbol[226]
    centring = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    general = positions[-1]
    check_position(general, centring)
    shuffled = np.arange(192).reshape(4, 48).T.ravel()
    translates_first = dataclasses.replace(
        general, rotation=general.rotation[shuffled], translation=general.translation[shuffled]
    )
    with pytest.raises(ValueError, match="not primitive first"):
        check_position(translates_first, centring)
