"""Table 1 of models and seeds."""

import csv
from pathlib import Path

import numpy as np
import pytest
from alloy_samples import TRAINING
from test_alloys_evaluation_metrics import NEW, TEXTS, evaluation

from crystaljax.alloys.evaluation.metrics import AlloyReference, evaluate_mixtures
from crystaljax.alloys.evaluation.table_one import TableOne, plus_minus, table_one
from crystaljax.evaluation.rates import Measure
from crystaljax.tracking import Tracker

SEEDS = [evaluation(), evaluation(TEXTS[:2]), evaluation(TEXTS[:3], 0.05)]


def found() -> TableOne:
    return table_one({"SFT": evaluation(), "DPO": SEEDS}, baseline="SFT")


def test_numbers_of_seeds_and_of_samples() -> None:
    models = found().models
    readable = models["DPO"]["readable (%)"]
    rates = 100 * np.array([3 / 4, 1, 1])
    assert readable.value == pytest.approx(rates.mean())
    assert readable.standard_error == pytest.approx(rates.std(ddof=1) / np.sqrt(3))
    assert (readable.total, readable.denominator) == (3, "runs")
    alone = models["SFT"]["readable (%)"]
    assert alone.value == 75
    assert alone.standard_error == pytest.approx(100 * SEEDS[0]["readable"].standard_error)
    best = [seed["best reward"].value for seed in SEEDS]
    assert models["DPO"]["best reward"].value == pytest.approx(np.mean(best))
    outcome = [models["DPO"][f"{name} (%)"].value for name in ("win", "draw", "loss")]
    assert sum(outcome) == pytest.approx(100)
    assert "win (%)" not in models["SFT"]


def test_text_and_csv_say_the_same(tmp_path: Path) -> None:
    table = found()
    rows = {row[0]: row[1:] for row in table.table.rows}
    assert rows[""] == ["SFT", "DPO"]
    assert rows["win (%)"][0] == "–"
    path = table.write(tmp_path / "new")
    assert "| readable (%)" in path.read_text("utf-8")
    with path.with_suffix(".csv").open(encoding="utf-8") as file:
        sft, dpo = csv.DictReader(file)
    assert sft["model"] == "SFT"
    for name, metric in table.models["DPO"].items():
        assert float(dpo[name]) == pytest.approx(metric.value, nan_ok=True)
        assert plus_minus(metric) == rows[name][1]
    assert float(dpo["readable (%) ±"]) == table.models["DPO"]["readable (%)"].standard_error


def test_wandb_takes_the_columns(tmp_path: Path) -> None:
    table = found()
    with Tracker(tmp_path) as tracker:
        tracker.log_table("table 1", table.columns, 0)
    assert {len(column) for column in table.columns.values()} == {2}


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.345, 1.06, "12.3 ± 1.1"),
        (-656.04, 68.0, "-656 ± 68"),
        (0.02114, 0.00034, "0.02114 ± 0.00034"),
        (73.512, float("nan"), "73.51"),
        (float("nan"), 1.0, "–"),
    ],
)
def test_as_many_digits_as_the_error(value: float, error: float, text: str) -> None:
    assert plus_minus(Measure("", value, error, "", 1, "")) == text


def test_texts_and_compositions_have_labels_of_their_own() -> None:
    reference = AlloyReference.of("train", TRAINING)
    runs = [evaluation(), evaluate_mixtures([{"Al": 1.0}], reference)]
    with pytest.raises(ValueError, match="runs of 'mine' have different metrics, as texts and"):
        table_one({"SFT": evaluation(), "mine": runs})


def test_an_unknown_baseline() -> None:
    with pytest.raises(ValueError, match="no run 'GRPO' to compare with: there are SFT"):
        table_one({"SFT": evaluation([NEW, str(TRAINING[0])])}, "GRPO")
