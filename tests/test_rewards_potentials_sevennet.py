"""SevenNet in batches against its own calculator, with the weights that it brings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystaljax import AtomicCell
from crystaljax.rewards.potentials import create_potential
from crystaljax.rewards.potentials.screening import neighbors

pytest.importorskip("sevenn", reason="needs the sevenn extra")

ALONE = AtomicCell(9 * np.eye(3), np.zeros((1, 3)), np.array([26]))


def cells() -> list[AtomicCell]:
    """Distorted cells of 1 to 8 atoms; the first is far smaller than the cutoff, the last empty."""
    rng = np.random.default_rng(0)
    sites = np.array([[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0.02, 0, 0.48]])
    cubic = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    salt = np.vstack([cubic, cubic + 0.5])
    some = [
        AtomicCell(1.43 * (np.ones((3, 3)) - 2 * np.eye(3)), np.zeros((1, 3)), np.array([26])),
        AtomicCell(2.82 * (1 - np.eye(3)), np.array([[0, 0, 0], [0.5] * 3]), np.array([11, 17])),
        AtomicCell(3.95 * np.eye(3), sites, np.array([38, 22, 8, 8, 8])),
        AtomicCell(5.64 * np.eye(3), salt, np.repeat([11, 17], 4)),
    ]
    rattled = [
        AtomicCell(
            cell.matrix @ (np.eye(3) + rng.normal(scale=0.03, size=(3, 3))),
            cell.frac + rng.normal(scale=0.02, size=cell.frac.shape),
            cell.species,
        )
        for cell in some
    ]
    return [*rattled, ALONE]


@pytest.fixture(scope="module")
def potential() -> Any:
    return create_potential("sevennet", device="cpu")


def assert_equals_the_calculator(potential: Any, model: str, modal: str | None = None) -> None:
    from ase import Atoms
    from sevenn.calculator import SevenNetCalculator

    with pytest.warns(UserWarning, match="accelerator"):
        calculator = SevenNetCalculator(model, device="cpu", modal=modal)
    some = cells()
    energies = potential.energies(some)
    assert energies.ok.all()
    lists = [neighbors(cell, potential.cutoff) for cell in some]
    result = potential.evaluate(some, lists, gradients=True)
    np.testing.assert_allclose(energies.energy, result.energy, atol=1e-5)
    forces = np.split(result.forces, np.cumsum([len(cell.species) for cell in some])[:-1])
    for g, cell in enumerate(some):
        atoms = Atoms(cell.species, scaled_positions=cell.frac, cell=cell.matrix, pbc=True)
        atoms.calc = calculator
        energy = atoms.get_potential_energy() / len(atoms)
        assert energies.energy[g] == pytest.approx(energy, abs=1e-5)
        np.testing.assert_allclose(forces[g], atoms.get_forces(), atol=1e-5)
        np.testing.assert_allclose(result.stress[g], atoms.get_stress(voigt=False), atol=1e-5)


def test_energies_forces_and_stress_equal_the_calculator(potential: Any) -> None:
    assert potential.name == "SevenNet 0" and potential.level == "MP"
    assert len(potential.elements) == 89
    assert_equals_the_calculator(potential, "7net-0")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["7net-l3i5", "7net-mf-0:PBE", "7net-mf-0:r2scan"])
def test_so_do_other_models(name: str) -> None:
    model, _, modal = name.partition(":")
    potential = create_potential(f"sevennet:{name}", device="cpu")
    assert_equals_the_calculator(potential, model, modal.upper() or None)


def test_batches_of_any_size_and_order(potential: Any) -> None:
    some = cells()
    whole = potential.energies(some).energy
    batch_atoms, potential.batch_atoms = potential.batch_atoms, 1
    alone = potential.energies(some[::-1]).energy[::-1]
    potential.batch_atoms = batch_atoms
    np.testing.assert_allclose(alone, whole, atol=1e-5)


def test_an_unknown_element(potential: Any) -> None:
    result = potential.energies([ALONE._replace(species=np.array([86])), cells()[1]])
    assert result.ok.tolist() == [False, True]
    assert result.reasons[0] == "the potential was not trained on Rn"


def test_a_few_steps_of_relaxation(potential: Any) -> None:
    some = cells()[:3]
    result = potential.relax(some, max_steps=2)
    assert result.ok.all() and result.steps.tolist() == [2, 2, 2]
    np.testing.assert_allclose(potential.energies(some).energy, result.initial_energy, atol=1e-5)
    after = potential.energies(result.cells)
    np.testing.assert_allclose(after.energy, result.energy, atol=1e-5)


@pytest.mark.slow
def test_corrected_energies_are_near_those_of_the_materials_project(
    potential: Any, shared: Path
) -> None:
    """Without the corrections oxides, halides and so on would be far off (0.2 eV/atom on average).

    Its authors' error on unseen crystals is 0.03 to 0.05 eV/atom.
    """
    from crystaljax.data.dataset import load
    from crystaljax.rewards.ehull import EnergyAboveHull, load_hull

    data = load(str(shared / "data" / "mp20_bt" / "val.csv.gz"))
    rows = np.arange(0, len(data), len(data) // 7)
    found = EnergyAboveHull(potential, load_hull("demonstration"))(data.crystals[rows])
    error = found.info["formation_energy"] - data.properties["formation_energy_per_atom"][rows]
    assert np.isfinite(error).all()
    assert np.abs(error).mean() < 0.03
    assert np.abs(error - found.info["correction"]).mean() > 0.1


def test_checkpoints_of_users(potential: Any, tmp_path: Path) -> None:
    from sevenn.util import pretrained_name_to_path

    path = tmp_path / "mine.pth"
    path.write_bytes(Path(pretrained_name_to_path("7net-0")).read_bytes())
    mine = create_potential(f"sevennet:{path}@MP", device="cpu")
    assert mine.name == "SevenNet mine" and mine.level == "MP"
    np.testing.assert_array_equal(mine.energies(cells()).energy, potential.energies(cells()).energy)


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("run",))


def test_what_is_no_checkpoint_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    with pytest.raises(FileNotFoundError, match="neither a checkpoint of SevenNet nor one of 7net"):
        create_potential("sevennet:7net-1")
    path = tmp_path / "other.pth"
    path.write_text("nothing")
    with pytest.raises(ValueError, match=r"other\.pth is damaged"):
        create_potential(f"sevennet:{path}")
    for content in ([1], {"config": {}}, {"config": {"version": "0.13.0"}, "model_state_dict": {}}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"other\.pth holds no network of SevenNet"):
            create_potential(f"sevennet:{path}")
    torch.save({"config": {"act": Evil()}, "model_state_dict": {}}, path)
    with pytest.raises(ValueError, match="refused to read"):
        create_potential(f"sevennet:{path}")
    assert "run" not in capsys.readouterr().out


def test_fidelities_are_named() -> None:
    with pytest.raises(ValueError, match="several fidelities: name one: sevennet:7net-mf-0:PBE"):
        create_potential("sevennet:7net-mf-0")
    with pytest.raises(ValueError, match="no fidelity 'SCAN': name one"):
        create_potential("sevennet:7net-mf-0:SCAN")
    with pytest.raises(ValueError, match="no fidelity 'PBE': leave it out"):
        create_potential("sevennet:7net-0:PBE")


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sevenn.checkpoint", None)
    with pytest.raises(ImportError, match=r"crystaljax\[sevenn\]"):
        create_potential("sevennet")
