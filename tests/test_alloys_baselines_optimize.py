"""Search on a reward of closed form: better than chance, resumed as if never stopped."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystaljax.alloys.baselines.encoding import candidate_at, parameters_of
from crystaljax.alloys.baselines.optimize import SearchConfig, Searched, search
from crystaljax.alloys.baselines.space import Listed, Space, random_candidates
from crystaljax.alloys.composition import Candidate, fractions, read_candidate, write_candidate
from crystaljax.alloys.grid import GridConfig, Roles
from crystaljax.rewards.base import RewardBatch

SPACE = Space(
    GridConfig(Roles(("Co", "Cr", "Ni"), ("Al",), ("Co", "Cr", "Ni")), parts=(10,), site_parts=(2,))
)


def judge(texts: Sequence[str]) -> RewardBatch:
    """0 at Cr7Ni3 with 45 % of AlNi, the less the farther; cobalt in the BCC costs 1000."""
    values = []
    for text in texts:
        one, reason = read_candidate(text)
        assert one is not None, reason
        bcc, b2 = fractions(one.bcc), fractions(one.b2)
        far = abs(bcc.get("Cr", 0) - 0.7) + abs(bcc.get("Ni", 0) - 0.3)
        far += abs(b2.get("Ni", 0) - 0.5) + abs(one.b2_volume - 45) / 50
        values.append(-far - 1000 * (bcc.get("Co", 0) > 0.3))
    return RewardBatch.from_values(np.array(values), {"length": np.array([len(t) for t in texts])})


PACKAGES = {"tpe": "optuna", "nsga2": "optuna", "cma": "cmaes", "random": "numpy"}


@pytest.mark.parametrize("method", ["tpe", "nsga2", "cma"])
def test_better_than_random_at_the_same_number_of_calls(method: str) -> None:
    pytest.importorskip(PACKAGES[method])
    means = {}
    for name in ("random", method):
        config = SearchConfig(name, calls=96, batch=16, population=16, seed=1)  # type: ignore[arg-type]
        found = search(SPACE, judge, config)
        assert len(set(found.texts)) == len(found.rewards) == 96
        means[name] = found.rewards.value[48:].mean(), found.rewards.value.max()
    assert means[method][0] > means["random"][0] + 50
    assert means[method][1] >= means["random"][1]


@pytest.mark.parametrize("method", ["random", "tpe", "nsga2", "cma"])
def test_goes_on_as_if_never_stopped(method: str, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGES[method])
    config = SearchConfig(method, calls=48, batch=8, population=8, seed=3)  # type: ignore[arg-type]
    whole = search(SPACE, judge, config)
    stopped = replace(config, journal=tmp_path / "search.jsonl")
    calls = []

    def fails(texts: Sequence[str]) -> RewardBatch:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(list(texts))
        return judge(texts)

    with pytest.raises(KeyboardInterrupt):
        search(SPACE, fails, stopped)
    rest: list[str] = []

    def counts(texts: Sequence[str]) -> RewardBatch:
        rest.extend(texts)
        return judge(texts)

    again = search(SPACE, counts, stopped)
    assert len(rest) == 48 - 4 * 8
    assert again.texts == whole.texts
    np.testing.assert_array_equal(again.rewards.value, whole.rewards.value)
    np.testing.assert_array_equal(again.rewards.info["length"], whole.rewards.info["length"])
    assert search(SPACE, counts, stopped).texts == whole.texts
    assert len(rest) == 48 - 4 * 8
    more = search(SPACE, judge, replace(stopped, calls=50))
    assert len(more.texts) == 50


def test_seeds_differ() -> None:
    found = [search(SPACE, judge, SearchConfig("random", 20, seed=n)).texts for n in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("method", ["random", "tpe", "cma"])
def test_a_space_that_is_used_up(method: str) -> None:
    pytest.importorskip(PACKAGES[method])
    space = Space(GridConfig(Roles(("Cr", "Fe"), ("Al",), ("Ni",)), parts=(2,)), (0.4, 0.41))
    found = search(
        space,
        lambda texts: RewardBatch.from_values(np.ones(len(texts))),
        SearchConfig(method, calls=20, batch=10),
    )  # type: ignore[arg-type]
    assert len(found.texts) == len(set(found.texts)) == 6


@pytest.mark.parametrize("method", ["random", "tpe", "nsga2", "cma"])
def test_a_search_of_lists_finds_all_of_them_and_nothing_else(method: str, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGES[method])
    listed = Listed(({"Cr": 3, "Fe": 1}, {"Fe": 1}), ({"Al": 1, "Ni": 1}, {"Al": 2, "Ti": 2}))
    grid = GridConfig(Roles(("Cr", "Fe"), ("Al",), ("Ni", "Ti")), parts=(2,))
    space, journal = Space(grid, (0.4, 0.41), listed=listed), tmp_path / "search.jsonl"
    config = SearchConfig(method, calls=20, batch=3, journal=journal)  # type: ignore[arg-type]

    def equal(texts: Sequence[str]) -> RewardBatch:
        return RewardBatch.from_values(np.ones(len(texts)))

    found = search(space, equal, config)
    expected = {
        write_candidate(Candidate(bcc, b2, volume))
        for bcc, b2, volume in product(listed.bcc, listed.b2, (40.0, 41.0))
    }
    assert set(found.texts) == expected and len(found.texts) == 8
    with pytest.raises(ValueError, match="journal of something else: space is"):
        search(replace(space, listed=None), equal, config)


def test_what_cannot_be_judged_is_kept_and_teaches_nothing() -> None:
    pytest.importorskip("optuna")

    def fails(texts: Sequence[str]) -> RewardBatch:
        value = np.where(np.arange(len(texts)) % 2, np.nan, 1.0)
        return RewardBatch.from_values(value)

    found = search(SPACE, fails, SearchConfig("tpe", calls=16, batch=8))
    assert found.rewards.ok.tolist() == [True, False] * 8


def test_another_search(tmp_path: Path) -> None:
    config = SearchConfig("random", calls=2, journal=tmp_path / "search.jsonl")
    search(SPACE, judge, config)
    with pytest.raises(ValueError, match=r"journal of something else: search is .*'seed': 0"):
        search(SPACE, judge, replace(config, seed=1))
    with pytest.raises(ValueError, match="journal of something else: space is"):
        search(Space(GridConfig(parts=(2,))), judge, config)
    with pytest.raises(ValueError, match="journal of something else: reward is '' there and 'new'"):
        search(SPACE, judge, config, "new")
    with pytest.raises(ValueError, match="calls and batch must be at least 1"):
        search(SPACE, judge, SearchConfig(calls=0))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_points_of_a_search_are_on_the_grid(data) -> None:  # type: ignore[no-untyped-def]
    roles = Roles(("Cr", "Fe", "V"), ("Al", "Ti"), ("Ni", "Ti"))
    space = Space(GridConfig(roles, parts=(2, 3), site_parts=(2, 3)))
    elements = {"bcc": roles.bcc, "first": roles.first_site, "second": roles.second_site}
    point: dict = {"volume": data.draw(st.integers(0, 50))}
    for name, slots in (("bcc", 3), ("first", 2), ("second", 2)):
        for n in range(slots):
            point[f"{name}_{n}"] = data.draw(st.sampled_from(elements[name]))
            point[f"{name}_amount_{n}"] = data.draw(st.integers(0, 3))
    one = candidate_at(space, point)
    if one is None:
        sites = [{point["first_0"], point["first_1"]}, {point["second_0"], point["second_1"]}]
        assert sites[0] & sites[1]
        return
    shares = tuple(sorted(one.bcc.values()))
    grid = {tuple(sorted(shares)) for grids in space.grid.bcc_shares for shares in grids}
    assert shares in grid
    assert sum(one.b2.values()) == pytest.approx(2)


def test_a_search_knows_what_it_starts_from(tmp_path: Path) -> None:
    """It begins near the best of what a model wrote, which it does not judge again."""
    pytest.importorskip("optuna")
    before = search(SPACE, judge, SearchConfig("random", calls=60, seed=5))
    texts = [*before.texts, "nothing", "<BCC>W</BCC> <B2>AlNi</B2> <B2_Volume>40</B2_Volume>"]
    value = np.array([*before.rewards.value, 0.0, 0.0])
    start = Searched(texts, RewardBatch.from_values(value))
    config = SearchConfig(calls=16, batch=8, seed=5, journal=tmp_path / "search.jsonl")
    found = search(SPACE, judge, config, start=start)
    alone = search(SPACE, judge, replace(config, journal=None))
    assert not set(found.texts) & set(before.texts)
    assert found.rewards.value.mean() > alone.rewards.value.mean() + 50
    again = search(SPACE, judge, replace(config, calls=24), start=start)
    assert again.texts[:16] == found.texts
    with pytest.raises(ValueError, match="journal of something else: start is"):
        search(SPACE, judge, config)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 3]))
def test_parameters_of_a_candidate_on_the_grid_are_those_of_its_point(seed: int, n: int) -> None:
    roles = Roles(("Cr", "Fe", "Ni"), ("Ni", "Co"), ("Al", "Ti"))
    space = Space(GridConfig(roles, parts=(10,), site_parts=(2,), site_ratio=n))
    (one,) = random_candidates(space, 1, np.random.default_rng(seed))
    parameters = parameters_of(space, one)
    assert parameters is not None
    assert candidate_at(space, parameters) == one


def test_slots_of_one_element_add_up() -> None:
    point = {"bcc_0": "Cr", "bcc_1": "Ni", "bcc_2": "Cr", "first_0": "Al", "volume": 0}
    point |= {"bcc_amount_0": 4, "bcc_amount_1": 3, "bcc_amount_2": 3}
    point |= {"second_0": "Ni", "second_1": "Co", "second_amount_0": 2, "second_amount_1": 1}
    assert str(candidate_at(SPACE, point)) == (
        "<BCC>Cr70Ni30</BCC> <B2>Al2CoNi</B2> <B2_Volume>20</B2_Volume>"
    )
