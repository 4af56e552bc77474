"""Parts of the contest on alloys: what is chosen, counted and timed."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("qwix")

from crystaljax.alloys.baselines.optimize import SearchConfig
from crystaljax.alloys.family import BCC_B2
from crystaljax.alloys.lists import load_lists
from crystaljax.experiment.alloy_contest import (
    ContestConfig,
    Entrant,
    Teaching,
    _Clock,
    best_of,
    compete,
    curation_note,
    finish_contest,
    measures,
    n_systems,
)
from crystaljax.experiment.alloys import BestConfig, Samples
from crystaljax.experiment.experiment import Experiment
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.text.generation import GenerationConfig
from crystaljax.tracking import TrackingConfig
from crystaljax.training.reinforce import ReinforceConfig
from crystaljax.training.sft import SftConfig
from crystaljax.training.text_preference import TextPreferenceConfig

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


class Bench:
    """Counts what each method has judged, in place of models and equilibria."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.generation = GenerationConfig()
        self.judged: Counter[str] = Counter()
        self.learnt: list[tuple[str, int]] = []

    def _drawn(self, name: str, n: int) -> Samples:
        self.judged[name] += n
        random = np.random.default_rng(len(self.judged))
        pairs = [(f"Cr{50 + k % 40}V{50 - k % 40}", -float(random.random())) for k in range(n)]
        return samples(*pairs)

    def searched(
        self,
        config: SearchConfig,
        name: str = "",
        start: object = None,
        listed: bool = False,
    ) -> Samples:
        assert listed == name.endswith("_listed")
        if start is not None:
            assert isinstance(start, Samples)
            self.learnt.append((name, len(start.texts)))
        return self._drawn(name or config.method, config.calls)

    def sft(self, config: SftConfig) -> str:
        return "SFT"

    def refined(self, name: str, start: str, kept: Samples, config: SftConfig) -> str:
        assert start == "SFT"
        self.learnt.append((name, len(kept.texts)))
        return name

    def staged(self, name: str, start: str, pool: Samples, best: object, stages: list) -> str:
        self.learnt.append((name, len(pool.texts)))
        assert len(stages) == (2 if name == "DPO in stages" else 1)
        return name

    def grpo(self, name: str, start: str, config: ReinforceConfig, bounds: object) -> str:
        self.judged["GRPO"] += config.n_steps * config.batch_size
        return name

    def samples(self, name: str, params: str, n: int, stream: int, how: object) -> Samples:
        return self._drawn(f"{name} {stream}", n)


def test_all_methods_have_as_many_candidates_judged(tmp_path: Path) -> None:
    bench, config = Bench(tmp_path), ContestConfig(calls=48)
    teaching = Teaching(
        SftConfig(),
        BestConfig(),
        {"DPO": TextPreferenceConfig(), "DPO + anchor": TextPreferenceConfig(anchor=1.0)},
        ReinforceConfig(batch_size=12, group_size=12),
        RewardBounds(),
    )
    found = compete(bench, config, teaching, SearchConfig(), GenerationConfig())  # type: ignore[arg-type]
    assert list(found) == [
        *("random", "TPE", "NSGA-II", "CMA-ES", "random, of the lists", "TPE, of the lists"),
        *("SFT", "best of 4", "iterated SFT", "DPO"),
        *("DPO + anchor", "DPO in stages", "GRPO", "SFT + TPE"),
    ]
    assert {len(one.proposed.texts) for one in found.values()} == {12}
    assert {one.n_judged for one in found.values()} == {48}
    judged = bench.judged
    for name in ("random", "tpe", "nsga2", "cma", "random_listed", "tpe_listed"):
        assert judged[name] == 48
    pool = sum(n for name, n in judged.items() if name.startswith("SFT/"))
    assert pool == 48  # which best-of-4 has, too
    # Each model that learns from the pool, or from a part of it, has the rest for itself.
    learnt = dict(bench.learnt)
    assert {learnt[name] for name in ("DPO", "DPO + anchor", "DPO in stages")} == {36}
    assert sum(n for name, n in judged.items() if name.startswith("iterated")) == 48 - 12
    assert [learnt[f"iterated SFT/{n}"] for n in (1, 2, 3)] == [3, 6, 9]
    assert sum(n for name, n in judged.items() if name.startswith("GRPO")) == 48
    assert judged["sft_tpe"] + learnt["sft_tpe"] == 48
    with Experiment(
        ContestConfig(), tmp_path / "out", TrackingConfig(mode="disabled"), "contest"
    ) as experiment:
        page = finish_contest(experiment, BCC_B2, {0: found, 1: found})
    assert "SFT + TPE" in page.read_text(encoding="utf-8")
    assert "The first by best reward" in page.read_text(encoding="utf-8")
    assert len((tmp_path / "out" / "contest.csv").read_text().splitlines()) == 1 + len(found)


def test_a_method_of_which_nothing_is_known_is_not_first(tmp_path: Path) -> None:
    """It is the first in the table, and has no best reward."""
    none = Entrant(samples(("Cr", np.nan), ("V", np.nan)), 8, 1.0)
    found = {"random": none, "SFT": Entrant(FEW, 8, 1.0), "DPO": Entrant(FEW.first(2), 8, 1.0)}
    lists = load_lists("alcocrni")
    with Experiment(
        ContestConfig(), tmp_path / "out", TrackingConfig(mode="disabled"), "contest"
    ) as experiment:
        finish_contest(experiment, BCC_B2, {0: found}, [curation_note(lists)])
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["notes"]
    assert "The first by best reward: SFT -0.1, DPO -0.2." in notes
    (curated,) = [note for note in notes if "curation" in note]
    # Its provenance: 802 of BCC and 61 of B2.
    assert "110 matrices and 17 precipitates, for which 863 compositions" in curated
    assert "an unknown number of" in curation_note(replace(lists, provenance={}))


@pytest.mark.parametrize(
    ("batch_size", "n_parts", "n", "expected"),
    [(16, 1, 15, (15, 1)), (16, 1, 16, (16, 1)), (16, 4, 15, (12, 4)), (16, 4, 3, (3, 3))],
)
def test_batches_are_no_larger_than_what_there_is(
    batch_size: int, n_parts: int, n: int, expected: tuple[int, int]
) -> None:
    found = SftConfig(batch_size=batch_size, n_parts=n_parts).fitting(n)
    assert (found.batch_size, found.n_parts) == expected
