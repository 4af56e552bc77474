"""CrystalFormer checkpoints: published numbers reproduced, nothing foreign run."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from small import SMALL

from crystaljax.models.unpickling import load_arrays
from crystaljax.models.wyckoff.crystalformer import (
    export_checkpoint,
    import_checkpoint,
    read_config,
)
from crystaljax.models.wyckoff.likelihood import log_prob
from crystaljax.models.wyckoff.transformer import ModelConfig, WyckoffTransformer
from crystaljax.symmetry.tables import tables
from crystaljax.tokenizations.packing import Rows, pack
from crystaljax.tokenizations.wyckoff import WyckoffTokens


@pytest.fixture
def fixture(shared: Path) -> Path:
    return shared / "fixtures" / "crystalformer"


def small() -> WyckoffTransformer:
    return WyckoffTransformer(SMALL, nnx.Rngs(0))


def test_published_size() -> None:
    model = nnx.eval_shape(lambda: WyckoffTransformer(ModelConfig(), nnx.Rngs(0)))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(model))) == 4_833_575


def test_reproduces_the_published_code(fixture: Path) -> None:
    """Log-probabilities of 64 crystals as CrystalFormer computes them."""
    config = read_config(fixture / "config.json")
    model = import_checkpoint(fixture / "epoch_000001.pkl", config)
    expected = np.load(fixture / "expected.npz")
    frac = np.where(expected["XYZ"] > 1e9, 0, expected["XYZ"])
    tokens = WyckoffTokens(
        expected["G"], expected["W"], expected["A"], frac, expected["L_model_input"]
    )
    packed = pack(tokens, (Rows(12, 20, 6), Rows(40, 6, 2)))
    found = nnx.jit(log_prob, static_argnums=2)(model, packed, 64, None, tables().varying)
    for name, part in zip(("w", "a", "xyz", "l"), found, strict=True):
        np.testing.assert_allclose(part, expected[f"logp_{name}"], atol=2e-4)


def test_both_kinds_of_files_hold_the_same(fixture: Path) -> None:
    config = read_config(fixture / "config.json")
    first, second = (
        nnx.state(import_checkpoint(fixture / f"epoch_00000{i}.pkl", config)) for i in (1, 2)
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_export_gives_the_file_back(fixture: Path, tmp_path: Path) -> None:
    source = fixture / "epoch_000001.pkl"
    model = import_checkpoint(source, read_config(fixture / "config.json"))
    export_checkpoint(model, tmp_path / "out.pkl")
    theirs, ours = load_arrays(source)["params"], load_arrays(tmp_path / "out.pkl")["params"]
    assert {m: set(a) for m, a in theirs.items()} == {m: set(a) for m, a in ours.items()}
    for module, arrays in theirs.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(ours[module][name], array)
    assert read_config(tmp_path / "config.json") == read_config(fixture / "config.json")


def test_round_trip(tmp_path: Path) -> None:
    model = small()
    export_checkpoint(model, tmp_path / "model.pkl")
    again = import_checkpoint(tmp_path / "model.pkl", read_config(tmp_path / "config.json"))
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), nnx.state(again))


def test_another_configuration(tmp_path: Path) -> None:
    export_checkpoint(small(), tmp_path / "model.pkl")
    settings = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"model_size": 32}, "has the shape"),
        ({"num_layers": 3}, "it lacks layer_norm_5"),
        ({"h0_size": 0}, "it lacks ~/w_params"),
    ):
        (tmp_path / "other.json").write_text(json.dumps(settings | change))
        with pytest.raises(ValueError, match=f"another configuration.*{message}"):
            import_checkpoint(tmp_path / "model.pkl", read_config(tmp_path / "other.json"))


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.system, (f"touch {self.marker}",)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps({"params": Malicious(marker)}))
    with pytest.raises(ValueError, match=r"refused to read .*bad\.pkl.*posix\.system"):
        import_checkpoint(path, SMALL)
    assert not marker.exists()
    pickle.loads(path.read_bytes())  # it would have run
    assert marker.exists()


def test_a_truncated_pickle(tmp_path: Path) -> None:
    export_checkpoint(small(), tmp_path / "model.pkl")
    content = (tmp_path / "model.pkl").read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.pkl").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.pkl"):
            import_checkpoint(tmp_path / "cut.pkl", SMALL)


def test_no_checkpoint(tmp_path: Path) -> None:
    for content in ([1, 2], {"params": [1]}, {"params": {"~": 1}}, {"weights": {}}):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match="no CrystalFormer checkpoint"):
            import_checkpoint(tmp_path / "x.pkl", SMALL)
    with pytest.raises(FileNotFoundError):
        import_checkpoint(tmp_path / "none.pkl", SMALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "no JSON file"), ("[1]", "no JSON object"), ('{"atom_types": 95}', "only 119")],
)
def test_settings_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / "config.json")
