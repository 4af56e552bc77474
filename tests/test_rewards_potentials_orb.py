"""Orb in batches against its own calculator, with random weights through the path of real ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystaljax import AtomicCell
from crystaljax.rewards.potentials import create_potential
from crystaljax.rewards.potentials.screening import Neighbors, neighbors

pytest.importorskip("orb_models", reason="needs the orb extra")

MODELS = ["orb-v2", "orb-v3-conservative-inf-mpa", "orb-v3-direct-20-omat"]


def random_weights(name: str, path: Path) -> Path:
    """Weights of a model's real architecture, drawn at random, as Orb's files hold them."""
    import torch
    from orb_models.forcefield import pretrained

    torch.manual_seed(0)
    kind = name if name == "orb-v2" else name.rsplit("-", 2)[0]  # less neighbours and data
    model = getattr(pretrained, kind.replace("-", "_") + "_architecture")(device="cpu")
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module", params=MODELS)
def potential(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    path = random_weights(request.param, tmp_path_factory.mktemp("weights") / "orb.ckpt")
    yield create_potential("orb", model=request.param, weights=path, device="cpu")
    path.unlink()  # 100 MB


def cells() -> list[AtomicCell]:
    """Distorted rock salt and perovskite: no two distances alike, so the nearest are certain."""
    rng = np.random.default_rng(0)
    sites = np.array([[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0.02, 0, 0.48]])
    some = [
        AtomicCell(2.82 * (1 - np.eye(3)), np.array([[0, 0, 0], [0.5] * 3]), np.array([11, 17])),
        AtomicCell(3.95 * np.eye(3), sites, np.array([38, 22, 8, 8, 8])),
    ]
    return [
        AtomicCell(
            cell.matrix @ (np.eye(3) + rng.normal(scale=0.03, size=(3, 3))),
            cell.frac + rng.normal(scale=0.02, size=cell.frac.shape),
            cell.species,
        )
        for cell in some
    ]


ALONE = AtomicCell(9 * np.eye(3), np.zeros((1, 3)), np.array([26]))


def test_energies_forces_and_stress_equal_the_calculator(potential: Any) -> None:
    from ase import Atoms
    from orb_models.forcefield.calculator import ORBCalculator

    calculator = ORBCalculator(potential.model, device="cpu")
    some = [*cells(), ALONE]
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
        np.testing.assert_allclose(forces[g], atoms.get_forces(), atol=1e-4)
        np.testing.assert_allclose(result.stress[g], atoms.get_stress(voigt=False), atol=1e-4)


def test_batches_of_any_size_and_order(potential: Any) -> None:
    some = [*cells(), ALONE]
    whole = potential.energies(some).energy
    batch_atoms, potential.batch_atoms = potential.batch_atoms, 1
    alone = potential.energies(some[::-1]).energy[::-1]
    potential.batch_atoms = batch_atoms
    np.testing.assert_allclose(alone, whole, atol=1e-5)


def test_an_unknown_element_and_energies_that_are_not_numbers(potential: Any) -> None:
    unknown = ALONE._replace(species=np.array([86]))
    result = potential.energies([unknown, cells()[0]])
    assert result.ok.tolist() == [False, True]
    assert result.reasons[0] == "the potential was not trained on Rn"
    head = potential.model.heads["energy"].mlp
    before = {key: value.clone() for key, value in head.state_dict().items()}
    for parameter in head.parameters():
        parameter.data.fill_(np.nan)
    broken, relaxed = potential.energies(cells()), potential.relax(cells())
    head.load_state_dict(before)
    assert broken.reasons == ["the energy is nan"] * 2
    assert set(relaxed.reasons) == {"relaxation failed: the energy or the forces are not finite"}


def test_a_few_steps_of_relaxation(potential: Any) -> None:
    result = potential.relax(cells(), max_steps=2)
    assert result.ok.all()
    assert result.steps.tolist() == [2, 2]
    np.testing.assert_allclose(potential.energies(cells()).energy, result.initial_energy, atol=1e-5)


def test_the_nearest_neighbours_do_not_depend_on_the_order_of_edges() -> None:
    from crystaljax.rewards.potentials.orb import nearest

    fcc = AtomicCell(2.0 * (1 - np.eye(3)), np.zeros((1, 3)), np.array([29]))
    edges = neighbors(fcc, 6.0)  # shells of 12, 6, 24, ...
    chosen = nearest(edges, 20)
    assert chosen.distance.max() == pytest.approx(np.sort(edges.distance)[19])
    order = np.random.default_rng(0).permutation(len(edges.center))
    again = nearest(Neighbors(*(x[order] for x in edges)), 20)
    np.testing.assert_array_equal(chosen.image, again.image)
    rattled = cells()[1]
    edges = neighbors(rattled, 6.0)
    kept = nearest(edges, 7)
    for atom in range(5):
        expected = np.sort(edges.distance[edges.center == atom])[:7]
        np.testing.assert_array_equal(kept.distance[kept.center == atom], expected)


def test_what_holds_no_weights_of_the_model_is_told(tmp_path: Path) -> None:
    import torch

    path = random_weights("orb-v3-direct-20-omat", tmp_path / "direct.ckpt")
    with pytest.raises(ValueError, match="holds no weights of orb-v2"):
        create_potential("orb", model="orb-v2", weights=path)
    state = torch.load(path, weights_only=True)
    headless = {key: value for key, value in state.items() if not key.startswith("heads.energy")}
    torch.save(headless, path)
    with pytest.raises(ValueError, match=r"lacks heads\.energy"):
        create_potential("orb", model="orb-v3-direct-20-omat", weights=path)
    path.write_text("no weights")
    with pytest.raises(ValueError, match="holds no weights of orb-v3-direct-20-omat"):
        create_potential("orb", model="orb-v3-direct-20-omat", weights=path)
    with pytest.raises(FileNotFoundError, match="no file of Orb weights"):
        create_potential("orb", weights=tmp_path / "absent.ckpt")
    with pytest.raises(ValueError, match="no Orb model for crystals is named 'orb-v3-direct-omol'"):
        create_potential("orb", model="orb-v3-direct-omol")


def test_only_the_models_of_the_materials_projects_settings_meet_its_hull() -> None:
    from orb_models.forcefield.pretrained import ORB_PRETRAINED_MODELS

    from crystaljax.rewards.potentials.orb import MODELS as KNOWN

    assert set(KNOWN) <= set(ORB_PRETRAINED_MODELS)
    assert {name for name, kind in KNOWN.items() if kind == "none"} == {
        name for name in KNOWN if name.endswith("omat")
    }


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "orb_models.forcefield.load", None)
    with pytest.raises(ImportError, match=r"crystaljax\[orb\]"):
        create_potential("orb")
