"""The reward of texts, on a table instead of an engine."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alloy_tables import b2, bcc, liquid, sigma, table

from crystaljax.alloys.composition import master, read_candidate
from crystaljax.alloys.engines.choice import other_engine
from crystaljax.alloys.engines.table import TableEngine, composition_key, read_key, write_table
from crystaljax.alloys.engines.thermodynamics import Equilibria, Point
from crystaljax.alloys.reward import (
    AlloyConfig,
    AlloyReward,
    EngineConfig,
    MixtureReward,
    create_engine,
)
from crystaljax.alloys.rule_rewards import RulesConfig, rule_rewards
from crystaljax.alloys.rules import NO_MISMATCH
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.completions import Completion
from crystaljax.rewards.inputs import Items
from crystaljax.rewards.pool import Pool, PoolConfig

TEMPERATURES = (400.0, 1000.0, 1600.0, 2000.0)
GOOD = "<BCC>Cr</BCC> <B2>NiAl</B2> <B2_Volume>40</B2_Volume>"
POOR = "<BCC>Cr</BCC> <B2>NiAl</B2> <B2_Volume>60</B2_Volume>"
LOST = "<BCC>Cr</BCC> <B2>NiAl</B2> <B2_Volume>20</B2_Volume>"
UNKNOWN = "<BCC>Cr</BCC> <B2>NiAl</B2> <B2_Volume>30</B2_Volume>"
POINTS: dict[str, list[Point]] = {
    GOOD: [
        [bcc(0.6, 2.90), b2(0.4, 2.93)],
        [bcc(0.7, 2.91), b2(0.3, 2.925)],
        [bcc(0.5), liquid(0.5)],
        [liquid(1.0)],
    ],
    POOR: [[bcc(0.5), sigma(0.5)], [b2(1.0)], [b2(0.5), liquid(0.5)], [liquid(1.0)]],
    LOST: [[bcc(1.0)], "it hung", "it hung", "it hung"],
}


def mixture(text: str) -> dict[str, float]:
    candidate, _ = read_candidate(text)
    assert candidate is not None
    return master(candidate)


def equilibria() -> Equilibria:
    return Equilibria.from_points(
        [mixture(text) for text in POINTS], np.array(TEMPERATURES), list(POINTS.values())
    )


@pytest.fixture
def config(tmp_path: Path) -> AlloyConfig:
    path = tmp_path / "table.npz"
    write_table(path, equilibria())
    return AlloyConfig(EngineConfig(str(path), "table"), temperatures=TEMPERATURES)


def test_equation_one() -> None:
    judged = rule_rewards(equilibria())
    np.testing.assert_allclose(judged.value, [-0.015, -1111, np.nan])
    np.testing.assert_array_equal(judged.info["coexist"], [1, 0, 0])
    np.testing.assert_array_equal(judged.info["failed_points"], [0, 0, 3])
    np.testing.assert_allclose(judged.info["mismatch"], [0.015, np.nan, np.nan])
    assert judged.reasons[2] == "3 temperatures failed: it hung"


def test_the_cautious_bound(config: AlloyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower by the lattice model's error; all is in doubt where a pair of elements is missing."""
    texts = [GOOD, POOR, LOST, "none"]
    with AlloyReward(config) as reward:
        found = reward.judge_texts(texts)
        monkeypatch.setattr(
            TableEngine, "missing", frozenset({frozenset({"Al", "Cr"}), frozenset({"Al", "Ti"})})
        )
        thin = reward.judge_texts(texts)
        identity = reward.identity
    np.testing.assert_allclose(found.info["bound"], [-0.015 - 0.03, -1111, -1500, -2000])
    assert np.isnan(found.info["missing"]).all()  # a table does not tell
    np.testing.assert_array_equal(thin.value, found.value)
    np.testing.assert_array_equal(thin.info["missing"], [1, 1, 1, np.nan])
    np.testing.assert_allclose(thin.info["bound"], [-1111 - 0.015 - 0.03, -1111, -1500, -2000])
    with AlloyReward(replace(config, cautious=True)) as cautious:
        np.testing.assert_array_equal(cautious.judge_texts(texts).value, thin.info["bound"])
        assert cautious.identity == f"{identity} cautious"


def test_missing_triples_are_told_and_doubted_if_asked_for(
    config: AlloyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are usual, so that by default rules are not in doubt for want of them."""
    lacking = frozenset({frozenset({"Al", "Cr", "Ni"}), frozenset({"Al", "Ni", "Ti"})})
    monkeypatch.setattr(TableEngine, "missing", lacking)
    texts = [GOOD, POOR, "none"]
    with AlloyReward(config) as reward:
        found = reward.judge_texts(texts)
        identity, limits = reward.identity, " ".join(reward.limits)
    np.testing.assert_array_equal(found.info["missing"], [0, 0, np.nan])
    np.testing.assert_array_equal(found.info["extrapolated"], [1, 1, np.nan])
    np.testing.assert_allclose(found.info["bound"], [-0.045, -1111, -2000])
    assert "triples of elements, which mix as their pairs tell: Al-Cr-Ni, Al-Ni-Ti." in limits
    assert "0.03 Å" in limits
    with AlloyReward(replace(config, lack="triples")) as reward:
        doubted = reward.judge_texts(texts)
        assert reward.identity == f"{identity} of triples"
    np.testing.assert_array_equal(doubted.value, found.value)
    np.testing.assert_allclose(doubted.info["bound"], [-1111.045, -1111, -2000])


def second(tmp_path: Path, **points: list[Point]) -> str:
    """Another database: other phases of GOOD, and POOR's."""
    series = {GOOD: points["good"], POOR: POINTS[POOR]}
    path = tmp_path / "second.npz"
    mixtures = [mixture(text) for text in series]
    write_table(path, Equilibria.from_points(mixtures, np.array(TEMPERATURES), [*series.values()]))
    return str(path)


def test_databases_disagree(config: AlloyConfig, tmp_path: Path) -> None:
    """Rewards are the first database's; the spread and the bound are of all that could judge."""
    good: list[Point] = [[bcc(1.0)], [bcc(0.7, 2.91), b2(0.3, 2.92)], *POINTS[GOOD][2:]]
    other = second(tmp_path, good=good)
    texts = [GOOD, POOR, LOST, "none", UNKNOWN]
    kept = replace(config, cache=tmp_path / "rewards.sqlite")
    with AlloyReward(kept) as reward:
        alone, identity = reward.judge_texts(texts), reward.identity
    assert "spread" not in alone.info
    with AlloyReward(replace(kept, others=(other,))) as reward:
        found = reward.judge_texts(texts)
        assert reward.identity.startswith(f"{identity} and alloy ")
        assert (
            "Candidates whose elements others know are also judged by: second.npz." in reward.limits
        )
        nothing = reward.judge_texts(["a"])
        assert set(nothing.info) == set(found.info)
    np.testing.assert_array_equal(found.value, alone.value)
    np.testing.assert_array_equal(found.info["databases"], [2, 2, 0, np.nan, 0])
    # The other has no B2 when it is cold, and a mismatch of 0.01 Å.
    np.testing.assert_allclose(found.info["spread"], [9.995, 0, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(found.info["bound"], [-10.04, -1111, -1500, -2000, -1500])


def test_a_database_says_nothing_of_what_it_lacks(
    config: AlloyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = second(tmp_path, good=POINTS[POOR])
    with AlloyReward(replace(config, others=(other,))) as reward:
        engine = reward._others[0].engine
        lacks = property(lambda self: {frozenset({"Al", "Ni"})} if self is engine else set())
        monkeypatch.setattr(TableEngine, "missing", lacks)
        found = reward.judge_texts([GOOD])
    assert found.info["databases"] == 1
    assert np.isnan(found.info["spread"])
    assert found.info["bound"] == pytest.approx(-0.045)


def test_engines_of_other_databases() -> None:
    mine = EngineConfig("my.tdb", exclude=("SIGMA",), partition=("B2", "A2"))
    assert other_engine("b.tdb", mine) == EngineConfig("b.tdb")
    assert other_engine("b.npz", mine) == EngineConfig("b.npz", "table")
    licensed = EngineConfig("TCHEA7", "tc-python")
    assert other_engine("TCHEA6", licensed) == EngineConfig("TCHEA6", "tc-python")
    assert other_engine("b.tdb", licensed) == EngineConfig("b.tdb")
    assert other_engine("b.TDB", EngineConfig("a.csv", "table")) == EngineConfig("b.TDB")


def test_the_bound_can_be_asked_for_on_the_command_line() -> None:
    import tyro

    asked = ["--cautious", "--lack", "triples", "--others", "alcrni.tdb", "b.npz"]
    config = tyro.cli(AlloyConfig, args=asked)
    assert (config.cautious, config.lack) == (True, "triples")
    assert config.others == ("alcrni.tdb", "b.npz")


def test_a_batch_of_failures_alone(config: AlloyConfig) -> None:
    """Workers that die tell no columns."""

    def dead(keys: Items) -> RewardBatch:
        return RewardBatch.from_values(np.full(len(keys), np.nan), reasons=["died"] * len(keys))

    with AlloyReward(config) as reward:
        reward.served = dead
        found = reward.judge_texts([GOOD])
    assert (found.value, found.info["bound"]) == (-1500, -1500)
    assert np.isnan(found.info["missing"])
    assert np.isnan(found.info["mismatch"])


def test_each_rule_has_its_price() -> None:
    """From no coexistence at all down to the one rule that is looked at above 1,100 K."""
    for option, cost in [
        ("coexist_from", 1000),
        ("bcc_first_from", 100),
        ("b2_from", 10),
        ("mismatch_from", NO_MISMATCH - 0.015),
    ]:
        judged = rule_rewards(equilibria()[:1], RulesConfig(**{option: 1700.0}))
        assert judged.value[0] == pytest.approx(-0.015 - cost)
    poor = rule_rewards(equilibria()[1:2], RulesConfig(others_from=500.0))
    assert poor.value[0] == pytest.approx(-1110)
    never = rule_rewards(equilibria()[1:2], RulesConfig(mismatch_from=1700.0))
    assert never.value[0] == pytest.approx(-1111)  # it has paid for that already


def test_what_is_unknown_is_never_the_best() -> None:
    """A candidate of which something is unknown is not ok, and says what."""
    series = POINTS[GOOD]
    unknown: list[list[Point]] = [
        [[bcc(0.6), b2(0.4, float("nan"))], *series[1:]],
        ["it hung", *series[1:]],
        [[bcc(0.6), b2(float("nan"))], *series[1:]],
        ["it hung", *series[1:3], "it hung"],
    ]
    judged = rule_rewards(
        Equilibria.from_points([mixture(GOOD)] * 4, np.array(TEMPERATURES), unknown)
    )
    np.testing.assert_array_equal(judged.ok, False)
    assert np.isnan(judged.value).all()
    assert "a lattice parameter of BCC or B2 is unknown" in (judged.reasons[0] or "")
    for reason, why in zip(judged.reasons[1:], ["it hung", "no numbers", "it hung"], strict=True):
        assert reason is not None
        assert "unknown, for temperatures failed: b2_at_room_temperature" in reason
        assert why in reason
    np.testing.assert_array_equal(judged.info["b2_at_room_temperature"], [1, *[np.nan] * 3])


def test_a_mismatch_of_failed_temperatures_is_unknown() -> None:
    points: list[Point] = [*POINTS[GOOD][:2], "it hung", "it hung"]
    table = Equilibria.from_points([mixture(GOOD)], np.array(TEMPERATURES), [points])
    judged = rule_rewards(table, RulesConfig(mismatch_from=1500.0))
    assert judged.reasons == ["unknown, for temperatures failed: mismatch (it hung)"]


def test_a_failure_elsewhere_is_passed_over() -> None:
    series = POINTS[GOOD]
    points: list[Point] = [series[0], "it hung", *series[2:]]
    judged = rule_rewards(Equilibria.from_points([mixture(GOOD)], np.array(TEMPERATURES), [points]))
    assert judged.value[0] == pytest.approx(-0.03)


def test_an_unknown_lattice_does_not_matter_without_coexistence() -> None:
    nan = float("nan")
    points: list[Point] = [[bcc(1.0, nan)], [bcc(1.0, nan)], [liquid(1.0)], [liquid(1.0)]]
    judged = rule_rewards(Equilibria.from_points([mixture(GOOD)], np.array(TEMPERATURES), [points]))
    assert judged.value[0] == -1010


def test_the_order_of_temperatures_does_not_matter(config: AlloyConfig, tmp_path: Path) -> None:
    from dataclasses import replace

    cache = tmp_path / "rewards.sqlite"
    ways = [
        replace(config, cache=cache, temperatures=t) for t in (TEMPERATURES, TEMPERATURES[::-1])
    ]
    values, identities = [], []
    for way in ways:
        with AlloyReward(way) as reward:
            values.append(reward.judge_texts([GOOD, POOR, LOST]).value)
            identities.append(reward.identity)
    np.testing.assert_array_equal(*values)
    assert identities[0] == identities[1]
    with AlloyReward(replace(config, mix_by="mole")) as reward:
        assert reward.identity != identities[0]
    rewards = [
        MixtureReward(TableEngine(equilibria()), temperatures=np.array(t))(
            [composition_key(mixture(GOOD))]
        )
        for t in (TEMPERATURES, TEMPERATURES[::-1])
    ]
    assert rewards[0].value == rewards[1].value == pytest.approx(-0.015)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperatures": (400.0, float("nan"))}, "different finite numbers"),
        ({"temperatures": ()}, "different finite numbers"),
        ({"temperatures": (400.0, 400.0)}, "different finite numbers"),
        ({"rules": RulesConfig(mismatch_from=2500.0)}, "mismatch_from is 2500 K, and the highest"),
        ({"invalid": float("nan")}, "invalid must be a finite reward"),
    ],
)
def test_configurations_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlloyConfig(**changes)
    with pytest.raises(ValueError, match="coexist_from must be a temperature"):
        RulesConfig(coexist_from=float("nan"))
    with pytest.raises(ValueError, match="max_failed"):
        RulesConfig(max_failed=-1)


def test_options_of_other_engines_are_refused() -> None:
    with pytest.raises(ValueError, match="table cannot leave out phases"):
        create_engine(EngineConfig("t.npz", "table", exclude=("SIGMA",)))
    with pytest.raises(ValueError, match="the elements of a table are fixed"):
        create_engine(EngineConfig("t.npz", "table", elements=("Al",)))


def test_texts_are_judged_and_failures_counted(config: AlloyConfig) -> None:
    texts = [POOR, "nonsense", GOOD, GOOD.replace("Cr", "W"), LOST, UNKNOWN, f"Try {GOOD}!"]
    with AlloyReward(config) as reward:
        judged = reward([Completion({}, text, True) for text in texts])
    np.testing.assert_allclose(judged.value, [-1111, -2000, -0.015, -2000, -1500, -1500, -0.015])
    np.testing.assert_array_equal(judged.ok, [1, 0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(judged.info["read"], [1, 0, 1, 0, 1, 1, 1])
    assert sum(judged.failures().values()) == 4
    assert judged.failures()["no <BCC>...</BCC>"] == 1
    assert "the BCC has the element W, which is not in the set" in judged.failures()


def test_nothing_to_judge(config: AlloyConfig) -> None:
    with AlloyReward(config) as reward:
        assert len(reward([])) == 0
        nothing = reward.judge_texts(["a", "b"])
        assert set(nothing.info) == set(reward.judge_texts([GOOD]).info)
    np.testing.assert_array_equal(nothing.value, [-2000, -2000])


def test_mixtures_are_computed_once_and_kept(config: AlloyConfig, tmp_path: Path) -> None:
    from dataclasses import replace

    kept = replace(config, cache=tmp_path / "rewards.sqlite")
    with AlloyReward(kept) as reward:
        first = reward.judge_texts([GOOD, GOOD, LOST])
    with AlloyReward(kept) as reward:
        reward._cached.reward = None  # type: ignore[assignment, union-attr] (must not be called)
        again = reward.judge_texts([LOST, GOOD])
        np.testing.assert_allclose(again.value, first.value[[2, 0]])
    np.testing.assert_array_equal(again.reasons, np.array(first.reasons)[[2, 0]])
    other = replace(kept, rules=RulesConfig(b2_from=1700.0))
    with AlloyReward(other) as reward:
        assert reward.judge_texts([GOOD]).value[0] == pytest.approx(-10.015)


def test_workers_judge_as_this_process_does(config: AlloyConfig) -> None:
    from dataclasses import replace

    texts = [GOOD, POOR, LOST, "nonsense"]
    with AlloyReward(config) as reward:
        here = reward.judge_texts(texts)
    pooled = replace(config, pool=PoolConfig("processes", n_workers=1, chunk=2))
    with AlloyReward(pooled) as reward:
        there = reward.judge_texts(texts)
    np.testing.assert_allclose(there.value, here.value)
    assert there.reasons == here.reasons


class Hanging:
    """Solves all but the alloy with the least nickel, over which it sits for ever."""

    def __call__(self, keys: Items, /) -> RewardBatch:
        if any(read_key(key)["Ni"] < 0.15 for key in keys):
            time.sleep(600)
        return rule_rewards(equilibria()[np.zeros(len(keys), int)])


def test_an_engine_that_hangs_costs_one_candidate(config: AlloyConfig) -> None:
    pool = PoolConfig("processes", n_workers=1, chunk=4, attempts=1, timeout=3.0)
    with AlloyReward(config) as reward, Pool(Hanging, pool) as reward.served:
        judged = reward.judge_texts([GOOD, LOST, POOR])
    np.testing.assert_allclose(judged.value, [-0.015, config.failed, -0.015])
    assert judged.reasons == [None, "timed out after 3 s", None]
    np.testing.assert_array_equal(judged.transient, [False, True, False])


def test_keys_hold_whole_mixtures() -> None:
    reward = MixtureReward(TableEngine(equilibria()), temperatures=np.array(TEMPERATURES))
    keys = [composition_key(mixture(text)) for text in (POOR, GOOD)]
    np.testing.assert_allclose(reward(keys).value, [-1111, -0.015])


def test_the_mismatch_of_the_paper_is_at_the_temperatures_alone() -> None:
    series = [[bcc(0.5, 2.90), b2(0.5, 2.92)], [bcc(0.5, 2.96), b2(0.5, 2.93)], [liquid(1.0)]]
    found = table(series)
    assert rule_rewards(found).info["mismatch"][0] == 0
    paper = RulesConfig(crossing=False)
    assert rule_rewards(found, paper).info["mismatch"][0] == pytest.approx(0.02)
    assert repr(paper) == repr(RulesConfig())  # as caches of before name it


def test_another_mismatch_is_another_identity(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    write_table(path, table([[bcc(1.0)]]))
    engine = EngineConfig(str(path), "table")
    identities = []
    for rules in (RulesConfig(), RulesConfig(crossing=False)):
        with AlloyReward(AlloyConfig(engine, rules, temperatures=(400.0,))) as reward:
            identities.append(reward.identity)
    assert identities[1].replace(" without crossing", "") == identities[0] != identities[1]
