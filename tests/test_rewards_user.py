"""Rewards that users write: by decorator, by name and from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Structure

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.rewards import RewardBatch, create
from crystaljax.rewards.user import from_function, load_reward, reward
from crystaljax.structures import to_structures


def some_crystals() -> Crystals:
    return load("prototypes").crystals[:12]


def densities() -> list[float]:
    return [float(structure.density) for structure in to_structures(some_crystals()) if structure]


def test_a_function_of_a_structure() -> None:
    @reward("test_density")
    def density(structure: Structure, factor: float = 1.0) -> float:
        return factor * structure.density

    batch = create("test_density", factor=2.0)(some_crystals())
    assert batch.ok.all()
    np.testing.assert_allclose(batch.value, 2 * np.array(densities()))
    structure = to_structures(some_crystals())[0]
    assert structure is not None
    assert density(structure) == structure.density  # still the user's own function


def test_a_function_of_crystals() -> None:
    def edge(crystals: Crystals) -> np.ndarray:
        return crystals.lattice[:, 0]

    batch = from_function(edge)(some_crystals())
    np.testing.assert_allclose(batch.value, some_crystals().lattice[:, 0])

    def judged(crystals: Crystals) -> RewardBatch:
        return RewardBatch.from_values(crystals.lattice[:, 0], {"a": crystals.lattice[:, 0]})

    assert "a" in from_function(judged)(some_crystals()).info


def test_batch_and_single_agree() -> None:
    judge = from_function(lambda structure: structure.volume)
    crystals = some_crystals()
    single = [judge(crystals[i]).value[0] for i in range(len(crystals))]
    np.testing.assert_allclose(judge(crystals).value, single, rtol=1e-6)


def test_what_raises_costs_its_item() -> None:
    threshold = np.median(densities())

    def picky(structure: Structure) -> float:
        if structure.density > threshold:
            raise ValueError("too dense")
        return structure.density

    batch = from_function(picky)(some_crystals())
    np.testing.assert_array_equal(batch.ok, np.array(densities()) <= threshold)
    assert "ValueError: too dense" in batch.failures()


def test_no_structure_and_no_number_are_not_ok() -> None:
    crystals = some_crystals()
    lattice = crystals.lattice.copy()
    lattice[0, :3] = 0
    broken = Crystals(
        crystals.space_group, crystals.wyckoff, crystals.species, crystals.frac, lattice
    )
    batch = from_function(lambda structure: float("nan"))(broken)
    assert batch.reasons[:2] == ["no structure", "the reward is nan"]


def test_mistakes_in_the_code_surface() -> None:
    def without() -> float:
        return 0.0

    with pytest.raises(TypeError, match="without must take a Structure or Crystals"):
        from_function(without)
    with pytest.raises(TypeError, match=r"options \['typo'\]"):
        from_function(lambda structure: 0.0, typo=1)

    def vector(structure: Structure) -> Any:
        return np.zeros(3)

    with pytest.raises(TypeError, match="return one number"):
        from_function(vector)(some_crystals())

    def short(crystals: Crystals) -> Any:
        return np.zeros(1)

    with pytest.raises(TypeError, match="for 12 crystals: return one number each"):
        from_function(short)(some_crystals())


FILE = """
from __future__ import annotations
from crystaljax import Crystals
from crystaljax.rewards.user import reward

@reward("test_from_file")
def density(structure, factor=1.0):
    return factor * structure.density

def edge(crystals: Crystals):
    return crystals.lattice[:, 0]

number = 3
"""


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my rewards.py"
    path.write_text(FILE)
    np.testing.assert_allclose(
        load_reward(f"{path}:density", factor=3.0)(some_crystals()).value,
        3 * np.array(densities()),
    )
    np.testing.assert_allclose(
        load_reward(f"{path}:edge")(some_crystals()).value, some_crystals().lattice[:, 0]
    )  # the second load registers the same name again
    assert create("test_from_file")(some_crystals()).ok.all()
    for source, message in (
        (f"{path}", "names no function"),
        (f"{path}:number", "defines no function 'number'"),
        (f"{path}:absent", "defines no function 'absent'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_reward(source)
    with pytest.raises(FileNotFoundError, match=r"nothing\.py"):
        load_reward(f"{tmp_path}/nothing.py:density")
