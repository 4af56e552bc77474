"""Predictors of properties by configuration: what the models behind them say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crystaljax.crystal import Crystals
from crystaljax.experiment.predictors import PredictorsConfig, predicting
from crystaljax.rewards.ehull import create_e_above_hull
from crystaljax.rewards.properties import create_property
from crystaljax.tokenizations.text.wyckoff import WyckoffText


def salts() -> Crystals:
    """NaCl; an element that potentials do not know; NaCl with its atoms on top of each other."""
    texts = ["225\n5.6\nNa 4a\nCl 4b", "225\n5.6\nOg 4a\nCl 4b", "225\n0.6\nNa 4a\nCl 4b"]
    return WyckoffText().decode(texts).crystals


def test_no_predictor() -> None:
    with predicting(PredictorsConfig()) as predict:
        assert predict is None


def test_band_gaps(shared: Path) -> None:
    folder = shared / "weights" / "matgl" / "MEGNet-MP-2019.4.1-BandGap-mfi"
    with predicting(PredictorsConfig(band_gap=str(folder))) as predict:
        assert predict is not None
        found = predict(salts())
    assert list(found) == ["band_gap"]
    expected = create_property("band_gap", folder=folder).predict(salts()).value
    np.testing.assert_allclose(found["band_gap"], expected)
    assert found["band_gap"][0] > 3  # an insulator
    assert np.isnan(found["band_gap"][1:]).all()


@pytest.mark.slow
def test_energies() -> None:
    pytest.importorskip("chgnet")
    with predicting(PredictorsConfig(potential="chgnet")) as predict:
        assert predict is not None
        found = predict(salts())
    assert set(found) == {"e_above_hull", "formation_energy_per_atom"}
    info = create_e_above_hull("chgnet")(salts()[:1]).info
    for name, column in found.items():
        expected = info["e_above_hull" if name == "e_above_hull" else "formation_energy"]
        np.testing.assert_allclose(column[:1], expected, atol=1e-4)
        assert np.isnan(column[1:]).all()
    assert -2.5 < found["formation_energy_per_atom"][0] < -1.5  # the Materials Project: -2.1
