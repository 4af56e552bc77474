"""Rewards that users write: by decorator, by name and from files."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Structure

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.rewards import RewardBatch, create
from crystaljax.rewards.base import RewardError
from crystaljax.rewards.bounds import Quantity, quantity_of
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.user import UserReward, from_function, load_reward, reward
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


def test_overlapping_atoms_are_not_judged() -> None:
    crystals = some_crystals()
    lattice = crystals.lattice.copy()
    lattice[3, :3] /= 20
    crushed = Crystals(
        crystals.space_group, crystals.wyckoff, crystals.species, crystals.frac, lattice
    )
    seen = []

    def judged(structure: Structure) -> float:
        seen.append(structure)
        return structure.density

    for function in (judged, lambda structure: structure.density):
        batch = from_function(function)(crushed)
        assert np.flatnonzero(~batch.ok).tolist() == [3]
        assert str(batch.reasons[3]).startswith("atoms closer than 0.5 Å")
    assert len(seen) == 11


@pytest.mark.parametrize("raised", [SystemExit(1), AttributeError("x"), KeyError("y")])
def test_whatever_a_function_raises_costs_its_item(raised: BaseException) -> None:
    worst = max(densities())
    calls = []

    def fragile(structure: Structure) -> float:
        calls.append(structure)
        if structure.density == pytest.approx(worst):
            raise raised
        return structure.density

    batch = from_function(fragile)(some_crystals())
    assert batch.ok.sum() == 11 and len(calls) == 12
    assert batch.transient.sum() == (not isinstance(raised, KeyError))
    assert type(raised).__name__ in next(iter(batch.failures()))


def test_mistakes_in_the_code_surface() -> None:
    def without() -> float:
        return 0.0

    with pytest.raises(ValueError, match="without must take a Structure or Crystals"):
        from_function(without)
    with pytest.raises(ValueError, match=r"options \['typo'\]"):
        from_function(lambda structure: 0.0, typo=1)

    def vector(structure: Structure) -> Any:
        return np.zeros(3)

    assert "return one number" in next(iter(from_function(vector)(some_crystals()).failures()))

    def short(crystals: Crystals) -> Any:
        return np.zeros(1)

    with pytest.raises(RewardError, match="for 12 crystals: return one number each"):
        from_function(short)(some_crystals())


FILE = """
from __future__ import annotations
from crystaljax import Crystals
from crystaljax.rewards.user import reward

@reward("test_from_file", unit="g/cm³")
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
    path.write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ValueError, match=r"ends the program when it is loaded \(exit code 0\)"):
        load_reward(f"{path}:density")


def test_a_file_says_what_it_measures(tmp_path: Path) -> None:
    path = tmp_path / "rewards.py"
    path.write_text(FILE.replace("test_from_file", "test_of_unit"))
    assert quantity_of(load_reward(f"{path}:density")).label == "test_of_unit (g/cm³)"
    assert quantity_of(load_reward(f"{path}:edge")) == Quantity("edge")


COUNTED = """
from pathlib import Path

def density(structure):
    with Path(__file__).with_suffix(".log").open("a") as log:
        log.write("x")
    return {factor} * structure.density
"""


@pytest.mark.parametrize("kind", ["inline", pytest.param("processes", marks=pytest.mark.slow)])
def test_what_is_kept_belongs_to_the_text_of_the_file(tmp_path: Path, kind: Any) -> None:
    path, cache = tmp_path / "rewards.py", tmp_path / "cache.sqlite"
    pool = PoolConfig(kind=kind, n_workers=1)

    def judged(factor: float) -> tuple[np.ndarray, int]:
        path.write_text(COUNTED.format(factor=factor))
        with UserReward(f"{path}:density", pool, cache) as reward:
            value = reward(some_crystals()).value
        return value, len(path.with_suffix(".log").read_text())

    first, n_first = judged(1.0)
    again, n_again = judged(1.0)
    other, n_other = judged(2.0)
    assert (n_first, n_again, n_other) == (12, 12, 24)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(other, 2 * first)


SCALED = """
from pathlib import Path

from {module} import scale

FILES = ["unit.txt"]
unit = float((Path(__file__).parent / "unit.txt").read_text())


def density(structure):
    return scale * unit * structure.density
"""


def test_what_is_kept_belongs_to_what_the_file_reads(tmp_path: Path) -> None:
    """Other weights of a model, or another module beside the file, give other rewards."""
    path, cache = tmp_path / "rewards.py", tmp_path / "cache.sqlite"
    path.write_text(SCALED.format(module="scale_of_the_test"))
    module, unit = tmp_path / "scale_of_the_test.py", tmp_path / "unit.txt"
    expected = np.array(densities())
    for scale, size in ((1.0, 1.0), (1.0, 3.0), (2.0, 3.0)):
        module.write_text(f"scale = {scale}")
        unit.write_text(str(size))
        sys.modules.pop("scale_of_the_test", None)  # another process would import it anew
        importlib.invalidate_caches()
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        with UserReward(f"{path}:density", PoolConfig(), cache) as reward:
            np.testing.assert_allclose(reward(some_crystals()).value, scale * size * expected)
