"""Tables of equilibria."""

import numpy as np
import pytest
from alloy_tables import MIXTURE, b2, bcc, liquid, sigma, table

from crystaljax.alloys.engines.thermodynamics import (
    Equilibria,
    Row,
    ascending,
    is_ordered,
    problem,
)


def test_amounts_sum_composition_sets_and_failed_points_are_nan() -> None:
    equilibria = table(
        [[bcc(0.3), b2(0.4), b2(0.3)], "it hung", [liquid(1.0)]],
        [[sigma(1.0)], [bcc(1.0)], [bcc(0.5), liquid(0.5)]],
    )
    nan = np.nan
    np.testing.assert_allclose(equilibria.amount("bcc", True), [[0.7, nan, 0], [0, 0, 0]])
    np.testing.assert_allclose(equilibria.amount("bcc", False), [[0.3, nan, 0], [0, 1, 0.5]])
    np.testing.assert_allclose(equilibria.amount("liquid"), [[0, nan, 1], [0, 0, 0.5]])
    np.testing.assert_allclose(equilibria.amount("other"), [[0, nan, 0], [1, 0, 0]])
    np.testing.assert_array_equal(equilibria.solved, [[1, 0, 1], [1, 1, 1]])


def test_points_come_back_and_candidates_can_be_chosen() -> None:
    points = [
        [[bcc(0.3), b2(0.7)], "it hung"],
        [[sigma(1.0)], [bcc(1.0)]],
        [[bcc(1.0)], [liquid(1.0)]],
    ]
    equilibria = table(*points)
    chosen = equilibria[np.array([2, 0])]
    assert len(chosen) == 2
    for n, k in enumerate([2, 0]):
        back = chosen.points(n)
        assert [p if isinstance(p, str) else [r.phase for r in p] for p in back] == [
            p if isinstance(p, str) else [r.phase for r in p] for p in points[k]
        ]
    assert chosen.points(1)[0][1].composition == {"Al": 0.5, "Cr": 0.0, "Ni": 0.5}


def test_wrong_numbers_of_points_are_refused() -> None:
    with pytest.raises(ValueError, match="as many points"):
        Equilibria.from_points([MIXTURE], [300.0, 400.0], [[[bcc(1.0)]]])


def test_temperatures_are_sorted_with_their_points() -> None:
    points = [[liquid(1.0)], "it hung", [bcc(0.4), b2(0.6)]]
    equilibria = Equilibria.from_points([MIXTURE], [2000.0, 1000.0, 400.0], [points])
    np.testing.assert_array_equal(equilibria.temperatures, [400, 1000, 2000])
    np.testing.assert_allclose(equilibria.amount("bcc", True), [[0.6, np.nan, 0]])
    assert equilibria.reasons[0, 1] == "it hung"


@pytest.mark.parametrize(
    "temperatures",
    [[], [400.0, np.nan], [400.0, np.inf], [0.0, 400.0], [-5.0], [400.0, 900.0, 400.0]],
)
def test_temperatures_are_checked(temperatures: list[float]) -> None:
    with pytest.raises(ValueError, match="different finite numbers above 0 K"):
        ascending(temperatures)
    with pytest.raises(ValueError, match="different finite numbers above 0 K"):
        Equilibria.from_points([MIXTURE], temperatures, [[[bcc(1.0)]] * len(temperatures)])


@pytest.mark.parametrize(
    "point",
    [
        [bcc(0.4), b2(float("nan"))],
        [bcc(float("inf")), b2(0.6)],
        [bcc(0.4), b2(0.6)._replace(composition={"Al": float("nan"), "Ni": 0.5})],
        [bcc(1.4), b2(-0.4)],
        [bcc(0.4), b2(0.4)],
        [],
    ],
)
def test_fractions_that_cannot_be_are_failures(point: list[Row]) -> None:
    equilibria = table([point, [bcc(0.16), b2(0.83)]])
    np.testing.assert_array_equal(equilibria.solved, [[False, True]])
    assert "fractions" in equilibria.reasons[0, 0]
    assert len(equilibria.fraction) == 2
    assert np.isnan(equilibria.amount("bcc")[0, 0])


def test_order_is_not_told_from_what_is_no_number() -> None:
    y = np.array([0.5, 0.5])
    assert not is_ordered(y, y)
    assert is_ordered(y, np.array([0.4, 0.6]))
    with pytest.raises(ValueError, match="no numbers"):
        is_ordered(y, np.array([np.nan, 0.6]))


@pytest.mark.parametrize(
    ("mixture", "reason"),
    [
        ({"Al": 0.5, "Ni": 0.5}, None),
        ({"Al": 0.5, "Pu": 0.5}, "no Pu"),
        ({"Al": 1.5, "Ni": -0.5}, "not negative"),
        ({"Al": float("nan"), "Ni": 0.5}, "finite"),
        ({"Al": 0.5, "Ni": 0.4}, "do not sum to 1"),
        ({}, "finite"),
    ],
)
def test_compositions_are_checked(mixture: dict[str, float], reason: str | None) -> None:
    found = problem(mixture, ("Al", "Ni"))
    assert found is None if reason is None else reason in (found or "")
