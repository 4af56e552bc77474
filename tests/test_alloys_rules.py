"""The rules of the reward on hand-made tables."""

import numpy as np
import pytest
from alloy_tables import b2, bcc, liquid, sigma, table

from crystaljax.alloys.engines.thermodynamics import Point
from crystaljax.alloys.family import BCC_B2
from crystaljax.alloys.rules import (
    coexist,
    few_other_phases,
    matrix_first,
    precipitate_when_cold,
    smallest_mismatch,
)

BOTH: Point = [bcc(0.4), b2(0.6)]
GOOD: list[Point] = [BOTH, BOTH, [bcc(1.0)], [bcc(0.4), liquid(0.6)], [liquid(1.0)]]
LOST: list[Point] = ["it hung"] * 5


def with_point(step: int, point: Point) -> list[Point]:
    return [*GOOD[:step], point, *GOOD[step + 1 :]]


def test_a_good_alloy_keeps_all_rules_and_of_a_lost_one_they_are_unknown() -> None:
    for rule in BCC_B2.rules.values():
        check, parts = rule.check, BCC_B2.parts
        np.testing.assert_array_equal(check(table(GOOD, LOST), 0.0, parts), [1, np.nan])
        assert np.isnan(check(table(GOOD), 9000.0, parts)).all()


def test_coexistence() -> None:
    never = [[b2(1.0)], [bcc(1.0)], [bcc(1.0)], [bcc(0.4), liquid(0.6)], [liquid(1.0)]]
    trace = [[bcc(0.9995), b2(0.0005)], *never[1:]]
    np.testing.assert_array_equal(coexist(table(GOOD, never, trace)), [True, False, False])
    assert coexist(table(GOOD), 500.0)[0] == 1
    assert coexist(table(GOOD), 501.0)[0] == 0


@pytest.mark.parametrize(
    ("first_solid", "kept"),
    [
        ([bcc(0.1), liquid(0.9)], True),
        ([b2(0.1), liquid(0.9)], False),
        ([sigma(0.1), liquid(0.9)], False),
        ([bcc(0.2), b2(0.1), liquid(0.7)], True),
        ([bcc(0.1), b2(0.2), liquid(0.7)], False),
        ([bcc(0.1), sigma(0.2), liquid(0.7)], False),
        ("it hung", True),  # the next lower one is all BCC
    ],
)
def test_what_forms_first_on_cooling(first_solid: Point, kept: bool) -> None:
    assert matrix_first(table(with_point(3, first_solid)))[0] == kept


def test_what_forms_first_at_the_edges() -> None:
    liquids = [[liquid(1.0)]] * 5
    solids = [BOTH, BOTH, [bcc(1.0)], [bcc(1.0)], [bcc(1.0)]]
    np.testing.assert_array_equal(matrix_first(table(liquids, solids)), [False, True])
    assert matrix_first(table(GOOD), 700.0)[0] == 1
    assert matrix_first(table(GOOD), 701.0)[0] == 0


def test_b2_near_room_temperature() -> None:
    tables = table(GOOD, with_point(0, [bcc(1.0)]), with_point(0, "it hung"))
    np.testing.assert_array_equal(precipitate_when_cold(tables), [1, 0, np.nan])
    np.testing.assert_array_equal(precipitate_when_cold(tables, 500.0), [1, 1, 1])
    np.testing.assert_array_equal(precipitate_when_cold(tables, 600.0), [0] * 3)


def test_other_phases() -> None:
    tables = table(
        with_point(1, [bcc(0.4), b2(0.5), sigma(0.1)]),
        with_point(1, [bcc(0.4), b2(0.49), sigma(0.06), sigma(0.05)]),
        with_point(1, "it hung"),
    )
    np.testing.assert_array_equal(few_other_phases(tables), [True, False, True])
    np.testing.assert_array_equal(few_other_phases(tables, 600.0), [True, True, True])


def test_smallest_mismatch_is_over_temperatures_and_composition_sets() -> None:
    sets = [
        [bcc(0.4, 2.90), b2(0.6, 2.95)],
        [bcc(0.2, 2.90), bcc(0.2, 2.92), b2(0.3, 2.97), b2(0.3, 2.88)],
        [bcc(0.5, 2.90), b2(0.0005, 2.90), sigma(0.4995)],
        "it hung",
        [bcc(1.0)],
    ]
    never = [[b2(1.0)]] * 2 + [[bcc(1.0)]] * 3
    tables = table(never, sets, never)
    np.testing.assert_allclose(smallest_mismatch(tables), [np.nan, 0.02, np.nan])
    np.testing.assert_allclose(smallest_mismatch(tables, 501.0), [np.nan] * 3)


def lattices(*pairs: tuple[float, float] | str | None) -> list[Point]:
    """Points with one BCC and one B2 of these lattice parameters; None for BCC alone."""
    points: list[Point] = []
    for pair in pairs:
        if isinstance(pair, str):
            points.append(pair)
        else:
            points.append([bcc(0.4, pair[0]), b2(0.6, pair[1])] if pair else [bcc(1.0)])
    return points


def test_the_mismatch_is_zero_where_lattices_cross_between_temperatures() -> None:
    crossing = lattices((2.90, 2.91), (2.93, 2.92), None, None)
    touching = lattices((2.90, 2.91), (2.92, 2.92), None, None)
    falling = lattices((2.90, 2.93), (2.92, 2.93), (2.92, 2.95), None)
    apart = lattices((2.90, 2.91), None, (2.93, 2.92), None)  # the B2 between is gone
    over_a_gap = lattices((2.90, 2.91), "it hung", (2.93, 2.92), None)
    tables = table(crossing, touching, falling, apart, over_a_gap)
    np.testing.assert_allclose(smallest_mismatch(tables), [0, 0, 0.01, 0.01, 0], atol=1e-12)
    np.testing.assert_allclose(smallest_mismatch(tables, 450.0)[:3], [0.01, 0, 0.01], atol=1e-12)


def test_only_the_same_phases_cross() -> None:
    other = b2(0.6, 2.92)._replace(composition={"Al": 0.25, "Ni": 0.75})
    first: Point = [bcc(0.4, 2.90), b2(0.6, 2.91)]
    tables = table([first, [bcc(0.4, 2.93), other]], [first, [bcc(0.4, 2.93), b2(0.6, 2.92)]])
    np.testing.assert_allclose(smallest_mismatch(tables), [0.01, 0], atol=1e-12)
    # Of two B2 phases each is followed by itself: one stays above the BCC, one below.
    above, below = b2(0.3, 2.95), b2(0.3, 2.85)._replace(composition={"Al": 0.2, "Ni": 0.8})
    points: list[Point] = [[bcc(0.4, 2.90), above, below], [bcc(0.4, 2.91), below, above]]
    np.testing.assert_allclose(smallest_mismatch(table(points)), [0.04])


def test_the_mismatch_hardly_depends_on_where_the_grid_begins() -> None:
    """Differences that are linear in T, on grids that are half a step apart."""
    slope, offset = np.array([3e-5, 3e-5, -2e-5, 1e-5]), np.array([-0.02, -0.0275, 0.02, 0.01])
    found = []
    for first in (400.0, 450.0):
        temperatures = first + 100 * np.arange(12)
        series = [
            lattices(*((2.9, 2.9 + a * t + b) for t in temperatures))
            for a, b in zip(slope, offset, strict=True)
        ]
        found.append(smallest_mismatch(table(*series, first=first)))
    np.testing.assert_allclose(found[0][:3], 0, atol=1e-12)
    np.testing.assert_allclose(found[0][:3], found[1][:3], atol=1e-12)
    assert found[1][3] == pytest.approx(found[0][3], abs=6e-4)


def test_an_unknown_lattice_leaves_the_mismatch_unknown() -> None:
    nan = float("nan")
    tables = table(
        lattices((2.9, nan), (2.9, 2.95)),
        lattices((nan, 2.95), (2.9, 2.95)),
        [[bcc(0.4), b2(0.3, 2.95), b2(0.3, nan)], [bcc(1.0)]],
        [[bcc(0.4), b2(0.6, 2.95)], [bcc(1.0, nan)]],  # no B2 beside it
    )
    np.testing.assert_allclose(smallest_mismatch(tables), [nan, nan, nan, 0.05])


def test_figure_nine_of_the_paper() -> None:
    """Cr33Fe67 with 61.65 % MnAl2Fe: BCC and B2 at 373 K, then one B2 (arXiv 2511.12036)."""
    figure: list[Point] = [[bcc(0.16, 2.91), b2(0.83, 2.93), sigma(0.01)]]
    figure += [[b2(1.0, 2.99)]] * 7 + [[b2(1.0, 3.01)]] * 2 + [[bcc(1.0, 3.02)]] * 3
    figure += [[bcc(0.5, 3.03), liquid(0.5)]] + [[liquid(1.0)]] * 6
    equilibria = table(figure, first=373.15)
    rules = BCC_B2.rules.values()
    assert all(rule.check(equilibria, 0.0, BCC_B2.parts)[0] for rule in rules)
    assert smallest_mismatch(equilibria)[0] == pytest.approx(0.02)
    assert not coexist(equilibria, 1073.0)[0]
