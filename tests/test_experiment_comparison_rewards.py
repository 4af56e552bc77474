"""Learning by reward in a comparison: what is counted, and budgets that do not agree."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from crystaljax.experiment.comparison.reward_learning import (
    RewardLearningConfig,
    TellsMetastable,
    check_learning,
    curves_figure,
)
from crystaljax.experiment.comparison.runs import Run
from crystaljax.experiment.comparison.tables import Results
from crystaljax.experiment.comparison.variants import Variant
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.rewards.hull import Hull
from crystaljax.training.preference import PreferenceConfig
from crystaljax.training.rollouts import prepare


def test_metastable_samples_are_counted_among_all() -> None:
    def reward(items: np.ndarray) -> RewardBatch:
        above = np.asarray(items, float)
        return RewardBatch.from_values(-above, {"e_above_hull": above})

    above = np.array([0.0, 0.1, 0.11, np.nan])
    judged = TellsMetastable(reward)(above)
    assert judged.info["metastable"].tolist() == [True, True, False, False]
    np.testing.assert_array_equal(judged.value, -above)
    _, metrics = prepare(judged, RewardBounds(invalid=-1.0))
    assert metrics["reward/metastable"] == 0.5


def test_methods_get_the_same_number_of_rewards() -> None:
    config = RewardLearningConfig()
    assert len(set(config.n_rewards.values())) == 1
    with pytest.raises(ValueError, match="50 rewards for DPO and 7000 for GRPO"):
        dataclasses.replace(config, dpo=PreferenceConfig(n_iterations=1, n_samples=50))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_parts": 3}, "rl.dpo: batch_size 25 cannot be split into n_parts 3"),
        ({"n_parts": 25, "grpo": {"n_minibatches": 2}}, "n_minibatches 2"),
    ],
)
def test_batches_that_cannot_be_split_are_refused(change: dict[str, Any], message: str) -> None:
    config = RewardLearningConfig()
    grpo = dataclasses.replace(config.grpo, **change.pop("grpo", {}))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, grpo=grpo, **change)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RewardLearningConfig(guards=("sparse",)), "no guard is named 'sparse'"),
        (
            RewardLearningConfig(
                dpo=PreferenceConfig(n_iterations=7, n_samples=1000, temperature_step=-0.2)
            ),
            "rl.dpo: the sampling temperature of the last iteration must be above 0",
        ),
    ],
)
def test_what_would_fail_after_the_trainings_is_told_before(
    config: RewardLearningConfig, message: str
) -> None:
    comparison: Any = SimpleNamespace(
        stability=SimpleNamespace(hull=Hull.from_entries(["Na"], [0.0])),
        samples=SimpleNamespace(temperature=1.0),
    )
    check_learning(comparison, RewardLearningConfig(guards=("sparse-hull",)))
    with pytest.raises(ValueError, match=message):
        check_learning(comparison, config)


def test_curves_are_drawn_over_rewards(tmp_path) -> None:  # type: ignore[no-untyped-def]
    variant = Variant("cif", "own")
    points = [[100, 0.5], [200, 0.25]]
    names = ("metastable", "unique", "novel", "KL from the trained model (nats)")
    Run(variant, "dpo", 0).finish(tmp_path, {"curves": dict.fromkeys(names, points)})
    results = Results.read(tmp_path, [variant], [0])
    figure = curves_figure(results, "dpo", 0)
    assert figure is not None
    first, *_, last = figure.axes
    np.testing.assert_allclose(first.lines[0].get_xydata(), [[100, 50], [200, 25]])
    np.testing.assert_allclose(last.lines[0].get_xydata(), points)
    assert curves_figure(results, "grpo", 0) is None
