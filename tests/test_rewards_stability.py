"""The configured stability reward: in this process, in workers, and kept on disk."""

from pathlib import Path

import numpy as np
import pytest

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.rewards.ehull import create_e_above_hull
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.stability import StabilityConfig, StabilityReward

pytest.importorskip("chgnet", reason="needs the chgnet extra")


@pytest.fixture(scope="module")
def crystals() -> Crystals:
    return load("prototypes").crystals[np.arange(0, 60, 10)]


def test_inline_it_is_the_energy_above_hull(crystals: Crystals) -> None:
    with StabilityReward(StabilityConfig()) as stability:
        found = stability(crystals)
        assert stability.potential == "CHGNet 0.3.0"
        assert stability.label.startswith("demonstration hull (")
    expected = create_e_above_hull()(crystals)
    np.testing.assert_allclose(found.value, expected.value, atol=1e-5)
    assert list(found.info) == list(expected.info)


def test_what_is_kept_is_not_computed_again(
    crystals: Crystals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StabilityConfig(cache=tmp_path / "energies.sqlite")
    with StabilityReward(config) as stability:
        first = stability(crystals)
    with StabilityReward(config) as stability:
        monkeypatch.setattr(stability.energy.potential, "energies", None)
        again = stability(crystals)
    np.testing.assert_array_equal(again.value, first.value)
    other = tmp_path / "hull.csv"
    other.write_text("formula,formation_energy_per_atom\nNaCl,-2\n")
    with StabilityReward(StabilityConfig(hull=str(other), cache=config.cache)) as stability:
        assert not np.array_equal(stability(crystals).ok, first.ok)  # another hull, other results


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 3])
def test_workers_say_the_same(crystals: Crystals, steps: int) -> None:
    pool = PoolConfig(kind="processes", n_workers=2, chunk=3)
    with StabilityReward(StabilityConfig(relax_steps=steps, pool=pool)) as stability:
        found = stability(crystals)
        assert stability.potential == "chgnet"
    expected = create_e_above_hull(relax_steps=steps)(crystals)
    np.testing.assert_allclose(found.value, expected.value, atol=1e-5)
    assert list(found.info) == list(expected.info)


def test_hulls_have_digests_of_what_they_hold() -> None:
    hull = Hull.from_entries(["NaCl", "Fe"], [-2.0, 0.0])
    assert hull.digest == Hull.from_entries(["Fe", "NaCl"], [0.0, -2.0]).digest
    assert hull.digest != Hull.from_entries(["NaCl", "Fe"], [-2.1, 0.0]).digest
