"""The models that ship: they load, and do what their cards say."""

from pathlib import Path

import pytest

from crystaljax.conditions import Condition
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.loading import load_policy

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


@pytest.mark.slow
def test_the_text_model_answers_formulas() -> None:
    """Of 48 answers 47.5 % are expected to be of the formula, 98.5 % crystals: four errors off."""
    pytest.importorskip("tokenizers")
    policy, params = load_policy(CHECKPOINTS / "text-mp20bt")
    formulas = ("NaCl", "SrTiO3", "CaPd2", "LiCoO2", "ZnS", "MgAl2O4", "Fe2O3", "BaSnF6")
    asked = [Condition(formula=formula) for formula in formulas for _ in range(6)]
    found = policy.sample(params, asked, 0, SamplingConfig(temperature=0.7))
    assert found.ok.mean() > 0.9
    assert found.met.mean() > 0.19


@pytest.mark.slow
def test_the_wyckoff_transformer_is_held_to_formulas() -> None:
    policy, params = load_policy(CHECKPOINTS / "wyckoff-mp20bt")
    asked = [Condition(formula=formula) for formula in ("NaCl", "SrTiO3") for _ in range(4)]
    found = policy.sample(params, asked, 0, SamplingConfig(batch_size=8))
    assert found.ok.all() and found.met.all()
