"""Assessing a policy: what its samples are worth, by one potential, by two, by space group."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from small import SMALL
from table_policy import TablePolicy, probabilities

from crystaljax.composition import element_counts
from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.evaluation.evaluate import EvaluationConfig, Reference
from crystaljax.evaluation.policies import assess, by_space_group, draw, kl_from
from crystaljax.evaluation.rates import Rate
from crystaljax.experiment.best import ALWAYS
from crystaljax.policies.base import Rollout, SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.ehull import load_hull
from crystaljax.rewards.stability import StabilityConfig, StabilityReward

N = 16
SAMPLING = SamplingConfig(batch_size=N)


class Fixed(StabilityReward):
    """Every crystal is as far above the hull as its space group's number over 1000."""

    def __init__(self, name: str, sign: int) -> None:
        self.config = StabilityConfig()  # whose potential is not loaded
        self.hull = load_hull(self.config.hull)
        self.name, self.sign = name, sign

    def __call__(self, crystals: Crystals, /) -> RewardBatch:
        above = self.sign * np.asarray(crystals.space_group) / 1000
        return RewardBatch.from_values(-above, {"e_above_hull": above})

    @property
    def energy(self):  # type: ignore[no-untyped-def]
        return None

    @property
    def potential(self) -> str:
        return self.name


@pytest.fixture(scope="module")
def policy() -> WyckoffPolicy:
    return WyckoffPolicy(SMALL, load("prototypes").space_group_counts)


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    yield Reference.of(load("prototypes").crystals[:50], "fifty prototypes")


def test_the_divergence_of_a_table_is_that_of_its_probabilities() -> None:
    table = TablePolicy()
    model, base = table.init(0), table.init(1)
    p, q = probabilities(model), probabilities(base)
    found = kl_from(table, base, draw(table, model, SamplingConfig(), 20_000, 0))
    assert found.total == 20_000
    assert abs(found.value - np.sum(p * np.log(p / q))) < 4 * found.standard_error
    assert kl_from(table, model, draw(table, model, SamplingConfig(), 10, 0)).value == 0


def test_both_potentials_judge_the_same_samples(
    policy: WyckoffPolicy, reference: Reference
) -> None:
    found = assess(
        policy,
        policy.init(0),
        Fixed("teacher", 1),
        reference,
        n=N,
        seed=1,
        other=Fixed("another", -1),
        sampling=SAMPLING,
        config=EvaluationConfig(progress=False),
    )
    decoded = found.evaluation.columns["decoded"]
    group = np.asarray(found.crystals.space_group)
    expected = np.where(decoded, group / 1000, np.nan)
    np.testing.assert_allclose(found.e_above_hull, expected)
    np.testing.assert_allclose(found.evaluation.columns["e_above_hull_another"], -expected)
    assert found.evaluation["stable"].value == 0
    assert found.evaluation["stable (another)"].value == decoded.mean()
    assert "teacher" in found.evaluation["stable"].reference
    assert found.evaluation.columns.keys() == {*ALWAYS, "e_above_hull_another"}
    assert np.isfinite(found.evaluation.columns["log_prob"]).all()


def test_rates_by_space_group_are_of_samples_under_a_condition(
    policy: WyckoffPolicy, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Rollout] = []

    def sample(*args: Any, **options: Any) -> Rollout:
        drawn.append(WyckoffPolicy.sample(policy, *args, **options))
        return drawn[-1]

    monkeypatch.setattr(policy, "sample", sample)
    by_space_group(
        *(policy, policy.init(0), Fixed("teacher", 1), reference.structures),
        groups=(123, 225),
        n=4,
        seed=1,
        condition=Condition(required=("O",)),
        sampling=SAMPLING,
    )
    (rollout,) = drawn
    groups = [condition.space_groups for condition in rollout.conditions]
    assert groups == [(123,)] * 4 + [(225,)] * 4
    assert rollout.met.any() and (element_counts(rollout.crystals)[rollout.met, 8] > 0).all()


def test_rates_by_space_group(policy: WyckoffPolicy, reference: Reference) -> None:
    def rates(sign: int) -> dict[str, list[Rate]]:
        return by_space_group(
            policy,
            policy.init(0),
            Fixed("teacher", sign),
            reference.structures,
            groups=(123, 225),
            n=N,
            seed=1,
            sampling=SAMPLING,
        )

    above, below = rates(1), rates(-1)
    assert [rate.total for rate in above["S.U.N."]] == [N, N]
    assert [rate.count for rate in above["metastable S.U.N."]] == [0, 0]  # 0.123 and 0.225 eV/atom
    new = [rate.count for rate in below["S.U.N."]]
    assert new == [rate.count for rate in below["metastable S.U.N."]]
    assert min(new) > 0
    for right, found, both in zip(
        *(below[x] for x in ("space group met", "metastable S.U.N.", "S.S.U.N.")), strict=True
    ):
        assert 0 < both.count <= min(right.count, found.count)
