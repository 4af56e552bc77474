"""Parts of the contest on alloys: what is chosen, counted and timed."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("qwix")

from crystaljax.alloys.family import BCC_B2
from crystaljax.experiment.alloy_contest import (
    ContestConfig,
    Entrant,
    Teaching,
    _Clock,
    best_of,
    measures,
    n_systems,
)
from crystaljax.experiment.alloys import BestConfig, Samples
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.training.reinforce import ReinforceConfig
from crystaljax.training.sft import SftConfig

RULES = tuple(BCC_B2.rules)


def samples(*pairs: tuple[str, float]) -> Samples:
    """Texts of a BCC with NiAl, and their rewards; nan is one that could not be judged."""
    texts = [f"<BCC>{bcc}</BCC> <B2>NiAl</B2> <B2_Volume>40</B2_Volume>" for bcc, _ in pairs]
    values = np.array([value for _, value in pairs])
    info = {name: (values > -1).astype(float) for name in RULES}
    return Samples(texts, RewardBatch.from_values(values, info), [])


FEW = samples(("Cr", -0.2), ("CrV", -11.0), ("Cr60V40", -0.1), ("Cr", -0.2), ("V", np.nan))


def test_the_best_of_each_group() -> None:
    assert best_of(FEW, 2).judged.value.tolist()[:2] == [-0.2, -0.1]
    assert best_of(FEW, 2).texts == [FEW.texts[0], FEW.texts[2], FEW.texts[4]]
    assert best_of(FEW, 1).texts == FEW.texts
    assert FEW.best(3).texts == [FEW.texts[2], FEW.texts[0], FEW.texts[1]]  # each text once


def test_systems_are_counted_among_the_best() -> None:
    assert n_systems(FEW, BCC_B2) == 2  # Cr, and Cr with V; V could not be judged
    assert n_systems(FEW, BCC_B2, 1) == 1


def test_means_over_seeds() -> None:
    better = samples(("Cr", -0.1), ("CrV", -0.3))
    found = measures([Entrant(FEW.first(4), 16, 2.0), Entrant(better, 16, 4.0)], BCC_B2)
    assert found["mean reward"].value == pytest.approx(np.mean([-11.5 / 4, -0.2]))
    assert found["best reward"].value == pytest.approx(-0.1)
    assert found["all rules (%)"].value == pytest.approx((75 + 100) / 2)
    assert found["distinct (%)"].value == pytest.approx((75 + 100) / 2)
    assert (found["judged"].value, found["seconds"].value) == (16, 3)


def test_seconds_of_a_method_are_measured_once(tmp_path: Path) -> None:
    clock = _Clock(tmp_path / "seconds.jsonl")
    with clock("first"):
        pass
    with pytest.raises(KeyboardInterrupt), clock("second"):
        raise KeyboardInterrupt
    again = _Clock(tmp_path / "seconds.jsonl")
    assert again.seconds["first"] == clock.seconds["first"] > 0
    with again("first"):
        pass
    with again("second"):
        pass
    assert again.seconds["first"] == clock.seconds["first"]
    assert np.isnan(again.seconds["second"])  # its first part is not known


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="a multiple of four, not 6"):
        ContestConfig(calls=6)
    with pytest.raises(ValueError, match="4 calls are too few for 9 rounds"):
        ContestConfig(calls=4, rounds=9)
    grpo = ReinforceConfig(batch_size=20, group_size=20)
    teaching = Teaching(SftConfig(), BestConfig(), {}, grpo, RewardBounds())
    assert teaching.grpo_steps(180) == 9
    with pytest.raises(ValueError, match="GRPO learns from 30 candidates, which are no multiple"):
        teaching.grpo_steps(30)
