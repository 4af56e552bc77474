"""CHGNet (Deng et al. 2023): a universal potential whose weights come inside its own package."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.rewards.levels import MP2020, MP_R2SCAN
from crystaljax.rewards.potentials.base import MPTRJ_ELEMENTS
from crystaljax.rewards.potentials.chgnet_graph import ATOM_CUTOFF, batched_graph
from crystaljax.rewards.potentials.screening import Neighbors
from crystaljax.rewards.potentials.torch_common import Evaluation, TorchPotential


def level_of(weights: str = "0.3.0") -> str:
    """Level of theory of a version's energies."""
    return MP_R2SCAN if weights == "r2scan" else MP2020


def _import() -> Any:
    """The class CHGNet; ImportError saying how to install it."""
    try:
        from chgnet.model import CHGNet
    except ImportError as error:
        raise ImportError(
            'CHGNet is not installed: run pip install "crystaljax[chgnet]"'
        ) from error
    return CHGNet


class CHGNetPotential(TorchPotential):
    """Energies and relaxation with CHGNet, in batches of even size.

    CHGNet was trained on the corrected (MP2020) energies of MPtrj, so its energies are compared
    with the Materials Project's elemental references without further corrections. Its network has
    room for 94 elements, of which MPtrj has 89.
    """

    elements = MPTRJ_ELEMENTS
    cutoff = ATOM_CUTOFF

    def __init__(
        self,
        *,
        weights: str = "0.3.0",
        level: str | None = None,
        batch_atoms: int | None = None,
        max_atoms: int = 200,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Load the model.

        `weights`: a version that the chgnet package carries. `level`: of theory, if not that of
        `level_of`. Others: see `TorchPotential`.
        ImportError without the chgnet package, ValueError for unknown weights.
        """
        chgnet = _import()
        super().__init__(
            batch_atoms=batch_atoms, max_atoms=max_atoms, device=device, threads=threads
        )
        self.name = f"CHGNet {weights}"
        self.level = level or level_of(weights)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its version
            model = chgnet.load(model_name=weights, use_device=self.device, verbose=False)
        self.model = model.eval().requires_grad_(False)

    def problem(self, cell: AtomicCell, edges: Neighbors) -> str | None:
        """Reason for a structure with an isolated atom, which its graph cannot hold; else None."""
        alone = len(cell.species) - len(np.unique(edges.center))
        return f"{alone} atom(s) have no neighbour within {self.cutoff:.0f} Å" if alone else None

    def evaluate(
        self,
        cells: Sequence[AtomicCell],
        neighbor_lists: Sequence[Neighbors],
        *,
        gradients: bool = False,
    ) -> Evaluation:
        """One pass of the model over G structures, with forces and stresses by `gradients`."""
        import torch

        with torch.set_grad_enabled(gradients):
            inputs = batched_graph(
                cells, neighbor_lists, self.model, device=self.device, gradients=gradients
            )
            # is_intensive: the model gives eV/atom, and so does its linear composition model.
            energy = self.model._compute(inputs.graph)["e"]
            energy = energy + self.model.composition_model.fc(inputs.composition).view(-1)
            per_atom = energy.detach().cpu().numpy().astype(np.float64)
            if not gradients:
                return Evaluation(per_atom, None, None)
            n_atoms = torch.bincount(inputs.graph.atom_owners)
            total = (energy * n_atoms).sum()
            slopes = torch.autograd.grad(total, [inputs.positions, inputs.strain])
        by_position, by_strain = (slope.cpu().numpy().astype(np.float64) for slope in slopes)
        volumes = inputs.graph.volumes.cpu().numpy().astype(np.float64)
        return Evaluation(per_atom, -by_position, by_strain / volumes[:, None, None])
