"""SevenNet (Park et al. 2024), a network based on NequIP; weights come inside its package."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from crystaljax.crystal import AtomicCell
from crystaljax.models.torch_files import load_checkpoint
from crystaljax.rewards.levels import MP, MP_R2SCAN
from crystaljax.rewards.potentials.screening import Neighbors
from crystaljax.rewards.potentials.torch_common import (
    UNREADABLE,
    Evaluation,
    TorchPotential,
    collate,
    to_torch,
)

MODELS: dict[str, dict[str | None, str]] = {
    "7net-0": {None: MP},
    "7net-l3i5": {None: MP},
    "7net-mf-0": {"PBE": MP, "R2SCAN": MP_R2SCAN},
}
"""Weights that come with the package: the levels of theory of their energies, by fidelity.

They were trained on MPtrj without corrections. mf-0 was trained on MPtrj and on r2SCAN relaxations
of the Materials Project, and needs the fidelity to predict.
"""

DEFAULT = "7net-0"
"""Default model."""


def level_of(weights: str | PathLike = DEFAULT, modal: str | None = None) -> str | None:
    """Level of theory of a model's energies; None for weights from a file.

    ValueError for a fidelity that a model lacks, or that it needs and was not given.
    """
    name = str(weights).lower()
    if name not in MODELS:
        return None
    return MODELS[name][_fidelity(name, modal, MODELS[name])]


class SevenNetPotential(TorchPotential):
    """Energies and relaxation with SevenNet.

    The released models were trained on energies without corrections, with the Materials Project's
    settings. Park et al., J. Chem. Theory Comput. 20, 4857 (2024).
    """

    def __init__(
        self,
        weights: str | PathLike = DEFAULT,
        *,
        modal: str | None = None,
        level: str | None = None,
        batch_atoms: int | None = None,
        max_atoms: int = 200,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Load the model.

        `weights`: one of `MODELS`, or a checkpoint of SevenNet. `modal`: the fidelity of a model
        that has several. `level`: of theory, if not that of `level_of`. Others: see
        `TorchPotential`. Errors: see `load_network`, and ValueError for a wrong `modal`.
        """
        self.level = level or level_of(weights, modal)
        self.model = load_network(weights)
        super().__init__(
            batch_atoms=batch_atoms, max_atoms=max_atoms, device=device, threads=threads
        )
        self.model.to(self.device)
        fidelities: Mapping[str | None, int] = self.model.modal_map or {None: 0}
        chosen = _fidelity(str(weights), modal, fidelities)
        self._fidelity = fidelities[chosen]
        self.name = " ".join(["SevenNet", Path(weights).stem.removeprefix("7net-"), chosen or ""])
        self.name = self.name.strip()
        self.elements = np.array(sorted(self.model.type_map))
        self.cutoff = float(self.model.cutoff)

    def evaluate(
        self,
        cells: Sequence[AtomicCell],
        neighbor_lists: Sequence[Neighbors],
        *,
        gradients: bool = False,
    ) -> Evaluation:
        """One pass of the model over G structures, with forces and stresses by `gradients`."""
        import torch
        from sevenn import _keys as keys

        joined = collate(cells, neighbor_lists)
        matrix = joined.matrix[joined.owner]
        places = np.einsum("ni,nic->nc", joined.frac, matrix)
        shift = np.einsum("ei,eic->ec", joined.image, matrix[joined.center])
        apart = places[joined.neighbor] - places[joined.center] + shift

        def integers(x: np.ndarray) -> torch.Tensor:
            return to_torch(np.ascontiguousarray(x, np.int64), self.device)

        vectors = to_torch(np.ascontiguousarray(apart, np.float32), self.device)
        data = {
            keys.ATOMIC_NUMBERS: integers(joined.species),
            keys.EDGE_IDX: integers(np.stack([joined.center, joined.neighbor])),
            keys.EDGE_VEC: vectors.requires_grad_(gradients),
            keys.BATCH: integers(joined.owner),
            keys.MODAL_TYPE: integers(np.full(len(cells), self._fidelity)),
        }
        with torch.set_grad_enabled(gradients):
            energy = self.model(data)[keys.PRED_TOTAL_ENERGY]
        per_atom = energy.detach().cpu().numpy().astype(np.float64) / joined.n_atoms
        if not gradients:
            return Evaluation(per_atom, None, None)
        (slope,) = torch.autograd.grad(energy.sum(), vectors)
        slopes = slope.cpu().numpy().astype(np.float64)
        forces = np.zeros_like(places)
        np.add.at(forces, joined.center, slopes)
        np.add.at(forces, joined.neighbor, -slopes)
        virial = np.zeros((len(cells), 3, 3))
        np.add.at(virial, joined.owner[joined.center], apart[:, :, None] * slopes[:, None])
        return Evaluation(
            per_atom, forces, virial / np.abs(np.linalg.det(joined.matrix))[:, None, None]
        )


def load_network(weights: str | PathLike) -> Any:
    """A network of SevenNet on the CPU, from the edges' vectors to the energy of each structure.

    The package would unpickle anything that a checkpoint holds. It is therefore given a copy with
    only the numbers and strings. ImportError without the sevenn package, FileNotFoundError,
    ValueError for other files.
    """
    try:
        import torch
        from sevenn.checkpoint import SevenNetCheckpoint
        from sevenn.util import pretrained_name_to_path
    except ImportError as error:
        raise ImportError(
            'SevenNet is not installed: run pip install "crystaljax[sevenn]"'
        ) from error
    name = str(weights).lower()
    path = Path(pretrained_name_to_path(name) if name in MODELS else weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"{weights} is neither a checkpoint of SevenNet nor one of {', '.join(MODELS)}"
        )
    content = load_checkpoint(path)
    try:
        state = content["model_state_dict"].items()
        plain = {
            "config": _without_arrays(content["config"]),
            "model_state_dict": {key: torch.tensor(value) for key, value in state},
        }
        with TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about missing entries, which are an error below
            copy = Path(folder) / "checkpoint.pth"
            torch.save(plain, copy)
            model = SevenNetCheckpoint(copy).build_model()
    except (*UNREADABLE, AssertionError) as error:
        raise ValueError(f"{path} holds no network of SevenNet ({error})") from error
    model.delete_module_by_key("force_output")  # whose gradients energies alone do not need
    model.key_grad, model.eval_modal_map = None, False
    return model.eval().requires_grad_(False)


def _without_arrays(value: Any) -> Any:
    """Settings with lists in place of arrays."""
    if isinstance(value, Mapping):
        return {key: _without_arrays(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(x) for x in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _fidelity(weights: str, modal: str | None, known: Mapping[str | None, Any]) -> str | None:
    """The fidelity as the model spells it; ValueError if it is unknown or must be given."""
    found = {str(key).lower(): key for key in known}.get(str(modal).lower(), "")
    if found == "":
        several = ", ".join(f"sevennet:{weights}:{key}" for key in known if key is not None)
        remedy = f"name one: {several}" if several else "leave it out"
        raise ValueError(
            f"SevenNet's {weights} has no fidelity {modal!r}: {remedy}"
            if modal
            else f"SevenNet's {weights} has several fidelities: {remedy}"
        )
    return found
