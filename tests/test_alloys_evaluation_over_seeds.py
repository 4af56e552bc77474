"""Table 2 and figures 2 to 4 and 11 of the paper, with errors over seeds."""

import math

import numpy as np
import pytest
from alloy_samples import TRAINING, judged
from test_alloys_evaluation_metrics import CONFIG, TEXTS

from crystaljax.alloys.evaluation.metrics import AlloyEvaluation, AlloyReference, evaluate_alloys
from crystaljax.alloys.evaluation.over_seeds import (
    divergence_change_bars,
    divergence_map,
    element_divergence_table,
    element_set_shares,
    element_set_table,
    element_share_bars,
    outcome_bars,
    outcomes,
    rule_change_bars,
    rule_changes,
)
from crystaljax.alloys.evaluation.tokens import NUMERALS, ElementTable
from crystaljax.alloys.family import FCC_L12

REFERENCE = AlloyReference.of("train", TRAINING, config=CONFIG)
GOOD, BAD = (1, 1, 1, 1), (0, 1, 1, 1)


def evaluation(texts: list[str], kept: list[tuple[int, ...]]) -> AlloyEvaluation:
    return evaluate_alloys(texts, judged(texts, kept, 0.02), REFERENCE)


@pytest.fixture
def found() -> dict[str, list[AlloyEvaluation]]:
    """Two seeds: SFT keeps half and a quarter of the first rule, DPO three quarters and half."""
    texts = TEXTS[:3] + TEXTS[2:3]
    sft = [evaluation(texts, [GOOD, GOOD, BAD, BAD]), evaluation(texts, [GOOD, BAD, BAD, BAD])]
    dpo = [evaluation(texts[:3], [GOOD, GOOD, GOOD]), evaluation(texts, [GOOD, GOOD, BAD, BAD])]
    return {"SFT": sft, "DPO": dpo}


def test_element_sets(found: dict[str, list[AlloyEvaluation]]) -> None:
    shares = element_set_shares(found["DPO"])
    assert {one.name.split()[0]: one.value for one in shares} == pytest.approx(
        {"Cr-Ni": 100 * (2 / 3 + 1 / 2) / 2, "Cr-W": 100 * (1 / 3 + 1 / 2) / 2}
    )
    assert shares[0].standard_error == pytest.approx(100 * (2 / 3 - 1 / 2) / 2)
    table = element_set_table(found, n=3)
    assert table.rows[0] == ["", "1.", "2.", "3."]
    assert table.rows[2][1:] == ["Cr-Ni 58.3 ± 8.3 %", "Cr-W 41.7 ± 8.3 %", ""]
    assert element_set_shares([evaluation(["none"], [BAD])]) == []
    (b2,) = element_set_shares(found["SFT"][:1], 1, "b2")
    assert (b2.name, b2.value) == ("Al-Ni (%)", 50)
    assert table.caption == "Commonest sets of elements in the BCC, over seeds"
    other = element_set_table(found, tags=FCC_L12.tags)
    assert other.caption == "Commonest sets of elements in the FCC, over seeds"


def test_win_draw_loss(found: dict[str, list[AlloyEvaluation]]) -> None:
    of_dpo = outcomes(found, "SFT")["DPO"]
    # Seed 1: 3 good against 2 good and 2 bad; seed 2: 2 and 2 against 1 and 3.
    wins, draws = (6 / 12, 6 / 16), (6 / 12, (2 + 6) / 16)
    assert of_dpo["win"].value == pytest.approx(100 * np.mean(wins))
    assert of_dpo["draw"].value == pytest.approx(100 * np.mean(draws))
    assert sum(one.value for one in of_dpo.values()) == pytest.approx(100)
    assert of_dpo["win"].standard_error == pytest.approx(100 * abs(wins[0] - wins[1]) / 2)
    (axes,) = outcome_bars(found, "SFT").axes
    assert [text.get_text() for text in axes.texts] == ["43.8", "50.0", "6.2"]


def test_rules(found: dict[str, list[AlloyEvaluation]]) -> None:
    relative, points = rule_changes(found, "SFT")["DPO"]["coexist"]
    assert relative.value == pytest.approx(100)  # 1/2 to 1 and 1/4 to 1/2
    assert points.value == pytest.approx((50 + 25) / 2)
    assert points.standard_error == pytest.approx(12.5)
    assert rule_changes(found, "SFT")["DPO"]["bcc_first"][0].value == 0
    first = {label: seeds[:1] for label, seeds in found.items()}
    relative, points = rule_changes(first, "SFT")["DPO"]["coexist"]
    after, before = first["DPO"][0]["coexist"], first["SFT"][0]["coexist"]
    error = 100 * math.hypot(after.standard_error, before.standard_error)
    assert points.standard_error == pytest.approx(error)
    assert relative.standard_error > points.standard_error
    never = {"SFT": [evaluation(TEXTS[:1], [BAD])], "DPO": first["DPO"]}
    assert math.isnan(rule_changes(never, "SFT")["DPO"]["coexist"][0].value)
    (axes,) = rule_change_bars(found, "SFT").axes
    assert axes.patches[0].get_height() == pytest.approx(100)
    assert len(axes.patches) == 4


def test_elements(found: dict[str, list[AlloyEvaluation]]) -> None:
    (axes,) = element_share_bars(found, REFERENCE.elements).axes
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["Al", "Ti", "Cr", "Co", "Ni", "Ru", "W"]
    heights = [patch.get_height() for patch in axes.patches]
    assert len(heights) == 3 * len(names)
    assert heights[names.index("Ti")] == 0  # of the training data
    assert heights[2 * len(names) + names.index("W")] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_divergence_of_several_models() -> None:
    tables = {
        "DPO": ElementTable(("Ti", "Al", NUMERALS), np.array([9, 4, 5]), np.array([0.3, 0.1, 0.2])),
        "GRPO": ElementTable(("Al", "Nb"), np.array([3, 1]), np.array([0.05, 0.4])),
    }
    table = element_divergence_table(tables)
    assert [row[:2] for row in table.rows[1:]] == [
        ["Ti", "9"], ["Al", "4"], ["Nb", "1"], [NUMERALS, "5"],
    ]  # fmt: skip
    assert table.rows[2] == ["Al", "4", "0.1", "0.05"]
    assert table.rows[3] == ["Nb", "1", "–", "0.4"]
    (axes,) = divergence_change_bars(tables, "DPO", "GRPO").axes
    assert [patch.get_height() for patch in axes.patches] == pytest.approx([0.05])
    assert axes.get_xticklabels()[0].get_text() == "Al\n(4)"
    image = divergence_map(tables).axes[0].images[0].get_array()
    np.testing.assert_allclose(image.filled(-1), [[0.3, -1], [0.1, 0.05], [-1, 0.4], [0.2, -1]])
