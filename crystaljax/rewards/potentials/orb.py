"""Orb (Neumann et al., arXiv 2410.22570; Rhodes et al., arXiv 2504.06231): fast potentials."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.rewards.levels import MP, OMAT24
from crystaljax.rewards.potentials.base import MPTRJ_ELEMENTS
from crystaljax.rewards.potentials.screening import Neighbors
from crystaljax.rewards.potentials.torch_common import (
    UNREADABLE,
    Collated,
    Evaluation,
    TorchPotential,
    collate,
    to_torch,
)

if TYPE_CHECKING:
    import torch

MODELS = {
    "orb-v2": MP,
    "orb-mptraj-only-v2": MP,
    "orb-v3-conservative-20-mpa": MP,
    "orb-v3-conservative-inf-mpa": MP,
    "orb-v3-direct-20-mpa": MP,
    "orb-v3-direct-inf-mpa": MP,
    "orb-v3-conservative-20-omat": OMAT24,
    "orb-v3-conservative-inf-omat": OMAT24,
    "orb-v3-direct-20-omat": OMAT24,
    "orb-v3-direct-inf-omat": OMAT24,
}
"""Models for crystals, and the level of theory of their energies.

v2 and "mpa" were trained on MPtrj and Alexandria, which have the Materials Project's settings;
"omat" was trained on OMat24, whose pseudopotentials are newer than the Materials Project's.
"""


DEFAULT = "orb-v3-conservative-inf-mpa"
"""Default model."""


def level_of(model: str = DEFAULT, weights: str | PathLike | None = None) -> str:
    """Level of theory of a model's energies; ValueError for an unknown model."""
    del weights  # of the same model
    if model not in MODELS:
        raise ValueError(f"no Orb model for crystals is named {model!r}: {', '.join(MODELS)}")
    return MODELS[model]


class OrbPotential(TorchPotential):
    """Energies and relaxation with Orb.

    "conservative" models take forces and stress from the energy's gradient, the others predict
    them. "20" models see the 20 nearest neighbours of an atom, "inf" models up to 120: among
    neighbours at the same distance the choice is arbitrary, and the energy depends on it.
    """

    elements = MPTRJ_ELEMENTS

    def __init__(
        self,
        model: str = DEFAULT,
        *,
        weights: str | PathLike | None = None,
        level: str | None = None,
        batch_atoms: int | None = None,
        max_atoms: int = 200,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Load the model.

        `model`: one of `MODELS`. `weights`: a file of its weights (default: orb-models downloads
        them once). `level`: of theory, if not the model's. Others: see `TorchPotential`. Errors:
        see `load_regressor`.
        """
        self.model = load_regressor(model, weights)
        super().__init__(
            batch_atoms=batch_atoms, max_atoms=max_atoms, device=device, threads=threads
        )
        self.model.to(self.device)
        self.name = model
        self.level = level or level_of(model)
        self.cutoff = float(self.model.system_config.radius)
        self.max_neighbors = int(self.model.system_config.max_num_neighbors)

    def evaluate(
        self,
        cells: Sequence[AtomicCell],
        neighbor_lists: Sequence[Neighbors],
        *,
        gradients: bool = False,
    ) -> Evaluation:
        """One pass of the model over G structures, with forces and stresses by `gradients`."""
        import torch
        from orb_models.forcefield.forcefield_utils import torch_voigt_6_to_full_3x3_stress

        joined = collate(cells, [nearest(edges, self.max_neighbors) for edges in neighbor_lists])
        graph = atom_graphs(joined, self.cutoff, self.max_neighbors, self.device)
        if not gradients:
            with torch.no_grad():
                energy = self._energy(graph)
            return Evaluation(_numpy(energy) / joined.n_atoms, None, None)
        out = self.model.predict(graph)
        prefix = "grad_" if "grad_forces" in out else ""
        stress = torch_voigt_6_to_full_3x3_stress(out[f"{prefix}stress"])
        return Evaluation(
            _numpy(out["energy"]) / joined.n_atoms, _numpy(out[f"{prefix}forces"]), _numpy(stress)
        )

    def _energy(self, graph: Any) -> torch.Tensor:
        """[G] eV, of whole cells; `predict` would go through the gradient as well."""
        features = self.model.model(graph)["node_features"]
        energy = self.model.heads["energy"].predict(features, graph)
        if self.model.pair_repulsion:
            energy = energy + self.model.pair_repulsion_fn(graph)["energy"]
        return energy


def load_regressor(model: str, weights: str | PathLike | None = None) -> Any:
    """An Orb model on the CPU, not compiled, with the weights of a file or downloaded ones.

    Nothing in the file is run: it is read as plain tensors. ImportError without the orb-models
    package, FileNotFoundError, ValueError for an unknown model and for other files.
    """
    level_of(model)  # ValueError for an unknown model
    try:
        import torch
        from orb_models.forcefield.load import load_forcefield_state_dict
        from orb_models.forcefield.pretrained import ORB_PRETRAINED_MODELS
    except ImportError as error:
        raise ImportError('Orb is not installed: run pip install "crystaljax[orb]"') from error
    options: dict[str, Any] = {"device": "cpu", "precision": "float32-highest", "compile": False}
    if weights is not None:
        if not Path(weights).is_file():
            raise FileNotFoundError(f"no file of Orb weights at {weights}")
        options["weights_path"] = str(weights)
    precision = torch.get_float32_matmul_precision()
    try:
        with warnings.catch_warnings():  # it warns about the precision that it sets
            warnings.simplefilter("ignore")
            regressor = ORB_PRETRAINED_MODELS[model](**options)
        if weights is not None:  # heads that the file lacks would stay random
            state = torch.load(weights, map_location="cpu", weights_only=True)
            missing = load_forcefield_state_dict(regressor, state).missing_keys
            if missing:
                raise ValueError(f"it lacks {missing[0]}")
    except UNREADABLE as error:
        raise ValueError(
            f"{weights or 'the download'} holds no weights of {model} ({error})"
        ) from error
    finally:  # the loader sets the precision of all products in the process
        torch.set_float32_matmul_precision(precision)
    return regressor.eval().requires_grad_(False)


def nearest(edges: Neighbors, limit: int) -> Neighbors:
    """The `limit` nearest neighbours of each atom, with a fixed order at equal distances.

    Distances count as equal up to 1e-6 Å, so that rounding does not change the choice.
    """
    order = np.lexsort((*edges.image.T, edges.neighbor, edges.distance.round(6), edges.center))
    center = edges.center[order]
    first = np.searchsorted(center, center)
    kept = order[np.arange(len(order)) - first < limit]
    return Neighbors(*(x[kept] for x in edges))


def atom_graphs(joined: Collated, radius: float, max_neighbors: int, device: str) -> Any:
    """Orb's batch: G structures in full, with every edge from its center to its neighbour."""
    import torch
    from orb_models.forcefield.base import AtomGraphs

    def floats(x: np.ndarray) -> torch.Tensor:
        return to_torch(np.ascontiguousarray(x, np.float32), device)

    def integers(x: np.ndarray) -> torch.Tensor:
        return to_torch(np.ascontiguousarray(x, np.int64), device)

    matrix = joined.matrix[joined.owner]
    positions = (joined.frac[:, None] @ matrix)[:, 0]
    shift = (joined.image[:, None] @ matrix[joined.center])[:, 0]
    vectors = positions[joined.neighbor] - positions[joined.center] + shift
    species = integers(joined.species)
    one_hot = torch.nn.functional.one_hot(species, num_classes=118).to(torch.float32)
    return AtomGraphs(
        senders=integers(joined.center),
        receivers=integers(joined.neighbor),
        n_node=integers(joined.n_atoms),
        n_edge=integers(joined.n_edges),
        node_features={
            "positions": floats(positions),
            "atomic_numbers": species,
            "atomic_numbers_embedding": one_hot,
        },
        edge_features={"vectors": floats(vectors), "unit_shifts": floats(joined.image)},
        system_features={"cell": floats(joined.matrix)},
        node_targets=None,
        edge_targets=None,
        system_targets=None,
        system_id=None,
        fix_atoms=None,
        tags=None,
        radius=radius,
        max_num_neighbors=integers(np.full(len(joined.n_atoms), max_neighbors)),
    )


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)
