"""Rewards of structure prediction: energies by CHGNet itself and closed forms of advantages."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from table_policy import TablePolicy
from test_rewards_guards import CC, GUARDING, LIF, MGO, NACL, rock_salts

from crystaljax.composition import element_counts, formulas
from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.objectives import group_advantages
from crystaljax.rewards.asked import Asked, fitting
from crystaljax.rewards.base import RewardBatch, RewardError
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.rewards.compose import (
    Clip,
    Guarded,
    InvalidPenalty,
    Product,
    ValidOnly,
    WeightedSum,
)
from crystaljax.rewards.guards import create_guards
from crystaljax.rewards.prediction import (
    COLUMNS,
    QUANTITIES,
    AsAsked,
    Energies,
    KnownEnergies,
    PredictionRewardConfig,
    prediction_reward,
)
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.rollouts import Clock, judge

ELEMENTAL = np.zeros(119)
ELEMENTAL[[17, 11, 12, 8, 3, 9, 74]] = -1.8, -1.3, -1.5, -4.9, -1.9, -1.9, -13.0


def energies(crystals: Crystals) -> RewardBatch:
    """Energies of a made-up potential: 0.1 eV/atom below the elements, more in larger cells."""
    counts = element_counts(crystals)
    elements = counts @ ELEMENTAL / counts.sum(axis=1)
    formation = np.asarray(crystals.lattice)[:, 0].astype(float) - 5.7
    info = {
        "energy_per_atom": elements + formation,
        "formation_energy": formation,
        "e_above_hull": formation + 0.1,
    }
    return RewardBatch.from_values(-info["e_above_hull"], info)


def asked(crystals: Crystals, *names: str, group: list[int] | None = None) -> Asked:
    return Asked.of(crystals, [Condition(formula=name) for name in names], np.array(group or [0]))


def cells(*edges: float) -> Crystals:
    """Rock salt of several sizes."""
    found = rock_salts(*[NACL] * len(edges))
    lattice = found.lattice.copy()
    lattice[:, :3] = np.array(edges)[:, None]
    return Crystals(found.space_group, found.wyckoff, found.species, found.frac, lattice)


def cubic_w3() -> Crystals:
    """A cell of many atoms: more than 20 in a primitive cell of group 1."""
    n = 21
    return Crystals(
        np.array([1], np.int32),
        np.ones((1, n), np.int32),
        np.array([[11] * 11 + [17] * 10], np.int32),
        (np.arange(3 * n).reshape(1, n, 3) / (3 * n)).astype(np.float32),
        np.array([[9, 9, 9, 90, 90, 90]], np.float32),
    )


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("total-energy", [1.55 + 0.1, 3.2 + 0.1]),
        ("hull", [0.0, 0.0]),
        ("formation", [0.1, 0.1]),
        ("relative", [-0.2, 0.0]),
    ],
)
def test_each_energy(name: str, column: list[float]) -> None:
    """By hand from the elements' energies: NaCl (−1.3 − 1.8)/2 − 0.1, MgO (−1.5 − 4.9)/2 − 0.1."""
    known = KnownEnergies({"NaCl": -1.85, "MgO": -3.3})
    reward = AsAsked(Energies(energies, {name: 1.0}, known))  # type: ignore[dict-item]
    found = reward(asked(rock_salts(NACL, MGO), "Na2Cl2", "OMg", group=[0, 1]))
    np.testing.assert_allclose(found.value, column, atol=1e-6)
    assert found.ok.all() and reward.quantity is QUANTITIES[name]  # type: ignore[index]


def test_what_is_not_as_asked_is_no_answer() -> None:
    crystals = Crystals.concatenate(
        [x.with_slots(21) for x in (rock_salts(NACL, MGO, CC, NACL), cubic_w3())]
    )
    names = ["NaCl", "NaCl", "NaCl", "Na2Cl", "Na11Cl10"]
    for ratios in ("fixed", "free"):
        found = AsAsked(energies, ratios)(asked(crystals, *names, group=[0] * 5))  # type: ignore[arg-type]
        assert found.reasons[1:3] == ["other elements than asked for"] * 2
        assert found.reasons[4] == "more than 20 atoms"
        other = None if ratios == "free" else "another composition than asked for"
        assert found.reasons[3] == other and found.ok[0]
    # With the paper's penalty, below all that is a crystal.
    value = QUANTITIES["total-energy"].bounds(found)
    assert value[[1, 2, 4]].tolist() == [-0.1] * 3


def test_a_formula_of_which_nothing_is_known_says_so() -> None:
    conditions = [Condition(formula=x) for x in ("NaCl", "LiF")]
    config = PredictionRewardConfig(("relative",))
    reward = prediction_reward(config, energies, cells(5.6, 5.5, 5.9), conditions)
    found = reward(asked(rock_salts(NACL, LIF), "NaCl", "LiF", group=[0, 0]))
    # The best known of NaCl has a = 5.5 Å; energies grow by an eV/atom each Å.
    assert found.value[0] == pytest.approx(-0.1, abs=1e-6)
    assert found.reasons == [None, "no known structure of LiF"]
    with pytest.raises(ValueError, match="none of 1 known structures"):
        prediction_reward(config, energies, rock_salts(MGO), conditions)


def test_with_fixed_ratios_all_energies_are_one_reward() -> None:
    """The four differ by a constant in a group, and advantages do not see constants."""
    crystals = cells(5.5, 5.6, 5.62, 5.9)
    known = KnownEnergies({"NaCl": -1.8})
    batch = asked(crystals, *["NaCl"] * 4, group=[0] * 4)
    value = np.asarray(crystals.lattice)[:, 0]
    expected = -(value - value.mean()) / value.std()
    for name in COLUMNS:
        reward = AsAsked(Energies(energies, {name: 1.0}, known))(batch).value
        found, _ = group_advantages(jnp.asarray(reward), 4, 1e-3)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_with_free_ratios_the_total_energy_prefers_the_heavy_element() -> None:
    """W at −13 eV/atom and Na at −1.3: two sites of W with one of Na beat the reverse."""

    def fluorite(center: int, other: int) -> Crystals:
        return Crystals(
            np.array([225], np.int32),
            np.array([[1, 3]], np.int32),
            np.array([[center, other]], np.int32),
            np.array([[[0, 0, 0], [0.25, 0.25, 0.25]]], np.float32),
            np.array([[5.6, 5.6, 5.6, 90, 90, 90]], np.float32),
        )

    both = Crystals.concatenate([fluorite(11, 74), fluorite(74, 11)])
    assert formulas(both) == ["NaW2", "Na2W"]
    batch = asked(both, "NaW", "NaW", group=[0, 0])
    gap = {}
    for name in ("total-energy", "hull", "formation"):
        found = AsAsked(Energies(energies, {name: 1.0}), "free")(batch)  # type: ignore[dict-item]
        gap[name] = found.value[0] - found.value[1]
    assert gap["total-energy"] == pytest.approx((13 - 1.3) / 3, abs=1e-5)
    assert gap["hull"] == pytest.approx(0, abs=1e-6) == gap["formation"]


def test_a_structure_earns_its_share_once_in_a_group() -> None:
    """Copies keep 1/m of the distance to the penalty, so that together they earn it once."""
    crystals = cells(5.6, 5.6, 5.61, 9.0, 5.6)  # 9.0 Å matches too: volumes are scaled
    crystals = Crystals.concatenate([crystals, rock_salts(MGO)])
    names = ["NaCl"] * 5 + ["MgO"]
    group = [0, 0, 0, 1, 1, 1]
    judged = RewardBatch.from_values(np.array([1.0, 1.0, 1.0, 2.0, 3.0, 1.0]))
    guards = create_guards(["copies"], GUARDING)
    found, share, metrics = guards(asked(crystals, *names, group=group), judged)
    np.testing.assert_allclose(share, [1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 1])
    assert metrics == {"guard/copies": pytest.approx(5 / 6)} and found.ok.all()
    penalty = -0.5
    reward = RewardBounds(invalid=penalty)(found, share)
    assert (reward[:3] - penalty).sum() == pytest.approx(1 - penalty)
    assert not guards.memory
    with pytest.raises(RewardError, match="what they were asked to be"):
        guards(crystals, judged)
    with pytest.raises(ValueError, match="copies takes no number"):
        create_guards(["copies:3"], GUARDING)


def test_compositions_pass_on_what_was_asked() -> None:
    inner = AsAsked(Energies(energies, {"formation": 1.0}))
    batch = asked(rock_salts(NACL, MGO), "NaCl", "NaCl", group=[0, 0])
    plain = ValidOnly(lambda x: RewardBatch.from_values(np.full(len(x), 2.0)))
    for reward in (
        *(Guarded(inner), ValidOnly(inner), Clip(inner), InvalidPenalty(inner, -1.0)),
        *(WeightedSum({"a": (1.0, inner), "b": (0.0, plain)}),),
        *(Product({"a": inner, "b": Clip(plain, 1.0, 1.0)}),),
    ):
        found = reward(batch)
        assert found.ok.tolist() == [True, False], reward
        assert found.value[0] == pytest.approx(0.1, abs=1e-6)
        assert found.reasons[1] is not None and "other elements" in found.reasons[1]
    assert fitting(plain, batch) is batch.crystals
    with pytest.raises(RewardError, match="WeightedSum judges crystals by what they were asked"):
        Guarded(WeightedSum({"a": (1.0, inner)}))(batch.crystals)
    found = judge(inner, batch, np.array([False, True]), ["bad text", None])
    assert found.reasons == ["bad text", "other elements than asked for"]


def test_a_task_tells_its_reward_what_it_asked() -> None:
    """And in which group: those of one condition, in a row."""
    seen: list[Asked] = []

    class Watching:
        takes_asked = True

        def __call__(self, batch: Asked) -> RewardBatch:
            seen.append(batch)
            return RewardBatch.from_values(np.ones(len(batch)))

    policy = TablePolicy()
    conditions = [Condition(elements=("Na", "K", "Cl", "Br")), Condition()]
    task = CrystalTask(policy, policy.init(0), Watching(), conditions)
    found = task.rollout(policy.init(0), 6, 0, Clock(), repeat=3)
    (batch,) = seen
    assert batch.group.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(set(batch.condition[:3])) == 1 == len(set(batch.condition[3:]))
    assert set(batch.condition) == set(conditions) and (found.reward == 1).all()


def test_terms_by_name(tmp_path: Path) -> None:
    config = PredictionRewardConfig(("hull:0.5", "formation"))
    reward = prediction_reward(config, energies, rock_salts(NACL), [])
    assert config.quantity == reward.quantity and "0.5 × minus energy above" in config.quantity.name
    found = reward(asked(cells(5.5), "NaCl"))
    assert found.value[0] == pytest.approx(0.5 * 0.1 + 0.2, abs=1e-6)
    assert config.words == "0.5 × hull + formation, ratios fixed, at most 20 atoms"
    file = tmp_path / "mine.py"
    file.write_text("def volume(structure):\n    return structure.volume / len(structure)\n")
    config = PredictionRewardConfig((f"{file}:volume:2", "formation"))
    found = prediction_reward(config, energies, rock_salts(NACL), [])(asked(cells(6.0), "NaCl"))
    assert found.value[0] == pytest.approx(2 * 27 - 0.3, abs=1e-4)
    for terms, said in [
        (("ehull",), "no reward 'ehull': choose total-energy, hull"),
        (("hull", "hull:2"), "give each once"),
        ((), "no term"),
    ]:
        with pytest.raises(ValueError, match=said):
            PredictionRewardConfig(terms)
    with pytest.raises(ValueError, match="asks for no formula"):
        reward(Asked.of(cells(5.5), [Condition()]))


@pytest.mark.slow
def test_total_energies_are_chgnet_s_own() -> None:
    """Against CHGNet's PyTorch model, called directly on the structures."""
    pytest.importorskip("chgnet")
    from chgnet.model import CHGNet

    from crystaljax.rewards.ehull import create_e_above_hull
    from crystaljax.structures import to_structures

    crystals = rock_salts(NACL, MGO)
    reward = AsAsked(Energies(create_e_above_hull(), {"total-energy": 1.0}))
    found = reward(asked(crystals, "NaCl", "MgO", group=[0, 1]))
    model = CHGNet.load(verbose=False, use_device="cpu")
    expected = [model.predict_structure(x, task="e")["e"] for x in to_structures(crystals, True)]
    np.testing.assert_allclose(found.value, -np.array(expected).ravel(), atol=1e-4)
