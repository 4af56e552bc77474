"""experiments/alloys.py: the numbers of arXiv 2511.12036, and what is seen before it trains."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alloy_tables import bcc, table

from crystaljax.alloys.composition import read_candidate
from crystaljax.alloys.dataset import PairsConfig, candidates
from crystaljax.alloys.engines.table import write_table
from crystaljax.alloys.engines.thermodynamics import Equilibria
from crystaljax.alloys.evaluation.metrics import AlloyEvaluationConfig
from crystaljax.alloys.family import BCC_B2, load_family
from crystaljax.alloys.grid import GridConfig, Roles
from crystaljax.alloys.lists import PhaseLists
from crystaljax.alloys.reward import AlloyConfig, AlloyReward, EngineConfig
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


def of_all(path: Path, **composition: float) -> EngineConfig:
    """An engine of a table with one composition."""
    write_table(path, Equilibria.from_points([composition], [400.0, 500.0], [["none", "none"]]))
    return EngineConfig(str(path), "table")


@pytest.mark.parametrize("name", ["bcc-b2", "fcc-l12", "file"])
def test_a_family_brings_its_prompts_and_tokens(
    experiment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The small preset learns candidates that the family reads, whatever the family."""

    class Reached(Exception):
        pass

    def load(model: Any, texts: list[str]) -> None:
        assert model.added_tokens == family.tags.tokens
        answers = [text for text in texts if "<" in text]
        assert answers and all(read_candidate(one, tags=family.tags)[0] for one in answers)
        raise Reached

    bench = import_module("crystaljax.experiment.alloys")
    monkeypatch.setattr(bench, "load_text_policy", load)
    file = tmp_path / "mine.py"
    file.write_text(
        "from crystaljax.alloys.family import FCC_L12\nfamily = lambda: FCC_L12\n", "utf-8"
    )
    source = f"{file}:family" if name == "file" else name
    family = load_family(source)
    engine = of_all(tmp_path / "table.npz", Al=0.25, Co=0.25, Cr=0.25, Ni=0.25)
    lists = "alcocrni" if name == "bcc-b2" else "fcc-l12"
    config = experiment.Config(
        data=experiment.DataConfig(lists=lists),
        reward=AlloyConfig(engine, temperatures=(400.0, 500.0), family=source),
        output=tmp_path / "run",
    )
    with pytest.raises(Reached):
        experiment.main(config)
    other = "alloy_fcc_l12_short" if name == "bcc-b2" else "alloy_short"
    wrong = replace(config, data=replace(config.data, template=other), output=tmp_path / "other")
    with pytest.raises(ValueError, match=rf"'{other}' are no candidates .*data\.template"):
        experiment.main(wrong)


def test_the_reference_mixes_as_the_reward_does(experiment: Any, tmp_path: Path) -> None:
    """Al-Mg-Cu has no atomic volumes of BCC: it can only be mixed by mole."""
    bench = import_module("crystaljax.experiment.alloys")
    elements = ("Al", "Cu", "Mg")
    roles = Roles(elements, elements, elements)
    engine = of_all(tmp_path / "table.npz", Al=0.4, Cu=0.3, Mg=0.3)
    bcc_, b2_ = ({"Al": 1.0}, {"Mg": 1.0}), ({"Al": 1.0, "Cu": 1.0},)
    lists = PhaseLists(bcc_, b2_, engine, GridConfig(roles), 0.99, (400.0,), "bcc", {})
    train, validation = candidates(lists.bcc, lists.b2, PairsConfig(validation=0.5))
    config = AlloyConfig(engine, temperatures=(400.0, 500.0), mix_by="mole")
    metrics = AlloyEvaluationConfig(oxidation_table="icsd24", novelty=1e-3)
    data = bench.DataConfig(metrics=metrics)
    with AlloyReward(config) as reward:
        lists.check(reward)
        found = bench.data_reference(data, lists, train, validation, reward)
    assert found.space.mix_by == "mole"
    assert found.config == metrics
    assert np.isfinite(found.training).all() and np.isfinite(found.held_out).all()


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
