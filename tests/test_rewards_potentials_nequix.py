"""Nequix on the device against its ASE calculator, with weights that the tests make."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.data.dataset import load
from crystaljax.data.registry import RESOURCES
from crystaljax.rewards.potentials import create_potential
from crystaljax.rewards.potentials.edges import Room
from crystaljax.rewards.potentials.nequix import NAMES
from crystaljax.structures import to_structures

if importlib.util.find_spec("nequix") is None:
    pytest.skip("needs the nequix extra", allow_module_level=True)

ELEMENTS = [z for z in range(1, 95) if z not in range(84, 89)]
CONFIG = {
    "atomic_numbers": ELEMENTS,
    "hidden_irreps": "8x0e + 4x1o + 4x2e",
    "lmax": 2,
    "cutoff": 5.0,
    "n_layers": 2,
    "radial_basis_size": 8,
    "radial_mlp_size": 16,
    "radial_mlp_layers": 2,
    "radial_polynomial_p": 6.0,
    "mlp_init_scale": 4.0,
    "index_weights": False,
    "layer_norm": True,
    "shift": 0.1,
    "scale": 0.8,
    "avg_n_neighbors": 40.0,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of random weights, in the file format of the released ones."""
    from nequix.model import Nequix, save_model

    names = set(CONFIG) - {"atomic_numbers"}
    model = Nequix(
        jax.random.key(0),
        n_species=len(ELEMENTS),
        atom_energies=np.linspace(-9, 1, len(ELEMENTS)).tolist(),
        **{name: CONFIG[name] for name in names},
    )
    path = tmp_path_factory.mktemp("weights") / "small.nqx"
    save_model(path, model, CONFIG)
    return path


def some_crystals(n: int = 12) -> Crystals:
    crystals = load("prototypes").crystals
    known = np.flatnonzero(np.isin(crystals.species, [0, *ELEMENTS]).all(axis=1))
    return crystals[known[:: len(known) // n][:n]]


def calculated(weights: Path, crystals: Crystals) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Energy per atom, forces and stress by the ASE calculator, in one padded shape."""
    import jraph
    from nequix.calculator import NequixCalculator
    from pymatgen.io.ase import AseAtomsAdaptor

    class Padded(NequixCalculator):
        def _pad_graph_jax(self, graph, numbers_changed=False):  # type: ignore[no-untyped-def]
            return jraph.pad_with_graphs(graph, n_node=64, n_edge=6144, n_graph=2)

    calculator = Padded(model_path=str(weights), use_kernel=False)
    results = []
    for structure in to_structures(crystals, primitive=True):
        atoms = AseAtomsAdaptor.get_atoms(structure)
        atoms.calc = calculator
        energy = atoms.get_potential_energy() / len(atoms)
        results.append((energy, atoms.get_forces(), atoms.get_stress(voigt=False)))
    return results


def compare(weights: Path, crystals: Crystals, room: Room | None = None) -> None:
    potential = create_potential("nequix", weights=weights, room=room)
    expected = calculated(weights, crystals)
    energies = potential.energies(crystals)
    assert energies.ok.all(), energies.reasons
    np.testing.assert_allclose(energies.energy, [e for e, _, _ in expected], atol=1e-4)
    gradients = potential.gradients(crystals)
    for row, (energy, forces, stress) in enumerate(expected):
        assert gradients.energy[row] == pytest.approx(energy, abs=1e-4)
        np.testing.assert_allclose(gradients.forces[row], forces, atol=1e-3)
        np.testing.assert_allclose(gradients.stress[row], stress, atol=1e-3)


def test_agrees_with_the_calculator(weights: Path) -> None:
    compare(weights, some_crystals())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nequix-mp-1", "nequix-oam-1"])
def test_released_weights_agree_with_the_calculator(shared: Path, name: str) -> None:
    crystals = load(shared / "data" / "mp20_bt" / "test.csv.gz").crystals
    compare(shared / "weights" / f"{name}.nqx", crystals[np.arange(0, 200, 10)])


def test_released_weights_have_the_checksums_of_the_registry(shared: Path) -> None:
    for name in NAMES:
        content = (shared / "weights" / f"{name}.nqx").read_bytes()
        assert RESOURCES[name].checksum == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert RESOURCES[name].size == len(content)


def test_released_weights_come_by_name(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crystaljax.rewards.potentials.nequix.fetch", lambda name: weights)
    assert create_potential("nequix:nequix-mp-1").name == "Nequix mp-1"
    assert create_potential(f"nequix:{weights}").name == "Nequix small"
    with pytest.raises(ValueError, match="after nequix can stand weights, no more"):
        create_potential("nequix:a:b")
    with pytest.raises(ValueError, match="no potential is named 'nequip'"):
        create_potential("nequip")


@pytest.mark.slow
def test_the_room_does_not_matter(weights: Path) -> None:
    """Rooms too small for the edges, or for single cells, give the same energies."""
    crystals = some_crystals()
    whole = create_potential("nequix", weights=weights).energies(crystals)
    for room in (Room(3, 64, 2**14, 2**9), Room(12, 256, 2**17, 2**11)):
        parts = create_potential("nequix", weights=weights, room=room).energies(crystals)
        np.testing.assert_allclose(parts.energy, whole.energy, atol=1e-5)


def test_what_it_cannot_take_costs_itself(weights: Path) -> None:
    cubic = np.eye(3) * 4
    cells = [
        AtomicCell(cubic, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([55, 17])),
        AtomicCell(cubic, np.zeros((1, 3)), np.array([85])),
        AtomicCell(cubic, np.array([[0, 0, 0], [0.01, 0, 0]]), np.array([11, 17])),
        AtomicCell(cubic * np.nan, np.zeros((1, 3)), np.array([11])),
        AtomicCell(cubic, np.zeros((0, 3)), np.array([], int)),
        AtomicCell(np.diag([4, 4, 0.1]), np.zeros((1, 3)), np.array([11])),
        AtomicCell(cubic, np.random.default_rng(0).random((9, 3)), np.full(9, 8)),
    ]
    energies = create_potential("nequix", weights=weights, max_atoms=8).energies(cells)
    assert energies.ok.tolist() == [True] + [False] * 6
    words = [
        "not trained on At",
        "closer than 0.5",
        "not finite",
        "no atoms",
        "flat",
        "more than 8",
    ]
    for reason, word in zip(energies.reasons[1:], words, strict=True):
        assert reason is not None
        assert word in reason


@pytest.mark.slow
def test_relaxation_goes_downhill(weights: Path) -> None:
    relaxed = create_potential("nequix", weights=weights).relax(some_crystals(3), max_steps=5)
    assert relaxed.ok.all(), relaxed.reasons
    assert (relaxed.energy <= relaxed.initial_energy + 1e-5).all()
    assert (relaxed.energy < relaxed.initial_energy - 1e-4).any()
    assert (relaxed.converged | (relaxed.steps == 5)).all()


def test_nothing(weights: Path) -> None:
    assert len(create_potential("nequix", weights=weights).energies([]).energy) == 0


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.nqx"):
        create_potential("nequix", weights=tmp_path / "absent.nqx")
    (tmp_path / "wrong.nqx").write_text('{"cutoff": 5}\n')
    with pytest.raises(ValueError, match="holds no Nequix weights"):
        create_potential("nequix", weights=tmp_path / "wrong.nqx")


SCRIPT = """
import jax
from crystaljax.rewards.potentials.nequix import load_weights
try:
    load_weights("absent.nqx")
except FileNotFoundError:
    assert jax.config.jax_default_matmul_precision is None
"""


def test_the_precision_of_products_is_left_alone() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
