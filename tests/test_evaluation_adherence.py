"""Adherence to conditions, field by field."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.evaluation.adherence import adherence
from crystaljax.evaluation.rates import Measure, Rate
from crystaljax.evaluation.stability import found_space_group, keeps_space_group
from crystaljax.tokenizations.text.wyckoff import WyckoffText

SALT = "225\n5.6\nNa 4a\nCl 4b"
HIDDEN = "123\n3.96 5.6\nNa 1a\nCl 1b\nCl 1c\nNa 1d"  # rock salt, described with fewer symmetries
TEXTS = [SALT, HIDDEN, "225\n5.6\nK 4a\nCl 4b", "no crystal"]


@pytest.fixture(scope="module")
def crystals() -> Crystals:
    return WyckoffText().decode(TEXTS).crystals


def test_formulas_and_space_groups(crystals: Crystals) -> None:
    """Groups are those of the full cells; what is no crystal has not what was asked."""
    asked = [
        Condition(formula="Na2Cl2", space_group=225),
        Condition(formula="NaCl", space_group=(225, 227)),
        Condition(formula="NaCl", space_group=225),
        Condition(formula="NaCl", space_group=225),
    ]
    metrics, notes = adherence(crystals, asked)
    assert not notes
    found = {x.name: x for x in metrics}
    formula, group = found["formula as asked"], found["space group as asked"]
    assert isinstance(formula, Rate) and isinstance(group, Rate)
    assert (formula.count, formula.total) == (2, 4)
    assert (group.count, group.total) == (3, 4)
    np.testing.assert_array_equal(found_space_group(crystals), [225, 225, 225, 0])
    np.testing.assert_array_equal(keeps_space_group(crystals), [True, False, True, False])


def test_only_of_those_that_were_asked(crystals: Crystals) -> None:
    asked = [Condition(formula="NaCl"), Condition(), Condition(space_group=225), Condition()]
    formula, group = adherence(crystals, asked)[0]
    assert isinstance(formula, Rate) and isinstance(group, Rate)
    assert (formula.count, formula.total, group.count, group.total) == (1, 1, 1, 1)
    assert adherence(crystals, [Condition()] * 4) == ([], [])


def test_errors_of_properties(crystals: Crystals) -> None:
    """Predicted less asked; crystals alone are predicted, once; the rest is said."""
    seen: list[int] = []

    def predict(some: Crystals) -> Mapping[str, np.ndarray]:
        seen.append(len(some))
        return {"band_gap": np.array([1.0, np.nan, 3.0])[: len(some)], "unasked": np.zeros(3)}

    asked = [
        Condition(properties={"band_gap": 1.5}),
        Condition(properties={"band_gap": 1.0, "colour": 2.0}),
        Condition(properties={"band_gap": 2.0}),
        Condition(properties={"band_gap": 2.0}),
    ]
    metrics, notes = adherence(crystals, asked, predict)
    assert seen == [3]
    assert notes == ["not judged, for want of a predictor: colour (1 samples)"]
    judged, above, error, size = metrics
    assert isinstance(judged, Rate) and isinstance(above, Rate)
    assert (judged.count, judged.total, above.count, above.total) == (2, 4, 1, 2)
    assert isinstance(error, Measure) and isinstance(size, Measure)
    assert (error.value, error.total, error.unit) == (0.25, 2, "eV")
    assert error.standard_error == pytest.approx(0.75)
    assert size.value == 0.75
    assert adherence(crystals, asked)[1] == [
        "not judged, for want of a predictor: band_gap (4 samples), colour (1 samples)"
    ]
    nothing, notes = adherence(crystals[3:], asked[3:], predict)
    assert seen == [3] and not nothing and notes
