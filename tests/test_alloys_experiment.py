"""experiments/alloys.py: the numbers of arXiv 2511.12036, and what is seen before it trains."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alloy_tables import bcc, table

from crystaljax.alloys.engines.table import write_table
from crystaljax.alloys.family import BCC_B2
from crystaljax.alloys.reward import AlloyConfig, EngineConfig
from crystaljax.alloys.rules import OTHERS

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    for package in ("qwix", "transformers"):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return import_module("alloys")


def test_the_reward_is_equation_one() -> None:
    assert [rule.cost for rule in BCC_B2.rules.values()] == [1000, 100, 10, 1]
    assert OTHERS == 0.10


def test_the_numbers_of_the_paper(experiment: Any) -> None:
    config = experiment.PRESETS["paper"][1]
    pairs = config.data.pairs  # section 3 and A.2
    assert (pairs.volumes, pairs.volumes_of_pair) == ("normal", 3)
    assert pairs.volume_range == (0.20, 0.70)
    assert (config.model.lora.rank, config.model.lora.alpha) == (8, 32)
    assert config.model.lora.targets == ("q_proj", "v_proj")  # A.3
    assert config.model.quantized == "int8"
    assert (config.sft.n_epochs, config.sft.batch_size) == (5, 2 * 3 * 4)  # A.3
    assert config.sft.optimizer.schedule == "cosine"
    best = config.best  # A.4
    assert (best.n_samples, best.best, best.worst, best.n_rejected) == (5000, 0.25, 1.0, 100)
    assert (config.dpo.beta, config.dpo.n_epochs) == (0.5, 1)  # A.5
    assert best.by_rank
    assert not config.reward.rules.crossing
    assert config.data.covered == "space"
    assert config.dpo.batch_size == config.sft.batch_size  # "the same configuration"
    assert config.dpo.optimizer == config.sft.optimizer
    assert config.n_evaluated >= 1000  # section 5.1
    for drawn in (config.generation, config.decoding):
        assert (drawn.temperature, drawn.top_p, drawn.top_k) == (1.0, 1.0, 0)
    assert not config.data.held  # no grammar
    assert not config.remedies
    temperatures = np.array(config.reward.temperatures)  # figure 9
    assert (temperatures[0], temperatures[-1]) == pytest.approx((373.15, 2273.15))
    np.testing.assert_allclose(np.diff(temperatures), 100)


def test_pairs_are_as_many_as_in_the_paper(experiment: Any) -> None:
    from crystaljax.training.preference import ranked_pairs

    best = experiment.PRESETS["paper"][1].best
    rewards = np.random.default_rng(0).normal(size=best.n_samples)
    rows = ranked_pairs(rewards, best.best, best.worst, best.n_rejected, np.random.default_rng(1))
    assert len(rows) == 125_000


def test_lists_that_the_engine_cannot_judge_end_the_run_before_it_trains(
    experiment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = import_module("crystaljax.experiment.alloys")
    monkeypatch.setattr(bench, "load_text_policy", None)  # is not reached
    path = tmp_path / "table.npz"
    write_table(path, table([[bcc(1.0)], [bcc(1.0)]]))  # of Al, Cr and Ni
    engine = EngineConfig(str(path), "table")
    config = experiment.Config(
        data=experiment.DataConfig(lists="al-fe-mn-ti"),
        reward=AlloyConfig(engine, temperatures=(400.0, 500.0)),
        output=tmp_path / "run",
    )
    with pytest.raises(ValueError, match=r"table\.npz has no Fe, Mn, Ti, only Al, Cr, Ni: choose"):
        experiment.main(config)
