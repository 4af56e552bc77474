"""Relaxation in JAX against ASE, what symmetry keeps, and what failures cost."""

from typing import Any

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from pair_potential import CUTOFF, EINSTEINIUM, EPSILON, SIGMA, lennard_jones

from crystaljax.crystal import AtomicCell, Cells, Crystals
from crystaljax.data.dataset import load
from crystaljax.rewards.potentials import descent
from crystaljax.rewards.potentials.base import Relaxed
from crystaljax.rewards.potentials.descent import STEPS_AT_A_TIME, relax
from crystaljax.rewards.potentials.edges import Room
from crystaljax.rewards.potentials.groups import GroupEnergies
from crystaljax.rewards.potentials.projection import Symmetry
from crystaljax.rewards.potentials.screening import primitive_cells, stack_cells
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.symmetry.orbits import lattice_matrix, n_atoms, volume

ROOM = Room(16, 96, 2**16, 2**13)
SLOTS = 32


def of_density(crystals: Crystals, per_atom: float) -> Crystals:
    """The same crystals at so many Å³ per atom."""
    crystals = crystals.to_numpy()
    now = np.asarray(volume(crystals.lattice)) / np.asarray(n_atoms(crystals))
    lattice = crystals.lattice.copy()
    lattice[:, :3] *= ((per_atom / now) ** (1 / 3))[:, None]
    return jax.tree.map(np.asarray, Crystals(*[*vars(crystals).values()][:-1], lattice))


@pytest.fixture(scope="module")
def crystals() -> Crystals:
    """One small crystal of each of 16 space groups, at a density that the potential likes."""
    pool = load("prototypes").crystals.to_numpy()
    small = (np.asarray(n_atoms(pool, primitive=True)) <= 12) & (pool.n_sites > 1)
    _, first = np.unique(pool.space_group[small], return_index=True)
    rows = np.flatnonzero(small)[first]
    return of_density(pool[rows[np.linspace(0, len(rows) - 1, 16).astype(int)]], 13)


def run(items: Crystals | list[AtomicCell], room: Room = ROOM, **options: Any) -> Relaxed:
    cells, reasons = stack_cells(items, max_atoms=SLOTS, elements=np.arange(1, 119))
    options = {"symmetry": None, "fmax": 0.02, "max_steps": 60} | options
    return relax(lennard_jones, None, cells, reasons, cutoff=CUTOFF, room=room, **options)


def by_ase(cell: AtomicCell) -> tuple[Any, int, bool]:
    atoms = Atoms(cell.species, scaled_positions=cell.frac, cell=cell.matrix, pbc=True)
    atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF, smooth=False)
    optimiser = FIRE(FrechetCellFilter(atoms), logfile=None)
    converged = bool(optimiser.run(fmax=0.02, steps=40))
    return atoms, optimiser.nsteps, converged


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:logm result")
def test_the_steps_are_those_of_ase(crystals: Crystals) -> None:
    cells = [cell for cell in primitive_cells(crystals[:3], SLOTS)[0] if cell is not None]
    found = run(cells, max_steps=40)
    for i, cell in enumerate(cells):
        atoms, n_steps, converged = by_ase(cell)
        relaxed = found.cells[i]
        assert relaxed is not None
        assert found.converged[i] == converged
        assert abs(found.steps[i] - n_steps) <= 1  # forces at the threshold to rounding
        assert found.energy[i] == pytest.approx(atoms.get_potential_energy() / len(atoms), abs=1e-4)
        np.testing.assert_allclose(relaxed.matrix, np.array(atoms.cell), atol=5e-3)
    assert found.steps.max() > 10


def test_symmetry_is_kept_and_free_parameters_move(crystals: Crystals) -> None:
    free = run(crystals)
    kept = run(crystals, symmetry=symmetry_of(crystals))
    assert free.ok.all() and kept.ok.all()
    assert (kept.energy <= kept.initial_energy + 1e-6).all()
    # Forces have the symmetry of the crystal: as long as rounding does not break it, the
    # unconstrained search takes the same way.
    alike = np.abs(kept.energy - free.energy) < 1e-4
    assert alike.mean() > 0.5
    assert (free.energy < kept.energy + 1e-3).all()
    cells = [cell for cell in kept.cells if cell is not None]
    found, _ = symmetrize(cells, symprec=0.01)
    again, _ = symmetrize([c for c in primitive_cells(crystals, SLOTS)[0] if c], symprec=0.01)
    # a search can end in a more symmetric structure, never in a less symmetric one
    order = np.asarray(n_operations(found)) >= np.asarray(n_operations(again))
    assert order.all()


def n_operations(crystals: Crystals) -> np.ndarray:
    """Operations of each point group: points of the general position over the centring."""
    from crystaljax.symmetry.tables import tables

    group = np.asarray(crystals.space_group) - 1
    general = tables().multiplicity[group, tables().n_letters[group]]
    return general // tables().n_centering[group]


def symmetry_of(crystals: Crystals, n: int = 16) -> Symmetry:
    rows = np.minimum(np.arange(n), len(crystals) - 1)
    return Symmetry.of(crystals[rows], SLOTS)


def outcome_of(cells: Cells) -> GroupEnergies:
    return jax.jit(lennard_jones, static_argnums=(0, 2))(None, cells, ROOM)


def padded_forces(outcome: GroupEnergies, cells: Cells) -> np.ndarray:
    forces = np.zeros((*cells.species.shape, 3), np.float32)
    for row, (start, n) in enumerate(zip(outcome.start, np.asarray(cells.n_atoms), strict=True)):
        forces[row, :n] = outcome.forces[start : start + n]  # type: ignore[index]
    return forces


def test_physical_forces_are_not_changed_by_the_projection(crystals: Crystals) -> None:
    cells, _ = stack_cells(crystals, max_atoms=SLOTS, elements=np.arange(1, 119))
    outcome = outcome_of(cells)
    symmetry = symmetry_of(crystals)
    forces = padded_forces(outcome, cells)
    scale = np.abs(forces).max()
    assert scale > 1
    np.testing.assert_allclose(symmetry.forces(forces), forces, atol=1e-4 * scale)
    stress = np.asarray(outcome.stress)
    np.testing.assert_allclose(symmetry.strain(stress), stress, atol=1e-4 * np.abs(stress).max())


def test_a_projected_displacement_keeps_the_space_group(crystals: Crystals) -> None:
    cells, _ = stack_cells(crystals, max_atoms=SLOTS, elements=np.arange(1, 119))
    symmetry = symmetry_of(crystals)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (*cells.species.shape, 3)).astype(np.float32)
    moved = symmetry.forces(noise)
    np.testing.assert_allclose(symmetry.forces(moved), moved, atol=1e-5)  # a projection
    assert np.abs(moved).max() > 0.01
    strain = symmetry.strain(rng.normal(0, 0.02, (16, 3, 3)).astype(np.float32))
    matrix = np.asarray(cells.matrix) @ (np.eye(3) + strain)
    inverse = np.linalg.inv(np.asarray(cells.matrix))
    frac = np.asarray(cells.frac) + moved @ inverse
    n = np.asarray(cells.n_atoms)
    distorted = [
        AtomicCell(matrix[i].astype(float), frac[i, : n[i]], np.asarray(cells.species)[i, : n[i]])
        for i in range(16)
    ]
    found, _ = symmetrize(distorted, symprec=1e-3)
    np.testing.assert_array_equal(found.space_group, crystals.space_group)


@pytest.mark.slow
def test_a_saddle_is_left_only_without_symmetry() -> None:
    """A simple cubic crystal is unstable; with a push it falls, with its symmetry it cannot."""
    edge = 2.6
    frac = np.zeros((1, 3))
    cubic = Crystals(
        np.array([221]),
        np.array([[1]]),
        np.array([[18]]),
        np.zeros((1, 1, 3), np.float32),
        np.array([[edge] * 3 + [90.0] * 3], np.float32),
    )
    kept = run(cubic, symmetry=symmetry_of(cubic), max_steps=200)
    pushed = edge * (np.eye(3) + 0.03 * np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]]))
    fell = run([AtomicCell(pushed, frac, np.array([18]))], max_steps=200)
    assert kept.converged.all() and fell.converged.all()
    assert kept.cells[0] is not None
    np.testing.assert_allclose(
        kept.cells[0].matrix, np.eye(3) * kept.cells[0].matrix[0, 0], atol=1e-5
    )
    assert fell.energy[0] < kept.energy[0] - 0.2


def test_rooms_too_small_change_nothing(crystals: Crystals) -> None:
    expected = run(crystals, max_steps=8)
    found = run(crystals, Room(5, 24, 2**13, 2**11), max_steps=8)
    np.testing.assert_allclose(found.energy, expected.energy, atol=1e-5)
    np.testing.assert_array_equal(found.steps, expected.steps)


def test_failures_cost_themselves(crystals: Crystals) -> None:
    good = [cell for cell in primitive_cells(crystals[:2], SLOTS)[0] if cell is not None]
    box = np.eye(3) * 5
    lost = AtomicCell(box, np.zeros((1, 3)), np.array([EINSTEINIUM]))
    crushed = AtomicCell(np.eye(3) * 0.6, np.zeros((1, 3)), np.array([18]))
    # so near that the first step takes them through each other
    exploding = AtomicCell(box, np.array([[0, 0, 0], [0.105, 0, 0]]), np.array([18, 18]))
    found = run([good[0], lost, crushed, exploding, good[1]])
    alone = run(good)
    assert found.ok[[0, 4]].all() and not found.ok[[1, 2]].any()
    np.testing.assert_allclose(found.energy[[0, 4]], alone.energy, atol=1e-5)
    assert "not finite" in str(found.reasons[1])
    assert "Å³ per atom" in str(found.reasons[2])
    assert found.cells[1] is None and np.isnan(found.energy[1])


def test_steps_run_out() -> None:
    box = AtomicCell(np.eye(3) * 3.4, np.zeros((1, 3)), np.array([18]))
    found = run([box], max_steps=3)
    assert found.steps.tolist() == [3] and not found.converged.any() and found.ok.all()
    assert found.energy[0] < found.initial_energy[0]
    still = run([box], max_steps=0)
    assert still.energy[0] == pytest.approx(still.initial_energy[0])
    assert lattice_matrix(np.array([[3.4] * 3 + [90] * 3])).shape == (1, 3, 3)


def test_those_that_finish_are_told(crystals: Crystals, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they do, but for the last ones: then the batch is done."""
    told: list[int] = []
    monkeypatch.setattr(descent, "finished", told.append)
    steps = run(crystals[:6], max_steps=200).steps
    rounds = -(-np.maximum(steps, 1) // STEPS_AT_A_TIME)
    assert [told[0], *np.cumsum(told)[1:]] == [(rounds <= i).sum() for i in range(max(rounds))]


def test_nothing() -> None:
    assert len(run([]).energy) == 0
