"""The report of the experiment on alloys."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("qwix")

from crystaljax.experiment.alloy_report import best_candidates, best_rows
from crystaljax.experiment.alloys import Samples
from crystaljax.rewards.base import RewardBatch


def run(**found: tuple[list[str], list[float], dict[str, list[float]]]) -> Any:
    """A seed with samples: texts, rewards and what else was told of them."""
    samples = {
        label: Samples(
            texts,
            RewardBatch.from_values(np.array(values), {k: np.array(x) for k, x in info.items()}),
            [],
        )
        for label, (texts, values, info) in found.items()
    }
    return SimpleNamespace(samples=samples)


def test_the_best_with_what_is_not_known_of_them() -> None:
    doubts = {"bound": [-0.05, np.nan, -1.2], "missing": [0, 0, 0], "extrapolated": [1, 0, 4]}
    runs = [
        run(SFT=(["a", "b", "c"], [-0.02, np.nan, -1.0], doubts)),
        run(DPO=(["a", "d"], [-0.02, -0.5], {})),  # judged before it was told
    ]
    best = best_candidates(runs)
    assert [one.text for one in best] == ["a", "d", "c"]
    titles, *rows = best_rows(best)
    assert [dict(zip(titles, row, strict=True)) for row in rows] == [
        {"reward": "-0.02", "at least": "-0.05", "lacking pairs, triples": "0, 1"}
        | {"found by": "SFT", "candidate": "a"},
        {"reward": "-0.5", "at least": "–", "lacking pairs, triples": "–"}
        | {"found by": "DPO", "candidate": "d"},
        {"reward": "-1", "at least": "-1.2", "lacking pairs, triples": "0, 4"}
        | {"found by": "SFT", "candidate": "c"},
    ]
