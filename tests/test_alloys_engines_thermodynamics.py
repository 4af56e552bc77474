"""Tables of equilibria."""

import numpy as np
import pytest
from alloy_tables import MIXTURE, b2, bcc, liquid, sigma, table

from crystaljax.alloys.engines.thermodynamics import Equilibria, problem


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
        [[], [liquid(1.0)]],
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
