"""Potentials of MatGL (Ko et al. 2025), such as TensorNet trained on MatPES."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.rewards.levels import MATPES_PBE, MATPES_R2SCAN
from crystaljax.rewards.potentials.screening import Neighbors
from crystaljax.rewards.potentials.torch_common import (
    UNREADABLE,
    Evaluation,
    TorchPotential,
    collate,
    to_torch,
)

FILES = ("model.json", "model.pt", "state.pt")
"""Files of a folder of MatGL: the class, its arguments and its weights."""

NETWORKS = ("TensorNet",)
"""Networks that may be built: those that need only the edges of the graph."""


DEFAULT = "TensorNet-MatPES-PBE-v2025.1-PES"
"""Default model."""


def level_of(weights: str | PathLike = DEFAULT) -> str | None:
    """Level of theory of released weights, by their name; None for others."""
    name = Path(weights).name.lower()
    if "matpes" not in name:
        return None
    return MATPES_R2SCAN if "r2scan" in name else MATPES_PBE if "pbe" in name else None


class MatGLPotential(TorchPotential):
    """Energies and relaxation with a TensorNet of MatGL (Simeon and De Fabritiis 2023).

    MatPES (Kaplan et al., arXiv 2503.04070) has its own settings, without a Hubbard U. Its energies
    cannot be compared with the Materials Project's hull or elemental references: a hull must be of
    MatPES as well, or be made of this potential's own energies.
    """

    def __init__(
        self,
        weights: str | PathLike = DEFAULT,
        *,
        level: str | None = None,
        batch_atoms: int | None = None,
        max_atoms: int = 200,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Load the model.

        `weights`: a folder of MatGL, or the name of one in the Hugging Face Hub (of MatGL's own
        or as "owner/name"), which is downloaded once. `level`: of theory, if not that of
        `level_of`. Others: see `TorchPotential`. Errors: see `load_potential`.
        """
        self.level = level or level_of(weights)
        self.model, self.name = load_potential(weights)
        super().__init__(
            batch_atoms=batch_atoms, max_atoms=max_atoms, device=device, threads=threads
        )
        from ase.data import atomic_numbers

        self.model.to(self.device)
        network = self.model.model
        self.elements = np.array([atomic_numbers[symbol] for symbol in network.element_types])
        self.cutoff = float(network.cutoff)
        self._index = np.full(119, -1)
        self._index[self.elements] = np.arange(len(self.elements))

    def evaluate(
        self,
        cells: Sequence[AtomicCell],
        neighbor_lists: Sequence[Neighbors],
        *,
        gradients: bool = False,
    ) -> Evaluation:
        """One pass of the model over G structures, with forces and stresses by `gradients`."""
        from ase.units import GPa
        from torch_geometric.data import Batch

        joined = collate(cells, neighbor_lists)

        def tensor(x: np.ndarray, dtype: type) -> Any:
            return to_torch(np.ascontiguousarray(x, dtype), self.device)

        graph = Batch(
            edge_index=tensor(np.stack([joined.center, joined.neighbor]), np.int64),
            pbc_offset=tensor(joined.image, np.float32),
            node_type=tensor(self._index[joined.species], np.int64),
            frac_coords=tensor(joined.frac, np.float32),
            batch=tensor(joined.owner, np.int64),
            ptr=tensor(np.append(0, np.cumsum(joined.n_atoms)), np.int64),
            num_nodes=len(joined.species),
        )
        self.model.calc_forces = self.model.calc_stresses = gradients
        energy, forces, stress, _ = self.model(graph, tensor(joined.matrix, np.float32))
        per_atom = energy.detach().cpu().numpy().reshape(-1).astype(np.float64) / joined.n_atoms
        if not gradients:
            return Evaluation(per_atom, None, None)
        gigapascal = stress.detach().cpu().numpy().astype(np.float64).reshape(-1, 3, 3)
        return Evaluation(per_atom, forces.cpu().numpy().astype(np.float64), GPa * gigapascal)


def load_potential(weights: str | PathLike) -> tuple[Any, str]:
    """A potential of MatGL on the CPU, and its name.

    No code of the files is run, and only the classes `NETWORKS` are built. (MatGL itself reads
    files with PyTorch's unpickler of plain data, but imports and calls any class that they name.)
    ImportError without the matgl package, FileNotFoundError, ValueError for other files.
    """
    try:
        import torch
        from matgl.apps.pes import Potential
    except ImportError as error:
        raise ImportError('MatGL is not installed: run pip install "crystaljax[matgl]"') from error
    paths = _files(weights)
    try:
        kind = json.loads(paths["model.json"].read_text())["@class"]
        if kind != "Potential":
            raise ValueError(f"it is a {kind}, which gives no forces")
        network = torch.load(paths["model.pt"], map_location="cpu", weights_only=True)["model"]
        allowed = network["@module"].startswith("matgl.models.")
        if not allowed or network["@class"] not in NETWORKS:
            raise ValueError(f"its network is {network['@module']}.{network['@class']}")
        model = Potential.load(paths)
    except UNREADABLE as error:
        raise ValueError(
            f"{weights} holds no potential of MatGL with one of {', '.join(NETWORKS)} ({error})"
        ) from error
    return model.eval().requires_grad_(False), Path(weights).name


def _files(weights: str | PathLike) -> dict[str, Path]:
    """The files of a folder, or of a model of the Hugging Face Hub."""
    folder = Path(weights)
    if folder.is_dir():
        absent = [name for name in FILES if not (folder / name).is_file()]
        if absent:
            raise FileNotFoundError(f"{folder} holds no model of MatGL: no {', '.join(absent)}")
        return {name: folder / name for name in FILES}
    if folder.is_absolute() or len(folder.parts) > 2:
        raise FileNotFoundError(f"no folder of a MatGL model at {folder}")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from matgl.utils.io import HF_MATGL_ORG

    repository = str(weights) if len(folder.parts) == 2 else f"{HF_MATGL_ORG}/{weights}"
    try:
        return {name: Path(hf_hub_download(repository, name)) for name in FILES}
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"{weights} is neither a folder nor a model that could be downloaded ({error})"
        ) from error
