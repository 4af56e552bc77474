"""The registry, the reward batch and the composition of rewards."""

from collections.abc import Sequence

import numpy as np
import pytest

from crystaljax import Crystals
from crystaljax.rewards import Reward, RewardBatch, create, register, registered
from crystaljax.rewards.base import RewardError
from crystaljax.rewards.compose import Clip, Guarded, InvalidPenalty, Product, WeightedSum


def batch_of(n: int) -> Crystals:
    """Cubic crystals with the cell edges 1, 2, 3, ... Å."""
    lattice = np.tile(np.float32([1, 1, 1, 90, 90, 90]), (n, 1))
    lattice[:, :3] *= np.arange(1, n + 1)[:, None]
    return Crystals(
        space_group=np.full(n, 221, np.int32),
        wyckoff=np.ones((n, 1), np.int32),
        species=np.full((n, 1), 26, np.int32),
        frac=np.zeros((n, 1, 3), np.float32),
        lattice=lattice,
    )


def edge(crystals: Crystals) -> RewardBatch:
    """The cell edge; a cell of 3 Å cannot be judged."""
    a = np.asarray(crystals.lattice[:, 0], np.float64)
    reasons = ["three" if x == 3 else None for x in a]
    return RewardBatch.from_values(a, {"a": a}, reasons)


def test_values_that_are_not_finite_are_not_ok() -> None:
    batch = RewardBatch.from_values(np.array([1, np.nan, np.inf]), reasons=[None, None, "far"])
    np.testing.assert_array_equal(batch.ok, [True, False, False])
    assert batch.reasons == [None, "the reward is nan", "far"]
    assert np.isnan(batch.value[1:]).all()
    assert batch.failures() == {"the reward is nan": 1, "far": 1}


def test_columns_of_another_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 values has 2 entries in 'gap'"):
        RewardBatch.from_values(np.zeros(3), {"gap": np.zeros(2)})


def test_batches_are_joined_and_selected() -> None:
    first = RewardBatch.from_values(
        np.array([1.0, 2.0]), {"name": np.array(["a", "b"]), "n": np.array([1, 2])}
    )
    second = RewardBatch.from_values(
        np.array([np.nan]), {"x": np.ones((1, 3))}, ["worker died"], np.array([True])
    )
    joined = RewardBatch.concatenate([first, second, first])
    np.testing.assert_array_equal(joined.value, [1, 2, np.nan, 1, 2])
    np.testing.assert_array_equal(joined.transient, [False, False, True, False, False])
    assert joined.info["name"].tolist() == ["a", "b", "", "a", "b"]
    np.testing.assert_array_equal(joined.info["n"], [1, 2, 0, 1, 2])
    assert joined.info["n"].dtype == first.info["n"].dtype
    assert joined.info["x"].shape == (5, 3) and np.isfinite(joined.info["x"]).sum() == 3

    part = joined[np.array([2, 1])]
    np.testing.assert_array_equal(part.ok, [False, True])
    assert part.reasons == ["worker died", None]
    assert part.transient.tolist() == [True, False]
    assert part.info["name"].tolist() == ["", "b"]
    assert len(joined[:0]) == 0
    with pytest.raises(ValueError, match="nothing to concatenate"):
        RewardBatch.concatenate([])


def test_failures_of_the_machine_stay_told_apart() -> None:
    def crowded(crystals: Crystals) -> RewardBatch:
        if (crystals.lattice[:, 0] == 2).any():
            raise MemoryError
        if (crystals.lattice[:, 0] == 4).any():
            raise ValueError("four")
        return edge(crystals)

    batch = InvalidPenalty(WeightedSum({"a": (1.0, Guarded(crowded)), "b": (1.0, edge)}), -9.0)(
        batch_of(5)
    )
    np.testing.assert_array_equal(batch.value, [2, -9, -9, -9, 10])
    np.testing.assert_array_equal(batch.transient, [False, True, False, False, False])
    assert batch.reasons[1] == "a: MemoryError"


def test_a_user_s_reward_is_found_by_name() -> None:
    @register("test_scaled_edge")
    class ScaledEdge:
        def __init__(self, scale: float = 1.0) -> None:
            self.scale = scale

        def __call__(self, crystals: Crystals) -> RewardBatch:
            return RewardBatch.from_values(self.scale * crystals.lattice[:, 0])

    reward = create("test_scaled_edge", scale=2.0)
    assert isinstance(reward, Reward)
    np.testing.assert_allclose(reward(batch_of(3)).value, [2, 4, 6])
    assert {"test_scaled_edge", "e_above_hull"} <= set(registered())
    with pytest.raises(ValueError, match="registered already"):
        register("test_scaled_edge")(edge)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no reward is named 'ehul'.*e_above_hull"):
        create("ehul")


def test_a_weighted_sum() -> None:
    def constant(crystals: Crystals) -> RewardBatch:
        return RewardBatch.from_values(np.ones(len(crystals)))

    batch = WeightedSum({"edge": (2.0, edge), "one": (-1.0, constant)})(batch_of(4))
    np.testing.assert_allclose(batch.value, [1, 3, np.nan, 7])
    np.testing.assert_array_equal(batch.ok, [True, True, False, True])
    assert batch.reasons[2] == "edge: three"
    np.testing.assert_array_equal(batch.info["edge/a"], [1, 2, 3, 4])
    np.testing.assert_array_equal(batch.info["one"], np.ones(4))


def test_a_product() -> None:
    batch = Product({"x": edge, "y": edge})(batch_of(4))
    np.testing.assert_allclose(batch.value, [1, 4, np.nan, 16])
    with pytest.raises(ValueError, match="at least one part"):
        Product({})(batch_of(1))


def test_clipping_keeps_the_value_before() -> None:
    batch = Clip(edge, low=1.5, high=3.5)(batch_of(4))
    np.testing.assert_allclose(batch.value, [1.5, 2, np.nan, 3.5])
    np.testing.assert_allclose(batch.info["unclipped"], [1, 2, np.nan, 4])
    with pytest.raises(ValueError, match="low is above high"):
        Clip(edge, low=1, high=0)


def test_a_penalty_gives_failed_items_a_value() -> None:
    batch = InvalidPenalty(edge, -5.0)(batch_of(4))
    np.testing.assert_allclose(batch.value, [1, 2, -5, 4])
    np.testing.assert_array_equal(batch.ok, [True, True, False, True])
    with pytest.raises(ValueError, match="finite"):
        InvalidPenalty(edge, np.nan)


def test_an_exception_costs_only_its_items() -> None:
    def fragile(crystals: Crystals) -> RewardBatch:
        if (crystals.lattice[:, 0] % 3 == 0).any():
            raise ValueError("a multiple of three")
        return edge(crystals)

    batch = Guarded(fragile)(batch_of(7))
    np.testing.assert_array_equal(batch.ok, [True, True, False, True, True, False, True])
    assert batch.reasons[5] == "ValueError: a multiple of three"
    np.testing.assert_allclose(batch.info["a"], [1, 2, np.nan, 4, 5, np.nan, 7])


class Bad(BaseException):
    """What no one expects."""


@pytest.mark.parametrize("raised", [SystemExit(3), Bad("odd"), TypeError("bug"), StopIteration()])
def test_whatever_is_raised_costs_its_item(raised: BaseException) -> None:
    def fragile(crystals: Crystals) -> RewardBatch:
        if (crystals.lattice[:, 0] == 2).any():
            raise raised
        return edge(crystals)

    batch = Guarded(fragile)(batch_of(5))
    np.testing.assert_array_equal(batch.ok, [True, False, False, True, True])
    assert batch.reasons[1] is not None and type(raised).__name__ in batch.reasons[1]
    assert batch.transient.tolist() == [False, True, False, False, False]


def test_interrupts_and_faults_of_the_reward_as_a_whole_pass() -> None:
    def interrupted(crystals: Crystals) -> RewardBatch:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded(interrupted)(batch_of(4))
    with pytest.raises(RewardError, match="3 values for 4 items"):
        Guarded(lambda crystals: edge(crystals[:3]))(batch_of(4))
    with pytest.raises(RewardError, match="returned a list, not a RewardBatch"):
        Guarded(lambda crystals: [0.0] * 4)(batch_of(4))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 21, 64])
@pytest.mark.parametrize("bad", [[], [0], [1, 5], range(0, 64, 4), range(64)])
def test_calls_after_an_exception(n: int, bad: Sequence[int]) -> None:
    """At most items + log2(items), and few for one culprit."""
    calls = []

    def counted(items: list[int]) -> RewardBatch:
        calls.append(len(items))
        if set(items) & set(bad):
            raise ValueError("bad")
        return RewardBatch.from_values(np.array(items, float))

    batch = Guarded(counted)(list(range(n)))
    good = ~np.isin(np.arange(n), list(bad))
    np.testing.assert_array_equal(batch.ok, good)
    np.testing.assert_array_equal(batch.value[good], np.arange(n)[good])
    assert len(calls) <= n + np.log2(n)
    if len(bad) == 1:
        assert len(calls) <= 1 + 2 * np.ceil(np.log2(n))


def test_columns_keep_their_dtype_where_items_are_missing() -> None:
    info = {
        "number": np.array([3, 4], np.int16),
        "flag": np.array([True, True]),
        "name": np.array(["a", "bc"]),
        "any": np.array([(1,), None], object),
        "pair": np.ones((2, 2), np.float32),
    }
    some = RewardBatch.from_values(np.array([1.0, 2.0]), info)
    spread = some.spread(np.array([3, 1]), ["first", None, "third", None])
    joined = RewardBatch.concatenate([some, RewardBatch.from_values(np.zeros(1))])
    for name, column in info.items():
        assert spread.info[name].dtype == column.dtype == joined.info[name].dtype
    assert spread.info["number"].tolist() == [0, 4, 0, 3]
    assert spread.info["flag"].tolist() == [False, True, False, True]
    assert spread.info["name"].tolist() == ["", "bc", "", "a"]
    assert spread.info["any"].tolist() == [None, None, None, (1,)]
    assert np.isnan(spread.info["pair"]).sum() == 4
    assert spread.reasons == ["first", None, "third", None]
    np.testing.assert_array_equal(spread.value, [np.nan, 2, np.nan, 1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_never_ok(value: float) -> None:
    batch = RewardBatch([1.0, value], [True, True])  # type: ignore[arg-type]
    assert batch.ok.tolist() == [True, False]
    assert batch.reasons == [None, f"the reward is {value}"]
