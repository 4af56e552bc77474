"""Guards: each costs a sample that cheats without it; they compose, and go with pool and cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crystaljax.composition import formulas
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import Quantity, RewardBounds
from crystaljax.rewards.ehull import E_ABOVE_HULL
from crystaljax.rewards.guards import (
    Guarding,
    Guards,
    Verdict,
    create_guards,
    guard_names,
    register,
)
from crystaljax.rewards.hull import Hull

# 12 entries among Na, Cl and their compound; 2 in the system of Li and F.
HULL = Hull.from_entries(
    ["Na", "Cl", *["NaCl"] * 10, "Li", "LiF", "Mg", "MgO", *["O"] * 12, "C"], [0.0] * 29
)
GUARDING = Guarding(HULL, E_ABOVE_HULL)


def rock_salts(*pairs: tuple[int, int], edge: float = 5.6) -> Crystals:
    """Rock salt of pairs of elements, one of which may be twice there."""
    n = len(pairs)
    return Crystals(
        np.full(n, 225, np.int32),
        np.tile(np.array([1, 2], np.int32), (n, 1)),
        np.array(pairs, np.int32).reshape(n, 2),
        np.tile(np.array([[0, 0, 0], [0.5, 0.5, 0.5]], np.float32), (n, 1, 1)),
        np.tile(np.array([edge, edge, edge, 90, 90, 90], np.float32), (n, 1)),
    )


NACL, LIF, MGO, CC, BAF = (11, 17), (3, 9), (12, 8), (6, 6), (56, 9)


def judged(*above: float) -> RewardBatch:
    """By energies above hull, eV/atom."""
    energy = np.array(above)
    return RewardBatch.from_values(-energy, {"e_above_hull": energy})


def guarded(
    names: list[str], crystals: Crystals, batch: RewardBatch
) -> tuple[RewardBatch, np.ndarray, dict[str, float]]:
    return create_guards(names, GUARDING)(crystals, batch)


def trained(names: list[str], crystals: Crystals, batch: RewardBatch) -> np.ndarray:
    """Rewards to train on."""
    found, share, _ = guarded(names, crystals, batch)
    return E_ABOVE_HULL.bounds.over(RewardBounds(invalid=-1.5))(found, share)


@pytest.mark.parametrize(
    ("guard", "cheat", "above", "reason"),
    [
        ("sparse-hull:12", LIF, -0.05, "fewer than 12 hull entries in the chemical system"),
        ("sparse-hull", LIF, -0.05, "fewer than 12 hull entries in the chemical system"),
        ("too-good:0.1", NACL, -0.4, "more than 0.1 eV/atom below the hull"),
        ("pure-elements", CC, 0.0, "a pure element"),
        ("smact", BAF, 0.0, "SMACT (smact14) rejects it"),
    ],
)
def test_a_sample_that_cheats_is_the_best_without_its_guard(
    guard: str, cheat: tuple[int, int], above: float, reason: str
) -> None:
    crystals, batch = rock_salts(NACL, cheat, MGO), judged(0.08, above, 0.3)
    assert trained([], crystals, batch).argmax() == 1
    assert trained([guard], crystals, batch).tolist() == [-0.08, -1.5, -0.3]
    found, share, metrics = guarded([guard], crystals, batch)
    name = guard.partition(":")[0]
    assert found.ok.tolist() == [True, False, True]
    assert found.reasons == [None, f"{name}: {reason}", None]
    assert found.info["e_above_hull"].tolist() == [0.08, above, 0.3]
    assert metrics == {f"guard/{name}": pytest.approx(1 / 3)}
    assert batch.ok.all() and (share[[0, 2]] == 1).all()


def test_what_repeats_itself_is_the_best_without_its_guard() -> None:
    crystals, batch = rock_salts(NACL, MGO), judged(0.0, 0.2)
    for name in ("seen-compositions", "seen-structures"):
        guards = create_guards([name], GUARDING)
        worth = []
        for _ in range(3):
            found, share, metrics = guards(rock_salts(NACL), judged(0.0))
            worth.append(
                float(E_ABOVE_HULL.bounds.over(RewardBounds(invalid=-1.0))(found, share)[0])
            )
        np.testing.assert_allclose(worth, [0.0, -1 / 2, -2 / 3])  # penalty + 1/(1 + n)
        assert metrics == {f"guard/{name}": 1.0}
        found, share, metrics = guards(crystals, batch)
        values = E_ABOVE_HULL.bounds.over(RewardBounds(invalid=-1.0))(found, share)
        assert values.argmax() == 1 and trained([], crystals, batch).argmax() == 0
        assert metrics == {f"guard/{name}": 0.5}


def test_guards_act_in_the_order_given() -> None:
    """What a guard does not believe the later ones do not see."""
    crystals, batch = rock_salts(CC, NACL, LIF), judged(-0.3, -0.3, 0.0)
    first, _, metrics = guarded(["pure-elements", "too-good"], crystals, batch)
    assert first.ok.tolist() == [False, False, True]
    assert first.reasons[0] == "pure-elements: a pure element"
    assert metrics == {"guard/pure-elements": pytest.approx(1 / 3), "guard/too-good": 1 / 3}
    second, _, metrics = guarded(["too-good", "pure-elements"], crystals, batch)
    assert second.ok.tolist() == first.ok.tolist()
    assert metrics == {"guard/too-good": pytest.approx(2 / 3), "guard/pure-elements": 0}
    # A sample that is not believed is not remembered either.
    guards = create_guards(["too-good", "seen-compositions"], GUARDING)
    assert guards(rock_salts(NACL), judged(-0.3))[1].tolist() == [0]
    assert guards(rock_salts(NACL), judged(0.0))[1].tolist() == [1]


def test_nothing_to_judge_is_no_error() -> None:
    names = [name for name in guard_names() if not name.startswith("test-")]
    crystals, batch = rock_salts(NACL, LIF), judged(np.nan, np.nan)
    found, share, metrics = guarded(names, crystals, batch)
    assert found.reasons == batch.reasons and len(share) == 2
    assert set(metrics.values()) == {0.0} and len(metrics) == len(names) == 7


OWN = '''
from crystaljax import Crystals

def light(structure, limit=3.0):
    """Structures of a density up to a limit, g/cm³."""
    if structure.density > 1000:
        raise RuntimeError("a neutron star")
    return structure.density <= limit

def half(crystals: Crystals):
    return [0.5] * len(crystals)

def beyond(crystals: Crystals):
    return [2.0] * len(crystals)

def two(structure, limit):
    return True
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_guards.py"
    path.write_text(OWN)
    return path


def test_a_guard_of_ones_own(file: Path) -> None:
    """Of a file, with a number or not, as a function of a structure or of crystals."""
    crystals, batch = rock_salts(NACL, LIF), judged(0.0, 0.1)  # 2.2 and 0.98 g/cm³ at 5.6 Å
    found, _, metrics = guarded([f"{file}:light:1.5"], crystals, batch)
    assert found.reasons == ["light: not believed", None]
    assert metrics == {"guard/light": 0.5}
    assert guarded([f"{file}:light"], crystals, batch)[0].ok.all()
    assert guarded([f"{file}:half"], crystals, batch)[1].tolist() == [0.5, 0.5]
    np.testing.assert_allclose(trained([f"{file}:half"], crystals, batch), [-0.75, -0.8])
    found, _, _ = guarded([f"{file}:beyond"], crystals, batch)
    assert found.reasons == ["beyond: the share 2 is not within [0, 1]"] * 2
    small = rock_salts(NACL, NACL)
    small.lattice[0, :3] = 0.7
    assert guarded([f"{file}:light"], small, judged(0.0, 0.0))[0].ok.tolist() == [False, True]


def test_a_registered_guard() -> None:
    class Odd:
        def __call__(self, crystals: Crystals, batch: RewardBatch) -> Verdict:
            return Verdict.of(np.arange(len(crystals)) % 2 == 0, "odd")

    register("test-odd")(lambda number, guarding: Odd())
    assert guarded(["test-odd"], rock_salts(NACL, LIF), judged(0, 0))[0].ok.tolist() == [
        True,
        False,
    ]
    with pytest.raises(ValueError, match="'test-odd' is registered already"):
        register("test-odd")(lambda number, guarding: Odd())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["sparse"], "no guard is named 'sparse': choose sparse-hull, .*seen-structures"),
        (["sparse-hull:many"], "sparse-hull takes a number, not 'many'"),
        (["sparse-hull:2.5"], "must be a whole number, not 2.5"),
        (["sparse-hull:0"], "must be at least 1, not 0"),
        (["too-good:-1"], "must be at least 0, not -1"),
        (["too-good:nan"], "write a guard as NAME or NAME:NUMBER"),
        (["3"], "write a guard as NAME or NAME:NUMBER"),
        (["pure-elements:3"], "takes no number"),
        (["seen-structures:0.5"], "must be a whole number"),
        (["too-good:0.1", "too-good:0.2"], "too-good is given twice"),
    ],
)
def test_mistakes_are_named(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_guards(names, GUARDING)


def test_mistakes_with_files_are_named(file: Path) -> None:
    with pytest.raises(ValueError, match="half takes no number"):
        create_guards([f"{file}:half:3"], GUARDING)
    with pytest.raises(ValueError, match="defines no function 'absent'"):
        create_guards([f"{file}:absent"], GUARDING)
    with pytest.raises(ValueError, match="two cannot be made"):
        create_guards([f"{file}:two"], GUARDING)
    with pytest.raises(FileNotFoundError, match=r"no Python file nowhere\.py"):
        create_guards(["nowhere.py:half"], GUARDING)


def test_a_name_that_reads_as_a_number_is_a_name_after_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "def nan(structure):\n    return 0\n\ndef inf(structure, limit):\n    return 1\n"
    )
    names = [f"{path}:nan", f"{path}:inf:2"]
    found, _, _ = create_guards(names[::-1], GUARDING)(rock_salts(NACL), judged(0.1))
    assert found.reasons == ["nan: not believed"]


def test_discounts_are_an_error_where_they_have_no_part(file: Path) -> None:
    crystals, batch = rock_salts(NACL, NACL), judged(0.0, 0.2)
    whole = create_guards(["too-good", f"{file}:light:1.5"], GUARDING).all_or_nothing
    assert whole(crystals, batch)[0].reasons == ["light: not believed"] * 2
    for name, share in ((f"{file}:half", "0.5"), ("seen-compositions", "0.75")):
        guards = create_guards([name], GUARDING)
        with pytest.raises(ValueError, match=f"{name.split(':')[-1]} leaves {share} of a reward"):
            guards.all_or_nothing(crystals, batch)


def test_too_good_needs_energies_above_hull() -> None:
    density = Guarding(HULL, Quantity("density", "g/cm³"))
    with pytest.raises(ValueError, match=r"energies above hull, and the reward is density.*bounds"):
        create_guards(["too-good"], density)
    create_guards(["sparse-hull", "seen-structures"], density)


def test_a_discount_lowers_rewards_of_any_sign_and_none_below_the_penalty() -> None:
    share = np.array([1.0, 0.5, 0.5, 0.5, 0.1])
    batch = RewardBatch.from_values(np.array([3.0, 3.0, -3.0, -9.0, np.nan]))
    values = RewardBounds(invalid=-5.0)(batch, share)
    assert values.tolist() == [3.0, -1.0, -4.0, -9.0, -5.0]
    # A penalty that follows from the rewards: a standard deviation below the lowest.
    values = RewardBounds()(batch[:3], share[:3])
    penalty = -3 - np.std([3.0, 3.0, -3.0])
    np.testing.assert_allclose(values, [3, (penalty + 3) / 2, (penalty - 3) / 2])


def test_memory_of_other_guards_is_refused() -> None:
    guards = create_guards(["seen-compositions"], GUARDING)
    guards(rock_salts(NACL), judged(0.0))
    memory = guards.memory
    assert memory.keys() == {"seen-compositions/formulas", "seen-compositions/counts"}
    with pytest.raises(ValueError, match=r"guard seen-compositions, which is not .*\(smact\)"):
        Guards({"smact": lambda *_: Verdict(np.ones(1), [None])}).remember(memory)
    assert guards.fixed.guards == {}


def test_seen_compositions_are_reduced_formulas() -> None:
    crystals = load("prototypes").crystals
    assert len(set(formulas(crystals))) < len(crystals)
    guards = create_guards(["seen-compositions"], GUARDING)
    _, share, _ = guards(crystals, judged(*np.zeros(len(crystals))))
    names = np.array(formulas(crystals))
    for name in set(names.tolist()):
        n = (names == name).sum()
        np.testing.assert_allclose(share[names == name], np.mean(1 / np.arange(1, n + 1)))
