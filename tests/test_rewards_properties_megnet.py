"""MEGNet in JAX: against matgl with random weights, and against DFT with the published ones."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.data.dataset import load
from crystaljax.data.readers import read
from crystaljax.data.registry import RESOURCES
from crystaljax.rewards.potentials.edges import Room
from crystaljax.rewards.properties import create_property
from crystaljax.rewards.properties.pretrained import (
    BAND_GAP,
    ELEMENTS,
    FORMATION_ENERGY,
    MEGNet,
    band_gap,
    load_model,
)
from crystaljax.structures import to_structures
from crystaljax.symmetry.orbits import n_atoms

CUBIC = np.eye(3) * 4
ROOM = Room(16, 256, 2**15, 2**13)


def tensors(seed: int = 0, n_states: int | None = 4) -> dict[str, np.ndarray]:
    """Random weights under the names, and of the shapes, that matgl gives its MEGNet models."""
    rng = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {"bond_expansion.rbf.centers": np.linspace(0, 5, 100)}

    def normal(name: str, *shape: int) -> None:
        made[name] = rng.normal(size=shape) / np.sqrt(shape[-1])

    def mlp(name: str, *sizes: int) -> None:
        for i, (n_in, n_out) in enumerate(pairwise(sizes)):
            normal(f"{name}.layers.{2 * i}.weight", n_out, n_in)
            normal(f"{name}.layers.{2 * i}.bias", n_out)

    normal("embedding.layer_node_embedding.weight", 89, 16)
    if n_states:
        normal("embedding.layer_state_embedding.weight", n_states, 16)
    for kind, n_in in (("edge", 100), ("node", 16), ("state", 16 if n_states else 2)):
        mlp(f"{kind}_encoder", n_in, 64, 32)
        for i in range(3):
            if i:
                mlp(f"blocks.{i}.{kind}_func", 32, 64, 32)
            mlp(f"blocks.{i}.conv.{kind}_func", 128 if kind == "edge" else 96, 64, 64, 32)
    for kind in ("edge", "node"):
        normal(f"{kind}_s2s.lstm.weight_ih_l0", 128, 64)
        normal(f"{kind}_s2s.lstm.weight_hh_l0", 128, 32)
        normal(f"{kind}_s2s.lstm.bias_ih_l0", 128)
        normal(f"{kind}_s2s.lstm.bias_hh_l0", 128)
    mlp("output_proj", 160, 32, 16, 1)
    return {name: x.astype(np.float32) for name, x in made.items()}


def options(n_states: int | None) -> dict[str, Any]:
    return {
        "dim_state_embedding": 16 if n_states else 2,
        "ntypes_state": n_states,
        "niters_set2set": 2,
        "cutoff": 4.0,
        "gauss_width": 0.5,
    }


def write(folder: Path, n_states: int | None = 4) -> Path:
    """A folder of random weights, as matgl writes it."""
    torch = pytest.importorskip("torch")
    folder.mkdir(exist_ok=True)
    state = {f"model.{name}": torch.tensor(x) for name, x in tensors(0, n_states).items()}
    torch.save(state, folder / "state.pt")
    model = {"@class": "MEGNet", "init_args": options(n_states)}
    kwargs = {"model": model, "target_transformer": "Normalizer: Mean=-1.5, Std: 2.0"}
    (folder / "model.json").write_text(json.dumps({"kwargs": kwargs}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("weights") / "megnet")


@pytest.fixture(scope="module")
def model(folder: Path) -> MEGNet:
    return MEGNet(load_model(folder, 1), room=ROOM)


def some_crystals(n: int = 10) -> Crystals:
    crystals = load("prototypes").crystals
    small = np.asarray(n_atoms(crystals, primitive=True)) <= 12
    taken = np.flatnonzero(np.isin(crystals.species, [0, *ELEMENTS]).all(axis=1) & small)
    return crystals[taken[:: len(taken) // n][:n]]


def by_matgl(crystals: Crystals, n_states: int | None, state: Any) -> np.ndarray:
    """matgl's predictions, its edges' messages sent where its releases before 2.0 sent them."""
    torch = pytest.importorskip("torch")
    matgl_models = pytest.importorskip("matgl.models")
    from matgl.layers._graph_convolution import MEGNetGraphConv, scatter_mean

    def node_update(self, edges, edge, node, state, n):  # type: ignore[no-untyped-def]
        received = scatter_mean(edge, edges[1], dim_size=n, dim=0)
        return self.node_func(torch.hstack([node, received, state]))

    network = matgl_models.MEGNet(**options(n_states)).eval()
    network.load_state_dict({name: torch.tensor(x) for name, x in tensors(0, n_states).items()})
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(MEGNetGraphConv, "node_update_", node_update)
        return np.array(
            [
                float(network.predict_structure(structure, state_attr=torch.tensor(state)))
                for structure in to_structures(crystals)
            ]
        )


@pytest.mark.parametrize(
    ("n_states", "start"), [(4, 1), pytest.param(None, None, marks=pytest.mark.slow)]
)
def test_agrees_with_matgl(tmp_path: Path, n_states: int | None, start: int | None) -> None:
    crystals = some_crystals()
    state = [[0.0, 0.0]] if start is None else [start]
    expected = by_matgl(crystals, n_states, state) * 2.0 - 1.5
    model = MEGNet(load_model(write(tmp_path / "megnet", n_states), start), room=ROOM)
    predicted = model.predict(crystals)
    assert predicted.reasons == [None] * len(crystals)
    np.testing.assert_allclose(predicted.value, expected, atol=2e-4)
    assert expected.std() > 1e-3


def test_the_batch_does_not_matter(folder: Path, model: MEGNet) -> None:
    crystals = some_crystals()
    whole = model.predict(crystals).value
    single = [model.predict(crystals[i]).value[0] for i in range(0, len(crystals), 3)]
    np.testing.assert_allclose(whole[::3], single, atol=1e-5)
    tight = MEGNet(load_model(folder, 1), room=Room(3, 32, 2**12, 2**9)).predict(crystals)
    np.testing.assert_allclose(whole, tight.value, atol=1e-5)


def test_a_larger_cell_is_the_same_crystal(model: MEGNet) -> None:
    small = AtomicCell(CUBIC, np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]), np.array([55, 17]))
    stacked = np.concatenate([small.frac, small.frac + np.array([0, 0, 1])]) / [1, 1, 2]
    large = AtomicCell(CUBIC * [[1], [1], [2]], stacked, np.tile(small.species, 2))
    value = model.predict([small, large]).value
    assert value[0] == pytest.approx(value[1], abs=1e-5)


def test_what_it_cannot_take_costs_itself(model: MEGNet) -> None:
    cells = [
        AtomicCell(CUBIC, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([55, 17])),
        AtomicCell(CUBIC, np.zeros((1, 3)), np.array([86])),
        AtomicCell(CUBIC, np.array([[0, 0, 0], [0.01, 0, 0]]), np.array([11, 17])),
        AtomicCell(CUBIC * np.nan, np.zeros((1, 3)), np.array([11])),
        AtomicCell(2 * CUBIC, np.zeros((1, 3)), np.array([18])),
    ]
    predicted = model.predict(cells)
    assert np.isfinite(predicted.value).tolist() == [True] + [False] * 4
    words = [
        "not trained on Rn",
        "closer than 0.5",
        "not finite",
        "1 atom(s) have no neighbour within 4",
    ]
    for reason, word in zip(predicted.reasons[1:], words, strict=True):
        assert reason is not None
        assert word in reason
    assert len(model.predict([]).value) == 0


def test_wrong_files(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model\.json"):
        load_model(tmp_path)
    wrong = write(tmp_path / "wrong")
    (wrong / "state.pt").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"state\.pt is damaged"):
        load_model(wrong, 0)
    text = (wrong / "model.json").read_text()
    (wrong / "model.json").write_text(text.replace("MEGNet", "M3GNet"))
    with pytest.raises(ValueError, match=r"no MEGNet model .*M3GNet"):
        load_model(wrong, 0)
    with pytest.raises(ValueError, match="has states to choose from"):
        load_model(folder)
    with pytest.raises(ValueError, match="no fidelity 'pw91'"):
        band_gap(folder, fidelity="pw91")
    with pytest.raises(ValueError, match="no property is named 'colour'"):
        create_property("colour")


def test_the_published_models_can_be_fetched() -> None:
    for name in (BAND_GAP, FORMATION_ENERGY):
        for file in ("model.json", "state.pt"):
            checksum = RESOURCES[f"{name}/{file}"].checksum
            assert checksum is not None
            assert checksum.startswith("sha256:")


@pytest.mark.slow
def test_published_weights_against_dft(shared: Path) -> None:
    """Materials Project values of 400 crystals; matgl 4 has 0.5 eV and 0.25 eV/atom."""
    records = list(read(shared / "data" / "mp20_bt" / "test.csv.gz"))[:400]
    cells = [record.cell for record in records if record.cell is not None]

    def errors(name: str, column: str, file: str) -> np.ndarray:
        model = create_property(name, folder=shared / "weights" / "matgl" / file)
        truth = np.array([record.properties[column] for record in records], float)
        return np.abs(model.predict(cells).value - truth)

    gap = errors("band_gap", "band_gap", BAND_GAP)
    assert np.mean(gap) < 0.16
    assert np.median(gap) < 0.02
    formation = errors("formation_energy", "formation_energy_per_atom", FORMATION_ENERGY)
    recorrected = np.array([bool({16, 34, 51, 52} & set(cell.species)) for cell in cells])
    assert np.nanmean(formation) < 0.07
    assert np.nanmean(formation[~recorrected]) < 0.05
