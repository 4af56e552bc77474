"""MatGL in batches against its own calculator, and against files that are no potential of it."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystaljax import AtomicCell
from crystaljax.data.readers import read
from crystaljax.rewards.potentials import create_potential
from crystaljax.rewards.potentials.screening import neighbors

pytest.importorskip("matgl", reason="needs the matgl extra")
pytestmark = pytest.mark.filterwarnings("ignore:Incompatible model version")

ELEMENTS = ("O", "Na", "Si", "Cl", "Ti", "Fe", "Sr")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small TensorNet of random weights, in a folder as MatGL saves it."""
    import torch
    from matgl.apps.pes import Potential
    from matgl.models import TensorNet

    torch.manual_seed(0)
    network = TensorNet(element_types=ELEMENTS, units=8, nblocks=1, num_rbf=8, is_intensive=False)
    folder = tmp_path_factory.mktemp("weights") / "small"
    references = np.linspace(-9, 1, len(ELEMENTS))
    Potential(network, data_std=1.5, element_refs=references).save(folder)
    return folder


@pytest.fixture(scope="module")
def potential(weights: Path) -> Any:
    return create_potential("matgl", weights=weights, device="cpu")


def cells() -> list[AtomicCell]:
    """Rock salt, iron of one atom, and a distorted perovskite in a skewed cell."""
    rng = np.random.default_rng(0)
    skewed = 3.95 * (np.eye(3) + rng.normal(scale=0.05, size=(3, 3)))
    sites = np.array([[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0.02, 0, 0.48]])
    return [
        AtomicCell(2.82 * (1 - np.eye(3)), np.array([[0, 0, 0], [0.5] * 3]), np.array([11, 17])),
        AtomicCell(2.85 * (0.5 - np.eye(3)), np.zeros((1, 3)), np.array([26])),
        AtomicCell(skewed, sites, np.array([38, 22, 8, 8, 8])),
    ]


def assert_equals_calculator(folder: Path, potential: Any, some: list[AtomicCell]) -> None:
    """Energies to 1e-4 eV/atom, forces (eV/Å) and stresses (eV/Å³) to 1e-3."""
    from ase import Atoms
    from matgl.apps.pes import Potential
    from matgl.ext.ase import PESCalculator

    calculator = PESCalculator(Potential.load(folder).eval(), stress_unit="eV/A3", use_voigt=False)
    energies = potential.energies(some)
    assert energies.ok.all()
    lists = [neighbors(cell, potential.cutoff) for cell in some]
    result = potential.evaluate(some, lists, gradients=True)
    np.testing.assert_allclose(energies.energy, result.energy, atol=1e-5)
    forces = np.split(result.forces, np.cumsum([len(cell.species) for cell in some])[:-1])
    for g, cell in enumerate(some):
        atoms = Atoms(cell.species, scaled_positions=cell.frac, cell=cell.matrix, pbc=True)
        atoms.calc = calculator
        assert energies.energy[g] == pytest.approx(
            atoms.get_potential_energy() / len(atoms), abs=1e-4
        )
        np.testing.assert_allclose(forces[g], atoms.get_forces(), atol=1e-3)
        np.testing.assert_allclose(result.stress[g], calculator.results["stress"], atol=1e-3)


def test_energies_forces_and_stress_equal_the_calculator(weights: Path, potential: Any) -> None:
    assert_equals_calculator(weights, potential, cells())
    assert potential.name == "small"
    assert potential.level is None  # the folder's name tells of no training data


@pytest.mark.parametrize("n", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_matpes_on_real_crystals(shared: Path, n: int) -> None:
    folder = shared / "weights" / "matgl" / "TensorNet-MatPES-PBE-v2025.1-PES"
    records = islice(read(shared / "data" / "mp20_bt" / "test.csv.gz"), n)
    real = [record.cell for record in records if record.cell is not None]
    potential = create_potential("matgl", weights=folder, device="cpu")
    assert len(potential.elements) == 89
    assert_equals_calculator(folder, potential, real)


def test_batches_of_any_size_and_order(weights: Path, potential: Any) -> None:
    whole = potential.energies(cells()).energy
    single = create_potential("matgl", weights=weights, device="cpu", batch_atoms=1)
    np.testing.assert_allclose(single.energies(cells()[::-1]).energy[::-1], whole, atol=1e-6)


def test_an_atom_alone_and_an_unknown_element_among_others(potential: Any) -> None:
    """An atom without neighbours has an energy of its own, as with the calculator."""
    alone = AtomicCell(9 * np.eye(3), np.zeros((1, 3)), np.array([26]))
    unknown = cells()[0]._replace(species=np.array([11, 84]))
    result = potential.energies([cells()[0], alone, unknown])
    assert result.ok.tolist() == [True, True, False]
    assert result.reasons[2] == "the potential was not trained on Po"
    assert result.energy[1] == pytest.approx(potential.energies([alone]).energy[0], abs=1e-6)
    both = potential.evaluate([alone] * 2, [neighbors(alone, 5.0)] * 2, gradients=True)
    np.testing.assert_array_equal(both.forces, 0)
    np.testing.assert_array_equal(both.stress, 0)


def test_energies_that_are_not_numbers_are_told(weights: Path) -> None:
    broken = create_potential("matgl", weights=weights, device="cpu")
    for parameter in broken.model.parameters():
        parameter.data.fill_(np.nan)
    result = broken.energies(cells())
    assert result.reasons == ["the energy is nan"] * 3
    assert np.isnan(result.energy).all()
    relaxed = broken.relax(cells())
    assert not relaxed.ok.any()
    assert set(relaxed.reasons) == {"relaxation failed: the energy or the forces are not finite"}


def changed(weights: Path, folder: Path, arguments: dict[str, Any] | None) -> Path:
    """A copy of the folder with another description of the network, or with another class."""
    import torch

    shutil.copytree(weights, folder)
    if arguments is not None:
        model = torch.load(folder / "model.pt", weights_only=True)
        torch.save(model | {"model": arguments}, folder / "model.pt")
    else:
        known = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(known | {"@class": "MEGNet"}))
    return folder


def test_what_is_no_potential_is_told(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it is a MEGNet, which gives no forces"):
        create_potential("matgl", weights=changed(weights, tmp_path / "megnet", None))
    other = {"@class": "M3GNet", "@module": "matgl.models._m3gnet", "init_args": {}}
    with pytest.raises(ValueError, match=r"its network is matgl\.models\._m3gnet\.M3GNet"):
        create_potential("matgl", weights=changed(weights, tmp_path / "m3gnet", other))
    text = tmp_path / "text"
    shutil.copytree(weights, text)
    (text / "state.pt").write_text("no weights")
    with pytest.raises(ValueError, match="text holds no potential of MatGL"):
        create_potential("matgl", weights=text)
    (text / "state.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no state\.pt"):
        create_potential("matgl", weights=text)
    with pytest.raises(FileNotFoundError, match="no folder of a MatGL model"):
        create_potential("matgl", weights=tmp_path / "absent")


def test_nothing_in_the_files_is_run(weights: Path, tmp_path: Path) -> None:
    """Neither a class that the description names nor a pickle's own call."""
    import torch

    mark = tmp_path / "mark"
    command = {"args": ["touch", str(mark)]}
    called = {"@class": "Popen", "@module": "subprocess", "init_args": command}
    with pytest.raises(ValueError, match=r"its network is subprocess\.Popen"):
        create_potential("matgl", weights=changed(weights, tmp_path / "called", called))

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (mark,)

    pickled = tmp_path / "pickled"
    shutil.copytree(weights, pickled)
    torch.save({"model": Bomb()}, pickled / "model.pt")
    with pytest.raises(ValueError, match="pickled holds no potential of MatGL"):
        create_potential("matgl", weights=pickled)
    assert not mark.exists()


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matgl.apps.pes", None)
    with pytest.raises(ImportError, match=r"crystaljax\[matgl\]"):
        create_potential("matgl")
