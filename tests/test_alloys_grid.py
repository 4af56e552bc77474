"""The grid of phases, by brute force and as the paper's examples have it."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.alloys.composition import (
    PAPER_ELEMENTS,
    fractions,
    write_formula,
    write_percentages,
)
from crystaljax.alloys.engines.table import composition_key
from crystaljax.alloys.grid import ROLES, GridConfig, Roles, b2_candidates, bcc_candidates

SMALL = Roles(("Cr", "Fe"), ("Al",), ("Co", "Ni", "Al"))


def test_grid_of_bcc() -> None:
    quarters = GridConfig(SMALL, parts=(4,))
    found = [write_percentages(one) for one in bcc_candidates(quarters)]
    assert found == ["Cr", "Fe", "Cr25Fe75", "CrFe", "Cr75Fe25"]


def test_the_papers_grid_has_its_examples() -> None:
    grid = GridConfig(ROLES["paper"], parts=(2, 3), site_parts=(2,))
    bcc = {frozenset(one.items()) for one in bcc_candidates(grid)}
    for example in ({"Cr": 33, "Fe": 67}, {"Nb": 67, "Mo": 33}, {"Ti": 50, "V": 50}):
        assert frozenset(example.items()) in bcc
    assert frozenset({"V": 33, "Nb": 33, "Mo": 34}.items()) in bcc
    n = len(ROLES["paper"].bcc)
    assert len(bcc) == n + 3 * n * (n - 1) // 2 + n * (n - 1) * (n - 2) // 6
    b2 = {frozenset(fractions(one).items()) for one in b2_candidates(grid)}
    for example in ({"Mn": 0.25, "Al": 0.5, "Fe": 0.25}, {"Zr": 0.25, "Ti": 0.25, "Ru": 0.5}):
        assert frozenset(example.items()) in b2


def test_roles_of_the_paper_have_its_elements() -> None:
    roles = ROLES["paper"]
    assert {*roles.bcc, *roles.first_site, *roles.second_site} == set(PAPER_ELEMENTS)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=3), st.integers(1, 3))
def test_grids_are_complete_and_whole(parts: list[int], most: int) -> None:
    roles = Roles(("Cr", "Fe", "V"), ("Al",), ("Ni",))
    found = bcc_candidates(GridConfig(roles, most_bcc=most, parts=tuple(parts)))
    assert all(sum(one.values()) == 100 for one in found)
    assert all(value == int(value) > 0 for one in found for value in one.values())
    keys = [composition_key(one) for one in found]
    assert len(set(keys)) == len(keys)
    # By brute force over all shares, of which each is on the grid within a per cent.
    expected = set()
    for n in parts:
        for shares in product(range(n + 1), repeat=3):
            if sum(shares) == n and sum(k > 0 for k in shares) <= most:
                expected.add(tuple(Fraction(k, n) for k in shares))
    rows = np.array([[one.get(e, 0) for e in roles.bcc] for one in found]) / 100
    for shares in expected:
        assert np.abs(rows - np.array(shares, float)).max(axis=1).min() < 0.01
    assert len(found) <= len(expected)


def test_sites_of_b2() -> None:
    halves = GridConfig(SMALL, site_parts=(2,))
    found = [write_formula(one) for one in b2_candidates(halves)]
    assert found == ["AlCo", "AlNi", "Al2CoNi"]
    quarters = GridConfig(SMALL, site_parts=(4,))
    found = [write_formula(one) for one in b2_candidates(quarters)]
    assert found == ["AlCo", "AlNi", "Al4CoNi3", "Al2CoNi", "Al4Co3Ni"]
    both = GridConfig(Roles(("Cr",), ("Al", "Ni"), ("Al", "Ni")), most_site=1)
    assert [write_formula(one) for one in b2_candidates(both)] == ["AlNi"]


def test_compositions_that_sites_share_are_tried_once() -> None:
    """AlCoCrNi may be (Al, Co)(Cr, Ni) or another two: an engine is asked once."""
    grid = GridConfig(ROLES["alcocrni"], site_parts=(2,))
    found = [write_formula(one) for one in b2_candidates(grid)]
    assert len(found) == len(set(found)) == 6 + 12 + 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"most_bcc": 0}, "most_bcc must be at least 1"),
        ({"parts": ()}, "parts must be numbers from 1 to 100"),
        ({"site_parts": (0,)}, "site_parts must be numbers from 1 to 100"),
    ],
)
def test_grids_that_are_none(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GridConfig(SMALL, **wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bcc": ()}, "bcc must be different elements"),
        ({"first_site": ("Al", "Al")}, "first_site must be different elements"),
        ({"second_site": ("Xx",)}, "Xx"),
        ({"second_site": ("Al",)}, "both sites of the B2 have Al alone"),
    ],
)
def test_roles_that_are_none(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **wrong)
