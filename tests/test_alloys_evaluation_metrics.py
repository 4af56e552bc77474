"""Metrics of hand-made samples, and comparisons against counting."""

import math

import numpy as np
import pytest
from alloy_samples import TRAINING, judged
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from crystaljax.alloys.composition import Candidate, master, write_candidate
from crystaljax.alloys.dataset import all_pairs
from crystaljax.alloys.evaluation.metrics import (
    AlloyEvaluation,
    AlloyEvaluationConfig,
    AlloyReference,
    compare,
    duels,
    evaluate_alloys,
    evaluate_mixtures,
)
from crystaljax.alloys.evaluation.novelty import (
    COVERAGE,
    NOVELTY,
    FeatureSpace,
    magpie_features,
    nearest,
)
from crystaljax.alloys.evaluation.table_one import table_one
from crystaljax.alloys.family import BCC_B2, FCC_L12
from crystaljax.evaluation.report import Report
from crystaljax.rewards.base import RewardBatch

NEW = "<BCC>Cr10W90</BCC> <B2>TiRu</B2> <B2_Volume>20</B2_Volume>"
TEXTS = [str(TRAINING[0]), str(TRAINING[1]), NEW, "I do not know."]
KEPT = [(1, 1, 1, 1), (1, 1, 0, 1), (0, 1, 1, 0), (0, 0, 0, 0)]
CONFIG = AlloyEvaluationConfig(draw=2)


def evaluation(texts: list[str] = TEXTS, mismatch: float = 0.02) -> AlloyEvaluation:
    reference = AlloyReference.of("train", TRAINING, config=CONFIG)
    return evaluate_alloys(texts, judged(texts, KEPT[: len(texts)], mismatch), reference)


def test_every_number() -> None:
    found = evaluation()
    space = FeatureSpace.of(TRAINING)
    apart = cdist(space(TRAINING), space(found.candidates[:3]))
    covered, near = (int((apart.min(axis=axis) <= COVERAGE).sum()) for axis in (1, 0))
    assert 0 < covered < len(TRAINING)
    values = {name: pytest.approx(value, nan_ok=True) for name, value in found.values.items()}
    counts = {rate.name: (rate.count, rate.total) for rate in found.rates}
    assert counts == {
        "readable": (3, 4),
        "SMACT valid": (3, 4),
        "Pauling valid": (0, 4),
        "COV-R": (covered, len(TRAINING)),
        "COV-P": (near, 4),
        "novel": (1, 4),
        "coexist": (2, 4),
        "bcc_first": (3, 4),
        "b2_at_room_temperature": (2, 4),
        "few_other_phases": (2, 4),
        "all rules": (1, 4),
    }
    assert values["mean reward"] == np.mean([-0.02, -10.02, -1001, -2000])
    assert values["mean reward of valid"] == np.mean([-0.02, -10.02, -1001])
    assert values["best reward"] == -0.02
    assert values["mismatch"] == 0.02
    # The first two are one pair of phases: of six draws of two one has it twice.
    assert values["unique pairs @2"] == np.mean([1, 2, 1, 2, 1, 1])
    assert found["mean reward"].standard_error == pytest.approx(
        np.std([-0.02, -10.02, -1001, -2000], ddof=1) / 2
    )
    assert found.columns["distance"][0] == pytest.approx(0, abs=1e-6)
    assert math.isnan(found.columns["distance"][3])
    assert any("1 samples: no <BCC>" in line for line in found.context)


def test_held_out_candidates_are_what_is_covered() -> None:
    reference = AlloyReference.of("train", TRAINING, TRAINING[:2], CONFIG)
    found = evaluate_alloys(TEXTS, judged(TEXTS, KEPT, 0.02), reference)
    assert {rate.name: rate.total for rate in found.rates}["COV-R"] == 2
    assert found["COV-R"].value == 1


def test_nothing_readable() -> None:
    found = evaluation(["no", "nor this"])
    assert found["novel"].value == 0
    assert found["COV-R"].value == 0
    assert found["mean reward"].value == -2000
    assert math.isnan(found["mean reward of valid"].value)
    assert found["unique pairs @2"].value == 0


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="3 texts, and 4 rewards"):
        evaluate_alloys(TEXTS[:3], judged(TEXTS, KEPT, 0.1), AlloyReference.of("train", TRAINING))


def test_a_report_takes_them() -> None:
    text = Report("alloys", {"SFT": evaluation(), "DPO": evaluation(TEXTS[:3])}).to_markdown()
    assert "3 / 4" in text
    assert BCC_B2.rules["bcc_first"].says in text


def test_comparison() -> None:
    before, after = evaluation(), evaluation(TEXTS[:2])
    found = compare(after, before)
    # -0.02 draws with itself and beats three, -10.02 loses to one, draws with itself, beats two.
    assert (found.win.value, found.draw.value, found.loss.value) == (5 / 8, 2 / 8, 1 / 8)
    assert found.rules["coexist"].value == 0.5
    assert found.rules["all rules"].value == pytest.approx(1 / 2 - 1 / 4)
    assert "+50.0" in dict(found.table("DPO against SFT").rows[1:])["coexist"]


numbers = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


@given(numbers, numbers, st.sampled_from([0.0, 0.5, 1.0, 2.5]))
def test_duels_are_counted(values: list[float], others: list[float], tolerance: float) -> None:
    difference = np.subtract.outer(values, others)
    win, draw, loss = duels(np.array(values), np.array(others), tolerance)
    assert win.value == pytest.approx((difference > tolerance).mean())
    assert loss.value == pytest.approx((difference < -tolerance).mean())
    assert draw.value == pytest.approx((np.abs(difference) <= tolerance).mean())
    swapped = duels(np.array(others), np.array(values), tolerance)
    assert swapped[2].value == pytest.approx(win.value)
    assert swapped[2].standard_error == pytest.approx(win.standard_error, nan_ok=True)


def test_the_error_of_duels_is_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(0)
    found = [
        duels(np.round(rng.normal(0.5, 1, 40)), np.round(rng.normal(0, 1, 60)), 0.1)
        for _ in range(400)
    ]
    for outcome in zip(*found, strict=True):
        spread = np.std([measure.value for measure in outcome])
        claimed = np.mean([measure.standard_error for measure in outcome])
        assert claimed == pytest.approx(spread, rel=0.12)


KNOWN = [{"Al": 0.5, "Cr": 0.2, "Ni": 0.3}, {"Ti": 1.0, "Zr": 1.0}]


@pytest.mark.parametrize("features", ["master", "phases"])
def test_novelty_to_known_alloys(features) -> None:  # type: ignore[no-untyped-def]
    config = AlloyEvaluationConfig(features=features)
    known = [*KNOWN, master(TRAINING[1])]
    reference = AlloyReference.of("train", TRAINING, config=config, known=known)
    found = evaluate_alloys(TEXTS, judged(TEXTS, KEPT, 0.02), reference)
    space = FeatureSpace.of(TRAINING)  # of whole alloys, whatever samples are described by
    apart = cdist(space(found.candidates[:3]), space.of_mixtures(known)).min(axis=1)
    rate = found["novel to known"]
    assert rate.value == (apart > NOVELTY).sum() / 4
    assert apart[1] == pytest.approx(0, abs=1e-9)
    assert "3 known alloys" in rate.description
    assert "novel to known" not in evaluation().values


def test_features_are_of_the_mixture_that_is_judged() -> None:
    """By mole as the rewards, also of elements without atomic volumes, such as Mg."""
    by_mole = AlloyReference.of("train", TRAINING, mix_by="mole")
    expected = magpie_features([master(one, "mole") for one in TRAINING])
    found = by_mole.training / np.where(by_mole.space.weight, by_mole.space.weight, np.nan)
    varies = by_mole.space.weight > 0
    np.testing.assert_allclose((found + by_mole.space.centre)[:, varies], expected[:, varies])
    volumes = magpie_features([master(one) for one in TRAINING])
    assert np.abs(volumes - expected).max() > 1e-3
    light = [Candidate({"Al": 1.0}, {"Al": 1.0, "Mg": 1.0}, 40.0), Candidate(*LIGHT, 50.0)]
    reference = AlloyReference.of("train", light, mix_by="mole")
    assert nearest(reference.training, reference.training) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="features are known of none of 2 training candidates"):
        AlloyReference.of("train", light)


LIGHT = {"Mg": 1.0}, {"Al": 1.0, "Cu": 1.0}


def test_the_phases_are_named_by_the_family() -> None:
    texts = [write_candidate(one, FCC_L12.tags) for one in TRAINING]
    found = judged([str(one) for one in TRAINING], [[1, 1, 1, 1]] * len(TRAINING), 0.02)
    info = {"mismatch": found.info["mismatch"], "read": found.info["read"]}
    info |= {name: np.ones(len(texts)) for name in FCC_L12.rules}
    reference = AlloyReference.of("train", TRAINING, family=FCC_L12)
    evaluated = evaluate_alloys(texts, RewardBatch.from_values(found.value, info), reference)
    assert "distinct pairs of FCC and L12" in evaluated["unique pairs @100"].description


def test_compositions_of_other_models() -> None:
    """As whole alloys they have the numbers of the candidates that they are of."""
    texts = TEXTS[:3]
    reference = AlloyReference.of("train", TRAINING, config=CONFIG, known=KNOWN)
    judged_ = evaluate_alloys(texts, judged(texts, KEPT[:3], 0.02), reference)
    mixtures = [None if one is None else master(one) for one in judged_.candidates]
    found = evaluate_mixtures([*mixtures, None], reference)
    assert (found["readable"].value, judged_["readable"].value) == (0.75, 1.0)
    for name in ("COV-P", "novel", "novel to known", "SMACT valid"):
        assert found[name].value == pytest.approx(0.75 * judged_[name].value)
    assert found["COV-R"].value == judged_["COV-R"].value
    np.testing.assert_allclose(found.columns["distance"][:3], judged_.columns["distance"])
    assert found["element TV"].value == pytest.approx(judged_["element TV"].value)
    table = table_one({"SFT": judged_, "CDVAE": found}, "SFT")
    assert table.models["CDVAE"].keys() < table.models["SFT"].keys()
    phases = AlloyReference.of("train", TRAINING, config=AlloyEvaluationConfig(features="phases"))
    with pytest.raises(ValueError, match="features of the master"):
        evaluate_mixtures(mixtures, phases)


def test_coverage_of_the_whole_space() -> None:
    bcc = [{"Cr": float(x), "Ni": 100.0 - x} for x in (60, 75, 90)]
    pairs = all_pairs(bcc, [{"Al": 1.0, "Ni": 1.0}, {"Al": 1.0, "Co": 1.0}])
    assert len(pairs) == 6
    assert {one.b2_volume for one in pairs} == {45.0}
    reference = AlloyReference.of("train", TRAINING, pairs)
    found = evaluate_alloys(TEXTS, judged(TEXTS, KEPT, 0.02), reference)
    assert found["COV-R"].total == 6
