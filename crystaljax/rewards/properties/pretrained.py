"""MEGNet models published with matgl: band gaps and formation energies."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.data.registry import fetch
from crystaljax.models.torch_files import load_tensors
from crystaljax.rewards.base import Reasons
from crystaljax.rewards.potentials.edges import Room, default_room
from crystaljax.rewards.potentials.groups import in_groups, take_cells
from crystaljax.rewards.potentials.screening import stack_cells
from crystaljax.rewards.properties.base import Predictions
from crystaljax.rewards.properties.megnet import Model, NetworkOutput, evaluate, network_from
from crystaljax.validity import overlap_problem

ELEMENTS = np.array([z for z in range(1, 95) if z not in (84, 85, 86, 87, 88)])
"""The elements of matgl's MEGNet models, in the order of their embeddings: H-Bi and Ac-Pu."""

FIDELITIES = ("pbe", "gllb-sc", "hse", "scan")
"""Methods of the multi-fidelity band-gap model (Chen et al., Nat. Comput. Sci. 1, 46 (2021))."""

BAND_GAP = "MEGNet-MP-2019.4.1-BandGap-mfi"
FORMATION_ENERGY = "MEGNet-MP-2018.6.1-Eform"

_NORMALIZER = re.compile(r"Normalizer: Mean=(-?[\d.]+), Std: ([\d.]+)")


def load_model(folder: str | PathLike, state: int | None = None) -> Model:
    """A MEGNet model from a folder with matgl's `model.json` and `state.pt`.

    `state`: row of the state embedding to start from, for models that have one. No code in the
    files is run. FileNotFoundError, ValueError for files of another kind.
    """
    folder = Path(folder)
    for name in ("model.json", "state.pt"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}: give the folder of a MEGNet model")
    try:
        settings = json.loads((folder / "model.json").read_text("utf-8"))
        options = settings["kwargs"]["model"]["init_args"]
        if settings["kwargs"]["model"]["@class"] != "MEGNet":
            raise ValueError(f"it is a {settings['kwargs']['model']['@class']}")
        scale = _NORMALIZER.fullmatch(settings["kwargs"]["target_transformer"])
        if scale is None:
            raise ValueError("its target is not scaled by a Normalizer")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'model.json'} describes no MEGNet model ({error})") from error
    tensors = {
        name.removeprefix("model."): x for name, x in load_tensors(folder / "state.pt").items()
    }
    try:
        network = network_from(tensors, options["gauss_width"])
        start = _start(tensors, state)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder / 'state.pt'} holds no MEGNet weights ({error})") from error
    if len(network.embedding) != len(ELEMENTS):
        raise ValueError(
            f"{folder / 'state.pt'} knows {len(network.embedding)} elements, not the"
            f" {len(ELEMENTS)} of matgl's default list"
        )
    index = np.full(119, -1, np.int32)
    index[ELEMENTS] = np.arange(len(ELEMENTS))
    mean, std = (float(number) for number in scale.groups())
    return Model(network, float(options["cutoff"]), jnp.asarray(index), start, mean, std)


def _start(tensors: dict[str, Any], state: int | None) -> jax.Array:
    """The state that graphs start from: a row of the embedding, or zeros without one."""
    embedding = tensors.get("embedding.layer_state_embedding.weight")
    if (embedding is None) != (state is None):
        raise ValueError("it has states to choose from" if state is None else "it has no states")
    if embedding is None:
        return jnp.zeros(tensors["state_encoder.layers.0.weight"].shape[1])
    return jnp.asarray(embedding[state])


class Description(NamedTuple):
    """Predictions of a MEGNet model for B items; nan where there is a reason."""

    descriptor: np.ndarray
    """float64 [B, 160]: descriptors that the property is predicted from."""
    volume: np.ndarray
    """float64 [B]: Å³ per atom."""
    value: np.ndarray
    """float64 [B]: the property."""
    reasons: Reasons


class MEGNet:
    """A property by a MEGNet model, in batches on the device."""

    def __init__(self, model: Model, *, room: Room | None = None, max_atoms: int = 200) -> None:
        """`model`: see `load_model`. `room`: capacities of a group of cells. `max_atoms`: larger
        cells are not taken."""
        self.model = model
        self.room = room or default_room()
        self.max_atoms = max_atoms

    def predict(self, crystals: Crystals | Sequence[AtomicCell]) -> Predictions:
        """The property of B items (of their primitive cells): see `Predictions`.

        Not taken: unphysical cells (see `screening.screen`), elements that the model does not
        know, and atoms without a neighbour within its cutoff.
        """
        described = self.describe(crystals)
        return Predictions(described.value, described.reasons)

    def describe(self, crystals: Crystals | Sequence[AtomicCell]) -> Description:
        """The property of B items and its descriptors; items as in `predict`."""
        cells, reasons = stack_cells(crystals, max_atoms=self.max_atoms, elements=ELEMENTS)
        rows = np.array([row for row, reason in enumerate(reasons) if reason is None], np.int64)
        n, width = len(reasons), self.model.network.output[0][0].shape[0]
        descriptor, volume, value = (
            np.full((n, width), np.nan),
            np.full(n, np.nan),
            np.full(n, np.nan),
        )

        def start(part: np.ndarray, room: Room) -> NetworkOutput:
            return evaluate(self.model, take_cells(cells, part), room)

        for part, output in in_groups(start, cells, rows, self.model.cutoff, self.room):
            descriptor[part] = np.asarray(output.descriptor)[: len(part)]
            volume[part] = np.asarray(output.volume)[: len(part)]
            value[part] = np.asarray(output.value)[: len(part)]
            self._note_problems(part, output, reasons)
        for row in np.flatnonzero(~np.isfinite(value)):
            reasons[row] = reasons[row] or f"the property is {value[row]}"
        failed = np.array([reason is not None for reason in reasons], bool)
        descriptor[failed] = volume[failed] = value[failed] = np.nan
        return Description(descriptor, volume, value, reasons)

    def _note_problems(self, part: np.ndarray, output: NetworkOutput, reasons: Reasons) -> None:
        closest, isolated = np.asarray(output.closest), np.asarray(output.isolated)
        for row, distance, alone in zip(part, closest, isolated, strict=False):
            reasons[row] = overlap_problem(float(distance))
            if reasons[row] is None and alone:
                cutoff = self.model.cutoff
                reasons[row] = f"{alone} atom(s) have no neighbour within {cutoff:g} Å"


def band_gap(
    folder: str | PathLike | None = None, *, fidelity: str = "pbe", **options: Any
) -> MEGNet:
    """Band gaps in eV by the multi-fidelity MEGNet of the Materials Project, 2019-04-01.

    `folder`: of the model's files (default: downloaded on first use); `fidelity`: one of "pbe",
    "gllb-sc", "hse", "scan"; options as `MEGNet`. Metals come out within 0.05 eV of zero, also
    below it. On the 2,815 validation and test crystals of the unary to ternary subset of MP-20,
    many of which it was trained on, the mean absolute error to the Materials Project's PBE gaps
    is 0.11 eV, and 0.29 eV on the 840 that have a gap. Errors: `load_model`'s, `fetch`'s,
    ValueError for another fidelity.
    """
    if fidelity not in FIDELITIES:
        raise ValueError(f"no fidelity {fidelity!r}: choose one of {', '.join(FIDELITIES)}")
    state = FIDELITIES.index(fidelity)
    return MEGNet(load_model(folder or _fetched(BAND_GAP), state), **options)


def formation_energy(folder: str | PathLike | None = None, **options: Any) -> MEGNet:
    """Formation energies in eV/atom by the MEGNet of the Materials Project, 2018-06-01.

    `folder`: of the model's files (default: downloaded on first use); options as `MEGNet`. The
    energies include the Materials Project's corrections of 2018. Those of MP2020 also correct
    selenides, tellurides and antimonides, which therefore lie higher here, by up to 0.47 eV per
    anion. On the 2,794 of the same crystals that it takes, the mean absolute error is
    0.052 eV/atom, and 0.034 without S, Se, Sb and Te. Errors: those of `load_model` and `fetch`.
    """
    return MEGNet(load_model(folder or _fetched(FORMATION_ENERGY)), **options)


def _fetched(name: str) -> Path:
    """The folder of a published model's two files."""
    fetch(f"{name}/model.json")
    return fetch(f"{name}/state.pt").parent
