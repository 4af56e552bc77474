"""CHGNet in batches against CHGNet one by one, against DFT, and against bad structures."""

import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from crystaljax import AtomicCell
from crystaljax.composition import N_SPECIES
from crystaljax.data.readers import read
from crystaljax.rewards.formation import formation_energy
from crystaljax.rewards.potentials import create_potential
from crystaljax.rewards.potentials.chgnet import CHGNetPotential
from crystaljax.rewards.potentials.screening import geometry_problem, neighbors

pytest.importorskip("chgnet", reason="needs the chgnet extra")


@pytest.fixture(scope="module")
def potential() -> CHGNetPotential:
    return CHGNetPotential(device="cpu")


def cubic(a: float, *sites: tuple[int, float, float, float]) -> AtomicCell:
    table = np.array(sites, np.float64)
    return AtomicCell(a * np.eye(3), table[:, 1:], table[:, 0].astype(np.int64))


CSCL = cubic(4.1, (55, 0, 0, 0), (17, 0.5, 0.5, 0.5))
IRON = AtomicCell(2.85 * (0.5 - np.eye(3)), np.zeros((1, 3)), np.array([26]))
SILICON = AtomicCell(
    2.73 * (1 - np.eye(3)), np.array([[0, 0, 0], [0.25, 0.25, 0.25]]), np.array([14, 14])
)
PEROVSKITE = cubic(
    3.95, (38, 0.5, 0.5, 0.5), (22, 0, 0, 0), (8, 0.5, 0, 0), (8, 0, 0.5, 0), (8, 0.02, 0, 0.48)
)
GOOD = [CSCL, IRON, SILICON, PEROVSKITE]


def structure(cell: AtomicCell) -> object:
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(cell.matrix), cell.species, cell.frac)


def test_energies_equal_chgnet_one_structure_at_a_time(potential: CHGNetPotential) -> None:
    """One-atom cells, bonds to own images, no bond shorter than 3 Å, and a distorted cell."""
    expected = [potential.model.predict_structure(structure(c), task="e")["e"] for c in GOOD]
    result = potential.energies(GOOD)
    assert result.ok.all()
    np.testing.assert_allclose(result.energy, np.array(expected), atol=1e-5)


def test_forces_and_stress_equal_chgnet(potential: CHGNetPotential) -> None:
    from ase.units import GPa

    edges = [neighbors(cell, 6.0) for cell in GOOD]
    result = potential.evaluate(GOOD, edges, gradients=True)
    each = [potential.model.predict_structure(structure(c), task="efs") for c in GOOD]
    forces = np.concatenate([one["f"] for one in each])
    np.testing.assert_allclose(result.forces, forces, atol=1e-3)
    np.testing.assert_allclose(result.stress, GPa * np.array([o["s"] for o in each]), atol=1e-4)


def test_the_size_of_the_batches_changes_nothing(potential: CHGNetPotential) -> None:
    """Also alone: CsCl has no bond shorter than 3 Å, so its graph has no angles."""
    whole = potential.energies(GOOD).energy
    small = CHGNetPotential(device="cpu", batch_atoms=1).energies(GOOD).energy
    np.testing.assert_allclose(small, whole, atol=1e-6)


def formation_errors(potential: CHGNetPotential, path: Path, n: int | None) -> np.ndarray:
    """CHGNet's formation energies less those of the table, eV/atom."""
    records = [record for record in islice(read(path), n) if record.cell is not None]
    cells = [record.cell for record in records if record.cell is not None]
    energies = potential.energies(cells)
    assert energies.ok.all()
    counts = np.stack([np.bincount(cell.species, minlength=N_SPECIES) for cell in cells])
    expected = np.array([record.properties["formation_energy_per_atom"] for record in records])
    return formation_energy(counts, energies.energy) - expected.astype(np.float64)


def test_sample_of_real_crystals(potential: CHGNetPotential, shared: Path) -> None:
    path = shared / "data" / "mp20_bt" / "test.csv.gz"
    cells = [record.cell for record in islice(read(path), 20) if record.cell is not None]
    expected = [potential.model.predict_structure(structure(c), task="e")["e"] for c in cells]
    np.testing.assert_allclose(potential.energies(cells).energy, np.array(expected), atol=1e-5)
    errors = formation_errors(potential, path, 60)
    assert np.abs(errors).mean() < 0.035  # 0.023 over the whole file


@pytest.mark.slow
def test_formation_energies_agree_with_dft(potential: CHGNetPotential, shared: Path) -> None:
    errors = formation_errors(potential, shared / "data" / "mp20_bt" / "test.csv.gz", None)
    assert np.abs(errors).mean() == pytest.approx(0.023, abs=0.005)


BAD: dict[str, tuple[AtomicCell, str]] = {
    "overlap": (cubic(4.0, (26, 0, 0, 0), (26, 0, 0, 0.05)), "0.20 Å apart"),
    "coincident": (cubic(4.0, (26, 0, 0, 0), (26, 0, 0, 0)), "0.00 Å apart"),
    "isolated": (cubic(9.0, (2, 0, 0, 0)), "1 atom(s) have no neighbour"),
    "element": (cubic(3.0, (95, 0, 0, 0)), "not trained on Am"),
    "empty slot": (cubic(3.0, (0, 0, 0, 0)), "not trained on element 0"),
    "no atoms": (AtomicCell(np.eye(3), np.zeros((0, 3)), np.zeros(0, np.int64)), "no atoms"),
    "collapsed": (cubic(0.3, (26, 0, 0, 0)), "Å³ per atom"),
    "empty box": (cubic(100.0, (26, 0, 0, 0)), "Å³ per atom"),
    "long": (cubic(1e4, (26, 0, 0, 0)), "cell edge of 10000 Å"),
    "flat": (
        AtomicCell(
            np.array([[9.0, 0, 0], [0, 9, 0], [9, 9, 0.2]]), np.zeros((1, 3)), np.array([26])
        ),
        "flat",
    ),
    "nan": (cubic(np.nan, (26, 0, 0, 0)), "not finite"),
    "infinite": (cubic(3.0, (26, np.inf, 0, 0)), "not finite"),
    "crowded": (
        cubic(
            20.0, *((26, x / 6, y / 6, z / 6) for x in range(6) for y in range(6) for z in range(6))
        ),
        "216 atoms, more than 200",
    ),
}


def test_a_bad_structure_costs_only_itself(potential: CHGNetPotential) -> None:
    cells = [cell for cell, _ in BAD.values()]
    mixed = [*cells[:5], IRON, *cells[5:], CSCL]
    result = potential.energies(mixed)
    good = [5, len(mixed) - 1]
    assert np.flatnonzero(result.ok).tolist() == good
    assert np.isfinite(result.energy).tolist() == result.ok.tolist()
    np.testing.assert_allclose(
        result.energy[good], potential.energies([IRON, CSCL]).energy, atol=1e-6
    )
    reasons = [reason for reason in result.reasons if reason is not None]
    for (name, (_, expected)), reason in zip(BAD.items(), reasons, strict=True):
        assert expected in reason, name


def test_an_empty_batch_and_a_batch_of_bad_structures(potential: CHGNetPotential) -> None:
    assert potential.energies([]).energy.shape == (0,)
    result = potential.energies([BAD["overlap"][0]])
    assert not result.ok.any()
    assert np.isnan(result.energy).all()


def test_relaxation_recovers_a_strained_cell(potential: CHGNetPotential) -> None:
    strained = IRON._replace(matrix=1.04 * IRON.matrix)
    result = potential.relax([strained, BAD["overlap"][0], SILICON], fmax=0.02)
    assert result.ok.tolist() == [True, False, True]
    assert result.cells[1] is None
    assert result.reasons[1] == "atoms 0.20 Å apart, closer than 0.5 Å"
    assert result.converged[[0, 2]].all()
    assert result.energy[0] < result.initial_energy[0]
    relaxed = result.cells[0]
    assert relaxed is not None
    assert abs(np.linalg.det(relaxed.matrix)) == pytest.approx(11.3, abs=0.3)  # DFT, Å³ per atom
    np.testing.assert_allclose(potential.energies([relaxed]).energy, result.energy[[0]], atol=1e-5)


def test_relaxation_stops_at_the_limit_of_steps(potential: CHGNetPotential) -> None:
    result = potential.relax([IRON._replace(matrix=1.06 * IRON.matrix)], max_steps=2)
    assert result.ok[0]
    assert not result.converged[0]
    assert result.steps[0] == 2


def test_neighbours_of_a_simple_cubic_crystal() -> None:
    """6 at a, 12 at √2 a, 8 at √3 a, 6 at 2 a; none is the atom itself."""
    edges = neighbors(cubic(2.0, (84, 0.3, 0.4, 0.5)), 4.0)
    distances, number = np.unique(edges.distance.round(6), return_counts=True)
    np.testing.assert_allclose(distances, 2 * np.sqrt([1, 2, 3, 4]), atol=1e-5)
    assert number.tolist() == [6, 12, 8, 6]
    assert geometry_problem(IRON) is None


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    CHGNetPotential(device="cpu").energies([IRON])
    assert capfd.readouterr() == ("", "")


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "chgnet.model", None)
    with pytest.raises(ImportError, match=r"crystaljax\[chgnet\]"):
        create_potential("chgnet")
    with pytest.raises(ValueError, match="no potential is named 'chagnet'"):
        create_potential("chagnet")
