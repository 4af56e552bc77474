"""The grid of candidates, and draws from it."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystaljax.alloys.baselines.space import Listed, Space, new_candidates, random_candidates
from crystaljax.alloys.composition import fractions, read_candidate
from crystaljax.alloys.grid import GridConfig, Roles

SMALL = Space(
    GridConfig(
        Roles(("Cr", "Fe"), ("Al", "Ni"), ("Co", "Ni")), most_bcc=2, parts=(2, 3), site_parts=(2,)
    ),
    volume_range=(0.4, 0.41),
)


def test_volumes() -> None:
    assert Space(volume_range=(0.2, 0.7), volume_step=0.05).volumes == tuple(range(20, 71, 5))
    assert SMALL.volumes == (40.0, 41.0)


def test_a_small_grid_is_found_whole() -> None:
    bcc = {"Cr", "Fe", "CrFe", "Cr33Fe67", "Cr67Fe33"}
    sites = [*combinations(("Al", "Ni"), 1), *combinations(("Al", "Ni"), 2)]
    seconds = [*combinations(("Co", "Ni"), 1), *combinations(("Co", "Ni"), 2)]
    b2 = set()
    for first, second in product(sites, seconds):
        if not set(first) & set(second):
            amounts = {e: 1 / len(first) for e in first} | {e: 1 / len(second) for e in second}
            b2.add(frozenset(amounts.items()))
    found = random_candidates(SMALL, 10_000, np.random.default_rng(0))
    assert len({str(one) for one in found}) == len(found) == len(bcc) * len(b2) * 2
    assert {str(one).split("</BCC>")[0][5:] for one in found} == bcc
    assert {frozenset(one.b2.items()) for one in found} == b2


def test_points_are_equally_likely() -> None:
    space = Space(GridConfig(Roles(("Cr", "Fe"), ("Al",), ("Ni",)), parts=(4,)), (0.5, 0.5))
    rng = np.random.default_rng(0)
    drawn = Counter(str(random_candidates(space, 1, rng)[0]) for _ in range(2000))
    assert len(drawn) == 5
    expected = 2000 / 5
    chi_squared = sum((n - expected) ** 2 / expected for n in drawn.values())
    assert chi_squared < 18.5  # one in a thousand, four degrees of freedom


LISTED = Listed(
    ({"Cr": 3, "Fe": 1}, {"Fe": 1}, {"Cr": 1}), ({"Al": 1, "Ni": 1}, {"Al": 2, "Co": 1, "Ni": 1})
)


def test_lists_are_drawn_from_alike() -> None:
    space = Space(SMALL.grid, (0.4, 0.41), listed=LISTED)
    rng = np.random.default_rng(0)
    drawn = Counter(str(random_candidates(space, 1, rng)[0]) for _ in range(2400))
    assert len(drawn) == 3 * 2 * 2
    chi_squared = sum((n - 200) ** 2 / 200 for n in drawn.values())
    assert chi_squared < 31.3  # one in a thousand, eleven degrees of freedom
    assert len(random_candidates(space, 100, rng)) == 12


def test_the_nearest_of_the_lists() -> None:
    space = Space(SMALL.grid, listed=LISTED)
    found = space.candidate({"Cr": 2, "Fe": 1}, {"Al": 1}, {"Co": 1, "Ni": 1}, 30.0)
    assert found is not None
    assert (found.bcc, found.b2, found.b2_volume) == ({"Cr": 3, "Fe": 1}, LISTED.b2[1], 30.0)
    found = space.candidate({"Cr": 1, "Fe": 9}, {"Al": 1}, {"Ni": 1}, 30.0)
    assert found is not None
    assert (found.bcc, found.b2) == ({"Fe": 1}, LISTED.b2[0])


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.sampled_from(["Cr", "Fe", "Mo", "Nb", "V"]), min_size=1),
    st.sets(st.sampled_from(["Al", "Ti", "Ni"]), min_size=1),
    st.sets(st.sampled_from(["Co", "Ni", "Ti", "Ru"]), min_size=2),
    st.integers(1, 4),
    st.sets(st.sampled_from([2, 3, 4, 10]), min_size=1),
    st.integers(0, 1000),
)
def test_candidates_are_on_the_grid(bcc, first, second, most, parts, seed) -> None:  # type: ignore[no-untyped-def]
    parts = tuple(sorted(parts))
    roles = Roles(tuple(bcc), tuple(first), tuple(second))
    space = Space(GridConfig(roles, most, 2, parts, parts))
    for one in random_candidates(space, 5, np.random.default_rng(seed)):
        assert set(one.bcc) <= bcc
        assert len(one.bcc) <= most
        assert sum(one.bcc.values()) == 100
        assert sum(one.b2.values()) == pytest.approx(2)
        assert set(one.b2) <= first | second
        assert 20 <= one.b2_volume <= 70
        read, _ = read_candidate(str(one))
        assert read is not None
        assert fractions(read.bcc) == pytest.approx(fractions(one.bcc), abs=1e-6)


def test_seeds_and_what_is_known() -> None:
    texts = [
        [str(one) for one in random_candidates(Space(), 50, np.random.default_rng(seed))]
        for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]
    others = new_candidates(Space(), 50, np.random.default_rng(0), set(texts[0]))
    assert len(others) == 50
    assert not {str(one) for one in others} & set(texts[0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"volume_range": (0.7, 0.2)}, "B2 volumes must be fractions"),
        ({"volume_range": (20, 70)}, "B2 volumes must be fractions"),
        ({"volume_step": 0.0}, "B2 volumes must be fractions"),
    ],
)
def test_wrong_spaces(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Space(**wrong)
