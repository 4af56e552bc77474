"""Tables and pictures of a comparison, of results made up for the purpose."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystaljax.evaluation.nll import Resolution
from crystaljax.evaluation.rates import Rate
from crystaljax.experiment.comparison.budget import BudgetConfig
from crystaljax.experiment.comparison.runs import Run
from crystaljax.experiment.comparison.tables import (
    Results,
    learning_curves,
    notes,
    samples_table,
    trade_off,
    training_table,
    write_csv,
)
from crystaljax.experiment.comparison.variants import Variant

HYBRID, CIF, PLAID = Variant("wyckoff"), Variant("cif", "own"), Variant("plaid", "own")


def trained(nll: float, tokens: float) -> dict[str, Any]:
    return {
        "tokens_mean": tokens,
        "tokens_p95": 2 * tokens,
        "non_embedding": 1000,
        "parameters": 1500,
        "learning_rate": 0.003,
        "nll": nll,
        "curve": [[10, nll + 1], [100, nll]],
        "crystals": 100,
        "crystals_per_second": 5.0,
        "epochs": 2.0,
        "flops_per_crystal": 1e9,
    }


def samples(n_metastable: int) -> dict[str, Any]:
    rates = {"decoded": 90, "metastable S.U.N.": n_metastable, "metastable (Other)": 7}
    metrics = [Rate(name, count, 100, "made up").to_dict() for name, count in rates.items()]
    return {
        "n": 100,
        "seconds_per_sample": 0.5,
        "cpu_seconds_per_sample": 0.5,
        "metrics": metrics,
    }


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two seeds of the hybrid sequence, one of CIF without samples, nothing of PLaID++."""
    for seed, nll in ((0, 40.0), (1, 42.0)):
        Run(HYBRID, "train", seed).finish(tmp_path, trained(nll, 20))
        Run(HYBRID, "free", seed).finish(tmp_path, samples(20 + 10 * seed))
    Run(CIF, "train", 0).finish(tmp_path, trained(60.0, 300))
    ceiling = [Rate("strict round trip", 9, 10, "made up").to_dict()]
    Run(HYBRID, "ceiling", 0).finish(tmp_path, {"metrics": ceiling})
    return tmp_path


@pytest.fixture
def results(output: Path) -> Results:
    return Results.read(output, [HYBRID, CIF, PLAID], [0, 1])


def rows(table) -> dict[str, dict[str, str]]:  # type: ignore[no-untyped-def]
    header, *lines = table.rows
    assert all(len(line) == len(header) for line in lines)
    return {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in lines}


def test_trainings_are_means_over_seeds_with_errors(results: Results) -> None:
    found = rows(training_table(results))
    assert found["wyckoff"]["NLL, equal FLOPs"] == "41.00 ± 1.00"
    assert found["wyckoff"]["round trip"] == "90.0 %"
    assert found["cif"]["NLL, equal FLOPs"] == "60.00"
    assert found["cif"]["round trip"] == "–"
    assert "plaid" not in found  # it was not trained


def test_rates_are_of_all_attempts_of_all_seeds(results: Results) -> None:
    rate = results.rate(HYBRID, "free", "metastable S.U.N.")
    assert rate is not None
    assert rate.fraction == "50 / 200"
    found = rows(samples_table(results, "free"))
    assert found["wyckoff"]["metastable S.U.N."] == rate.text
    assert found["wyckoff"]["crystals/s"] == "2.0 ± 0.0"
    assert found["wyckoff"]["metastable S.U.N. per CPU second"] == "0.500 ± 0.100"
    assert found["wyckoff"]["unique"] == "–"
    assert found["wyckoff"]["metastable (Other)"].startswith("7.0 ± ")  # by the second judge
    assert "cif" not in found
    assert "wyckoff" not in rows(samples_table(results, "grammar"))


def test_what_is_missing_is_told(results: Results) -> None:
    text = " ".join(notes(results, BudgetConfig(), Resolution()))
    assert "runs are not finished: " in text
    assert "cif-own-canonical/train-seed1" in results.missing
    assert not any("wyckoff-hybrid" in name for name in results.missing)


def test_numbers_come_in_a_file(results: Results, tmp_path: Path) -> None:
    write_csv(results, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    nll = [line for line in lines if line["name"] == "nll"]
    assert [float(line["value"]) for line in nll] == [40, 42, 60]
    sun = [line for line in lines if line["name"] == "metastable S.U.N."]
    assert [(line["seed"], line["count"], line["total"]) for line in sun] == [
        *(("0", "20", "100"), ("1", "30", "100")),
    ]


def test_pictures_show_what_is_there(results: Results) -> None:
    figure = trade_off(results)
    left, right = figure.axes
    assert left.get_legend_handles_labels()[1] == ["wyckoff", "cif"]
    assert right.get_legend_handles_labels()[1] == ["wyckoff"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["wyckoff", "cif"]
    assert not trade_off(Results(results.variants, results.seeds, {})).legends
    (axes,) = learning_curves(results, 0).axes
    drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_allclose(drawn["cif"], [[0.01, 61], [0.1, 60]])
