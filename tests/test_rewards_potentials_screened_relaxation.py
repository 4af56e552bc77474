"""Relaxation of batches against ASE's, step by step, and against what may go wrong in a batch."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from crystaljax import AtomicCell, Crystals
from crystaljax.crystal import stack
from crystaljax.data.prototypes import prototypes
from crystaljax.data.readers import read
from crystaljax.rewards.potentials import screened_relaxation
from crystaljax.rewards.potentials.base import Relaxed
from crystaljax.rewards.potentials.fire import Search
from crystaljax.rewards.potentials.screened_relaxation import _cells, _forces, room_for
from crystaljax.rewards.potentials.screening import Neighbors, neighbors, screen
from crystaljax.rewards.potentials.torch_common import Evaluation, TorchPotential, collate
from crystaljax.symmetry.orbits import n_atoms

pytest.importorskip("torch", reason="needs an extra that brings PyTorch")

SIGMA, EPSILON = 2.5, 0.4
COLLAPSING, BROKEN = 98, 99


class LennardJones(TorchPotential):
    """ASE's `LennardJones(sigma=2.5, epsilon=0.4, rc=6)`, but for two elements.

    Californium pulls its cell together, einsteinium has no energy.
    """

    name, level, elements, cutoff = "Lennard-Jones", None, np.arange(1, 100), 6.0
    atoms_computed = 0

    def evaluate(
        self,
        cells: Sequence[AtomicCell],
        neighbor_lists: Sequence[Neighbors],
        *,
        gradients: bool = False,
    ) -> Evaluation:
        joined = collate(cells, neighbor_lists)
        self.atoms_computed += len(joined.species)
        matrix = joined.matrix[joined.owner]
        places = np.einsum("ni,nic->nc", joined.frac, matrix)
        shift = np.einsum("ei,eic->ec", joined.image, matrix[joined.center])
        vector = places[joined.neighbor] - places[joined.center] + shift
        squared = (vector**2).sum(1)
        s6, at_cutoff = (SIGMA**2 / squared) ** 3, (SIGMA / self.cutoff) ** 6
        energy = 2 * EPSILON * (s6**2 - s6 - at_cutoff**2 + at_cutoff)  # half a pair's
        slope = 24 * EPSILON * (s6 - 2 * s6**2) / squared  # of a pair's, over the distance
        owner = joined.owner[joined.center]
        n = len(cells)
        forces = np.zeros_like(places)
        np.add.at(forces, joined.center, slope[:, None] * vector)
        stress = np.zeros((n, 3, 3))
        np.add.at(stress, owner, slope[:, None, None] / 2 * vector[:, None] * vector[:, :, None])
        stress /= np.abs(np.linalg.det(joined.matrix))[:, None, None]
        first = joined.species[np.cumsum(joined.n_atoms) - joined.n_atoms]
        stress[first == COLLAPSING] = 5 * np.eye(3)
        forces[joined.species == COLLAPSING] = 0
        per_atom = np.bincount(owner, energy, minlength=n) / joined.n_atoms
        return Evaluation(np.where(first == BROKEN, np.nan, per_atom), forces, stress)


def crystals() -> list[AtomicCell]:
    """Six rattled and strained crystals of 1 to 8 atoms, one of them in a left-handed cell."""
    rng = np.random.default_rng(0)
    fcc = 2.0 * (1 - np.eye(3))
    cubic = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cells = [
        AtomicCell(fcc, np.zeros((1, 3)), np.array([18])),
        AtomicCell(4.0 * np.eye(3), cubic, np.full(4, 18)),
        AtomicCell(4.0 * np.eye(3)[[1, 0, 2]], cubic, np.full(4, 18)),
        AtomicCell(
            np.diag([2.7, 2.7, 5.0]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.full(2, 36)
        ),
        AtomicCell(
            np.diag([8.0, 4.0, 4.0]),
            np.vstack([cubic, cubic + np.eye(3)[0]]) / [2, 1, 1],
            np.full(8, 36),
        ),
        AtomicCell(4.2 * np.eye(3), cubic[:3], np.full(3, 36)),
    ]
    return [
        AtomicCell(
            cell.matrix @ (np.eye(3) + rng.normal(scale=0.03, size=(3, 3))),
            cell.frac + rng.normal(scale=0.02, size=cell.frac.shape),
            cell.species,
        )
        for cell in cells
    ]


def by_ase(
    cell: AtomicCell, calculator: object, fmax: float, max_steps: int
) -> tuple[float, int, Any]:
    """Energy per atom, steps and atoms after ASE's own FIRE in its own filter."""
    from ase import Atoms
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    atoms = Atoms(cell.species, scaled_positions=cell.frac, cell=cell.matrix, pbc=True)
    atoms.calc = calculator
    optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
    optimizer.run(fmax=fmax, steps=max_steps)
    return atoms.get_potential_energy() / len(atoms), optimizer.nsteps, atoms


def assert_same(some: Relaxed, others: Relaxed, order: np.ndarray) -> None:
    np.testing.assert_allclose(some.energy[order], others.energy, atol=1e-10)
    np.testing.assert_array_equal(some.steps[order], others.steps)
    for i, cell in zip(order, others.cells, strict=True):
        ours = some.cells[i]
        assert ours is not None
        assert cell is not None
        np.testing.assert_allclose(ours.matrix, cell.matrix, atol=1e-8)


@pytest.mark.slow
def test_every_structure_takes_the_steps_of_ase() -> None:
    from ase.calculators.lj import LennardJones as Reference

    cells = crystals()
    result = LennardJones(device="cpu").relax(cells, fmax=0.05, max_steps=80)
    assert result.ok.all()
    assert result.converged.any()
    assert len(set(result.steps)) > 3
    for i, cell in enumerate(cells):
        calculator = Reference(sigma=SIGMA, epsilon=EPSILON, rc=6.0, smooth=False)
        energy, steps, atoms = by_ase(cell, calculator, 0.05, 80)
        assert result.steps[i] == steps
        assert result.energy[i] == pytest.approx(energy, abs=1e-8)
        relaxed = result.cells[i]
        assert relaxed is not None
        np.testing.assert_allclose(relaxed.matrix, np.array(atoms.cell), atol=1e-6)
        assert result.energy[i] < result.initial_energy[i]


def test_other_structures_in_the_batch_change_nothing() -> None:
    cells = crystals()
    together = LennardJones(device="cpu", batch_atoms=1000).relax(cells, fmax=0.02)
    order = np.array([3, 0, 5, 1, 4, 2])
    for batch_atoms in (1, 9):
        potential = LennardJones(device="cpu", batch_atoms=batch_atoms)
        assert_same(together, potential.relax([cells[i] for i in order], fmax=0.02), order)


def test_finished_structures_leave_the_batch() -> None:
    cells = crystals()
    potential = LennardJones(device="cpu", batch_atoms=10)
    result = potential.relax(cells, fmax=0.02)
    n_atoms = np.array([len(cell.species) for cell in cells])
    assert potential.atoms_computed == ((result.steps + 1) * n_atoms).sum()


def test_those_that_finish_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass for all: each is told in the pass after its last step, but for the last ones."""
    told: list[int] = []
    monkeypatch.setattr(screened_relaxation, "finished", told.append)
    potential = LennardJones(batch_atoms=100)
    steps = potential.relax(crystals(), fmax=0.02, max_steps=200).steps
    assert len(set(steps.tolist())) > 2
    assert np.cumsum(told).tolist() == [(steps < i).sum() for i in range(max(steps) + 1)]


def test_forces_are_the_slope_of_the_energy() -> None:
    """On the atoms and on the logarithm of the deformation, in cells already deformed."""
    potential = LennardJones(device="cpu")
    cells = crystals()[1:3]
    rng = np.random.default_rng(1)
    search = Search.start(stack(cells, 2, room_for(cells)), np.ones(2, bool))
    search = replace(search, log_strain=rng.normal(scale=0.05, size=(2, 3, 3)))

    def evaluate(moved: Search) -> Evaluation:
        now = _cells(moved)
        return potential.evaluate(now, [neighbors(cell, potential.cutoff) for cell in now])

    def energies(row: int, axis: int, step: float) -> np.ndarray:
        moved = jax.tree.map(np.copy, search)
        if row < 3:
            moved.frac[:, row] += step * np.linalg.inv(search.matrix)[:, axis]
        else:
            moved.log_strain[:, row - 3, axis] += step / search.n_atoms
        return evaluate(moved).energy * search.n_atoms

    forces = _forces(search, evaluate(search))
    for row, axis in [(0, 0), (2, 1), (3, 0), (3, 2), (5, 1)]:
        slope = (energies(row, axis, 1e-5) - energies(row, axis, -1e-5)) / 2e-5
        place = row if row < 3 else row - 6  # the strain comes last
        np.testing.assert_allclose(forces[:, place, axis], -slope, rtol=1e-5, atol=1e-6)


def test_a_structure_that_goes_astray_costs_only_itself() -> None:
    good = crystals()
    collapsing = good[1]._replace(species=np.full(4, COLLAPSING))
    broken = good[1]._replace(species=np.full(4, BROKEN))
    overlapping = good[1]._replace(frac=np.zeros((4, 3)))
    mixed = [good[0], collapsing, broken, *good[1:3], overlapping, *good[3:]]
    potential = LennardJones(device="cpu", batch_atoms=12)
    result = potential.relax(mixed, fmax=0.02)
    bad = [1, 2, 5]
    assert np.flatnonzero(~result.ok).tolist() == bad
    assert "relaxation failed: 0.9" in str(result.reasons[1])
    assert "Å³ per atom" in str(result.reasons[1])
    assert result.reasons[2] == "relaxation failed: the energy or the forces are not finite"
    assert result.reasons[5] == "atoms 0.00 Å apart, closer than 0.5 Å"
    assert [result.cells[i] for i in bad] == [None] * 3
    assert np.isnan(result.energy[bad]).all()
    assert not result.converged[bad].any()
    kept = np.setdiff1d(np.arange(len(mixed)), bad)
    assert_same(result, LennardJones(device="cpu").relax(good, fmax=0.02), kept)


def test_the_limit_of_steps_is_of_each_structure() -> None:
    cells = crystals()
    result = LennardJones(device="cpu", batch_atoms=5).relax(cells, fmax=1e-6, max_steps=3)
    assert result.ok.all()
    assert not result.converged.any()
    assert (result.steps == 3).all()
    none = LennardJones(device="cpu").relax(cells, max_steps=0)
    assert none.ok.all()
    np.testing.assert_array_equal(none.energy, none.initial_energy)


def test_a_strained_cell_without_forces_on_atoms_is_not_converged() -> None:
    fcc = AtomicCell(2.1 * (1 - np.eye(3)), np.zeros((1, 3)), np.array([18]))
    result = LennardJones(device="cpu").relax([fcc], fmax=0.01)
    assert result.steps[0] > 0
    assert result.converged[0]


class Pushing(LennardJones):
    """One that also pushes the first atom of each cell, and shears the cell."""

    def evaluate(self, cells: Sequence[AtomicCell], *args: Any, **options: Any) -> Evaluation:
        result = super().evaluate(cells, *args, **options)
        assert result.forces is not None
        assert result.stress is not None
        first = np.cumsum([0] + [len(cell.species) for cell in cells[:-1]])
        result.forces[first] += [0.1, 0.05, 0]
        result.stress[:, 0, 1] += 0.02
        result.stress[:, 1, 0] += 0.02
        return result


def test_the_symmetry_of_crystals_is_kept() -> None:
    """Rock salt and diamond; between them a crystal that is not taken."""
    cubic = ([225] * 2, [[1, 2], [1, 0]])  # 4a and 4b; 4a alone
    crystals = Crystals(
        np.array([*cubic[0], 227]),
        np.array([*cubic[1], [1, 0]]),
        np.array([[18, 36], [104, 0], [36, 0]]),
        np.array([[[0, 0, 0], [0.5, 0.5, 0.5]], np.zeros((2, 3)), np.zeros((2, 3))], np.float32),
        np.array([[a, a, a, 90, 90, 90] for a in (5.6, 4.0, 6.4)], np.float32),
    )
    potential = Pushing(device="cpu")
    kept = potential.relax(crystals, fmax=0.01)
    free = potential.relax(crystals, fmax=0.01, max_steps=50, keep_symmetry=False)
    assert kept.ok.tolist() == free.ok.tolist() == [True, False, True]
    assert kept.converged.tolist() == [True, False, True]
    for row in (0, 2):
        before = screen(crystals[row], max_atoms=9, elements=potential.elements).cells[0]
        after, fell = kept.cells[row], free.cells[row]
        assert after is not None
        assert fell is not None
        scale = np.cbrt(np.linalg.det(after.matrix) / np.linalg.det(before.matrix))
        assert abs(scale - 1) > 0.01
        np.testing.assert_allclose(after.matrix, scale * before.matrix, atol=1e-4)
        moved = after.frac - before.frac
        np.testing.assert_allclose(moved - moved.round(), 0, atol=1e-5)
        scale = np.cbrt(np.linalg.det(fell.matrix) / np.linalg.det(before.matrix))
        assert np.abs(fell.matrix - scale * before.matrix).max() > 0.1


def test_batches_of_other_sizes_compile_nothing() -> None:
    crystals = prototypes(1).crystals
    few = crystals[np.asarray(n_atoms(crystals, primitive=True)) <= 8]
    compiled = []
    potential = Pushing(device="cpu")
    potential.relax(few[:9], max_steps=0)

    def note(event: str, seconds: float, **_: object) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    for part in (few[9:15], few[15:16], few[16:28]):
        assert potential.relax(part, max_steps=0).ok.any()
    assert not compiled


def test_an_empty_batch() -> None:
    result = LennardJones(device="cpu").relax([])
    assert result.energy.shape == (0,)
    assert result.cells == []


def small_crystals(shared: Path, n: int) -> list[AtomicCell]:
    """The smallest of 60 of the Materials Project of 3 atoms or more, rattled and 2 % too large."""
    rng = np.random.default_rng(0)
    records = islice(read(shared / "data" / "mp20_bt" / "test.csv.gz"), 60)
    cells = [record.cell for record in records if record.cell is not None]
    cells = sorted((cell for cell in cells if len(cell.species) > 2), key=lambda c: len(c.species))
    return [
        AtomicCell(
            1.02 * cell.matrix,
            cell.frac + rng.normal(scale=0.01, size=cell.frac.shape),
            cell.species,
        )
        for cell in cells[:n]
    ]


def assert_relaxes_as_ase(
    potential: TorchPotential, calculator: object, cells: list[AtomicCell]
) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Lattice, Structure
    from pymatgen.io.ase import AseAtomsAdaptor

    result = potential.relax(cells, fmax=0.05, max_steps=200)
    assert result.converged.all()
    for i, cell in enumerate(cells):
        energy, _, atoms = by_ase(cell, calculator, 0.05, 200)
        assert result.energy[i] == pytest.approx(energy, abs=1e-3)
        relaxed = result.cells[i]
        assert relaxed is not None
        ours = Structure(Lattice(relaxed.matrix), relaxed.species, relaxed.frac)
        assert StructureMatcher().fit(ours, AseAtomsAdaptor.get_structure(atoms))


@pytest.mark.parametrize("n", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_chgnet_relaxes_real_crystals_as_ase_does(shared: Path, n: int) -> None:
    pytest.importorskip("chgnet", reason="needs the chgnet extra")
    from chgnet.model.dynamics import CHGNetCalculator

    from crystaljax.rewards.potentials.chgnet import CHGNetPotential

    potential = CHGNetPotential(device="cpu")
    calculator = CHGNetCalculator(model=potential.model, use_device="cpu")
    assert_relaxes_as_ase(potential, calculator, small_crystals(shared, n))


@pytest.mark.slow
def test_matgl_relaxes_real_crystals_as_ase_does(shared: Path) -> None:
    pytest.importorskip("matgl", reason="needs the matgl extra")
    from matgl.ext.ase import PESCalculator

    from crystaljax.rewards.potentials.matgl import MatGLPotential, load_potential

    weights = shared / "weights" / "matgl" / "TensorNet-MatPES-PBE-v2025.1-PES"
    model, _ = load_potential(weights)
    calculator = PESCalculator(model, stress_unit="eV/A3", use_voigt=True)
    assert_relaxes_as_ase(
        MatGLPotential(weights, device="cpu"), calculator, small_crystals(shared, 6)
    )
