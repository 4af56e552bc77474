"""Nequix (Koker et al., arXiv 2508.16067), an equivariant potential in JAX.

Orbits, neighbour lists, energies, forces and stresses of a group of crystals are computed on the
device, in a few compiled shapes for crystals of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, AtomicCell, Cells, Crystals
from crystaljax.data.registry import fetch
from crystaljax.rewards.base import Reasons
from crystaljax.rewards.levels import MP
from crystaljax.rewards.potentials.base import Energies, Relaxed, scatter
from crystaljax.rewards.potentials.descent import relax
from crystaljax.rewards.potentials.edges import Room, build_graph, default_room, displacements
from crystaljax.rewards.potentials.groups import GroupEnergies, in_groups, take_cells
from crystaljax.rewards.potentials.projection import Symmetry
from crystaljax.rewards.potentials.screening import stack_cells
from crystaljax.validity import overlap_problem

NAMES = ("nequix-mp-1", "nequix-oam-1")
"""Released weights that are known by name, in `data.registry`."""


def level_of(weights: str | PathLike = "nequix-mp-1") -> str | None:
    """Level of theory of released weights, by their name; None for others.

    nequix-oam-1 was trained on OMat24, which has other settings than the Materials Project, and
    then on MPtrj and Alexandria, which have the Materials Project's.
    """
    return MP if Path(weights).name.removesuffix(".nqx") in NAMES else None


class Weights(NamedTuple):
    """A model, with the cutoff and the elements that it needs."""

    model: Any
    cutoff: float
    """Å"""
    index: Array
    """int32 [119]: the model's index of each element; -1 for those it does not know."""


class Gradients(NamedTuple):
    """Energies, forces and stresses of B items; those that are not ok have none."""

    energy: np.ndarray
    """float64 [B]: eV/atom."""
    forces: list[np.ndarray | None]
    """float32 [N, 3] each: eV/Å, in the order of the atoms of the primitive cell."""
    stress: np.ndarray
    """float64 [B, 3, 3]: eV/Å³, positive under tension."""
    reasons: Reasons


def load_weights(path: str | PathLike) -> Weights:
    """A model from a .nqx file: JSON, then arrays; nothing in it is run.

    ImportError without the nequix package, FileNotFoundError, ValueError for another file.
    """
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    try:
        from nequix.model import load_model
    except ImportError as error:
        raise ImportError(
            'Nequix is not installed: run pip install "crystaljax[nequix]"'
        ) from error
    finally:  # importing it sets the precision of all products in the process
        jax.config.update("jax_default_matmul_precision", precision)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file of Nequix weights at {path}")
    try:
        model, config = load_model(path, kernel=False)
    except (ValueError, KeyError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} holds no Nequix weights ({error})") from error
    index = np.full(119, -1, np.int32)
    index[sorted(config["atomic_numbers"])] = np.arange(len(config["atomic_numbers"]))
    return Weights(model, float(config["cutoff"]), jnp.asarray(index))


class NequixPotential:
    """Energies with Nequix, in batches on the device.

    The released models were trained on energies without corrections, with the Materials Project's
    settings.
    """

    def __init__(
        self,
        weights: str | PathLike = "nequix-mp-1",
        *,
        level: str | None = None,
        room: Room | None = None,
        max_atoms: int = 200,
    ) -> None:
        """Load the model.

        `weights`: a .nqx file, or the name of one that is downloaded once (`NAMES`). `level`: of
        theory, if not that of `level_of`. `room`: capacities of a group of cells. `max_atoms`:
        larger cells are not taken. Errors: see `load_weights` and `data.registry.fetch`.
        """
        self.level = level or level_of(weights)
        self.weights = load_weights(fetch(weights) if weights in NAMES else weights)
        self.name = f"Nequix {Path(weights).stem.removeprefix('nequix-')}"
        import equinox

        self.elements = np.flatnonzero(np.asarray(self.weights.index) >= 0)
        # Arrays are arguments of the compiled function, the rest of the model is part of it.
        self._arrays, rest = equinox.partition(self.weights, equinox.is_array)

        def model(arrays: Any, group: Cells, room: Room, gradients: bool = True) -> GroupEnergies:
            return predict(equinox.combine(arrays, rest), group, room, gradients)

        self._predict = model
        self._evaluate_group = jax.jit(model, static_argnums=(2, 3))
        self.room = room or default_room()
        self.max_atoms = max_atoms

    def energies(self, crystals: Crystals | Sequence[AtomicCell]) -> Energies:
        """Potential energies of B items (of their primitive cells): see `Energies`.

        Not ok: what `screen` leaves out, and elements that the model does not know.
        """
        cells, rows, reasons = self._screened(crystals)
        energy = np.full(len(reasons), np.nan)
        n_atoms = np.asarray(cells.n_atoms)
        for part, outcome in self._evaluate(cells, rows):
            energy[part] = np.asarray(outcome.energy)[: len(part)] / n_atoms[part]
            _note_overlaps(np.asarray(outcome.closest), part, reasons)
        return scatter(energy[rows], rows, reasons)

    def gradients(self, crystals: Crystals | Sequence[AtomicCell]) -> Gradients:
        """Energies, forces and stresses of B items (of their primitive cells)."""
        cells, rows, reasons = self._screened(crystals)
        n = len(reasons)
        energy, stress = np.full(n, np.nan), np.full((n, 3, 3), np.nan)
        forces: list[np.ndarray | None] = [None] * n
        n_atoms = np.asarray(cells.n_atoms)
        for part, outcome in self._evaluate(cells, rows, gradients=True):
            _note_overlaps(np.asarray(outcome.closest), part, reasons)
            energy[part] = np.asarray(outcome.energy)[: len(part)] / n_atoms[part]
            stress[part] = np.asarray(outcome.stress)[: len(part)]
            ends = np.cumsum(n_atoms[part])
            for row, own in zip(part, np.split(np.asarray(outcome.forces), ends), strict=False):
                forces[row] = own
        return Gradients(energy, forces, stress, reasons)

    def relax(
        self,
        crystals: Crystals | Sequence[AtomicCell],
        *,
        fmax: float = 0.02,
        max_steps: int = 500,
        keep_symmetry: bool = True,
    ) -> Relaxed:
        """Relax atoms and cell with FIRE in a Fréchet cell filter: see `Potential.relax`.

        `keep_symmetry` lets only the free Wyckoff coordinates and lattice parameters of `Crystals`
        move; cells that are given have no symmetry to keep.
        """
        cells, reasons = stack_cells(crystals, max_atoms=self.max_atoms, elements=self.elements)
        symmetry = None
        if keep_symmetry and isinstance(crystals, Crystals):
            symmetry = Symmetry.of(crystals.padded(len(cells)), cells.species.shape[1])
        return relax(
            self._predict,
            self._arrays,
            cells,
            reasons,
            symmetry=symmetry,
            cutoff=self.weights.cutoff,
            room=self.room,
            fmax=fmax,
            max_steps=max_steps,
        )

    def _screened(
        self, crystals: Crystals | Sequence[AtomicCell]
    ) -> tuple[Cells, np.ndarray, Reasons]:
        """The cells, the rows that the model can take, and reasons for the others."""
        cells, reasons = stack_cells(crystals, max_atoms=self.max_atoms, elements=self.elements)
        rows = np.array([row for row, reason in enumerate(reasons) if reason is None], np.int64)
        return cells, rows, reasons

    def _evaluate(
        self, cells: Cells, rows: np.ndarray, *, gradients: bool = False
    ) -> list[tuple[np.ndarray, GroupEnergies]]:
        """Evaluate the model on some of the cells, in groups: rows and results of each group."""

        def start(part: np.ndarray, room: Room) -> GroupEnergies:
            return self._evaluate_group(self._arrays, take_cells(cells, part), room, gradients)

        return in_groups(start, cells, rows, self.weights.cutoff, self.room)


def predict(weights: Weights, group: Cells, room: Room, gradients: bool = True) -> GroupEnergies:
    """The model on G cells, with forces and stresses by `gradients`."""
    graph = build_graph(group, weights.cutoff, room)
    species = weights.index[graph.species]

    def total(moved: Array, strain: Array) -> tuple[Array, Array]:
        vector = displacements(graph, group.matrix, moved, strain)
        with jax.default_matmul_precision("highest"):
            energy = weights.model.node_energies(vector, species, graph.sender, graph.receiver)
        per_cell = jnp.zeros(room.cells).at[graph.cell].add(energy[:, 0], mode="drop")
        return per_cell.sum(), per_cell

    still = jnp.zeros((room.nodes, 3)), jnp.zeros((room.cells, 3, 3))
    if not gradients:
        energy, forces, stress = total(*still)[1], None, None
    else:
        (by_place, by_strain), energy = jax.grad(total, argnums=(0, 1), has_aux=True)(*still)
        volume = jnp.abs(jnp.linalg.det(group.matrix))[:, None, None]
        forces, stress = -by_place, by_strain / volume
    return GroupEnergies(energy, forces, stress, graph.closest, graph.start, graph.fits)


def _note_overlaps(closest: np.ndarray, part: np.ndarray, reasons: Reasons) -> None:
    for row, distance in zip(part, closest, strict=False):
        reasons[row] = overlap_problem(float(distance))
