"""Import and export of CrystalFormer checkpoints.

The names and shapes are those of the public code (github.com/deepmodeling/CrystalFormer), whose
modules are numbered in the order of their use.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from crystaljax.models.unpickling import load_arrays
from crystaljax.models.wyckoff.transformer import ModelConfig, WyckoffTransformer

CONFIG_FIELDS = {
    "num_layers": "n_layers",
    "num_heads": "n_heads",
    "key_size": "head_size",
    "model_size": "width",
    "widening_factor": "mlp_factor",
    "embed_size": "embedding",
    "h0_size": "first_letter_hidden",
    "Nf": "n_frequencies",
    "Kx": "n_von_mises",
    "Kl": "n_gaussians",
    "sigmamin": "sigma_min",
    "n_max": "max_sites",
}
"""CrystalFormer's names of our settings."""

Params = dict[str, dict[str, np.ndarray]]


def read_config(path: str | Path) -> ModelConfig:
    """The model configuration in a CrystalFormer JSON of hyper-parameters.

    Missing settings have the published values. ValueError for other numbers of elements or letters
    than 119 and 28, and for a file that is no JSON object.
    """
    path = Path(path)
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON file of hyper-parameters: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} is no JSON object of hyper-parameters")
    for name, expected in (("atom_types", 119), ("wyck_types", 28)):
        if given.get(name, expected) != expected:
            raise ValueError(f"{path}: {name} is {given[name]}, and only {expected} is supported")
    return ModelConfig(
        **{ours: given[theirs] for theirs, ours in CONFIG_FIELDS.items() if theirs in given}
    )


def import_checkpoint(path: str | Path, config: ModelConfig) -> WyckoffTransformer:
    """A model with the weights of a CrystalFormer pickle (read safely, see `unpickling`).

    ValueError if the file is no such checkpoint, or its weights are of another configuration.
    """
    content = load_arrays(Path(path))
    params = content.get("params") if isinstance(content, Mapping) else None
    if not isinstance(params, Mapping) or not all(
        isinstance(arrays, Mapping) for arrays in params.values()
    ):
        raise ValueError(f"{path} holds no 'params': it is no CrystalFormer checkpoint")
    model: WyckoffTransformer = nnx.eval_shape(lambda: WyckoffTransformer(config, nnx.Rngs(0)))
    expected = _layout(model)
    flat = {(m, n): np.asarray(x) for m, arrays in params.items() for n, x in arrays.items()}
    missing, unknown = expected.keys() - flat.keys(), flat.keys() - expected.keys()
    if missing or unknown:
        raise ValueError(
            f"{path} is of another configuration: it lacks {_names(missing)} "
            f"and has besides {_names(unknown)}; give the right hyper-parameters"
        )
    for name, (variable, index) in expected.items():
        shape = variable.shape if index is None else variable.shape[1:]
        if flat[name].shape != shape:
            raise ValueError(
                f"{path} is of another configuration: {'/'.join(name)} has the shape "
                f"{flat[name].shape} where {shape} is expected"
            )
    stacked: dict[int, tuple[Any, dict[int | None, np.ndarray]]] = {}
    for name, (variable, index) in expected.items():
        stacked.setdefault(id(variable), (variable, {}))[1][index] = flat[name]
    for variable, arrays in stacked.values():
        value = arrays[None] if None in arrays else np.stack([arrays[i] for i in sorted(arrays)])  # type: ignore[type-var]
        variable.set_value(jax.numpy.asarray(value, np.float32))
    return model


def export_checkpoint(model: WyckoffTransformer, path: str | Path) -> None:
    """Write the weights as CrystalFormer's pickle of numpy arrays, with no optimiser state.

    The hyper-parameters go to config.json beside it, as `read_config` reads them.
    """
    params: Params = {}
    for (module, name), (variable, index) in _layout(model).items():
        array = np.asarray(variable.get_value(), np.float32)
        params.setdefault(module, {})[name] = array if index is None else array[index]
    path = Path(path)
    with path.open("wb") as file:
        pickle.dump({"params": params, "opt_state": None}, file)
    settings = {theirs: getattr(model.config, ours) for theirs, ours in CONFIG_FIELDS.items()}
    settings |= {"atom_types": 119, "wyck_types": 28}
    path.with_name("config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _layout(
    model: WyckoffTransformer,
) -> dict[tuple[str, str], tuple[Any, int | None]]:
    """CrystalFormer's (module, array) names: our variable, and the layer where it is stacked."""
    layout: dict[tuple[str, str], tuple[Any, int | None]] = {}

    def linear(name: str, layer: nnx.Linear, index: int | None = None) -> None:
        layout[name, "w"], layout[name, "b"] = (layer.kernel, index), (layer.bias, index)

    def norm(number: int, layer: nnx.LayerNorm, index: int | None = None) -> None:
        name = _numbered("layer_norm", number)
        layout[name, "scale"], layout[name, "offset"] = (layer.scale, index), (layer.bias, index)

    layout["~", "g_embeddings"] = model.group.embedding, None
    layout["~", "w_embeddings"] = model.letter.embedding, None
    layout["~", "a_embeddings"] = model.species.embedding, None
    inputs = [model.from_letter, model.from_species, *model.from_coordinate]
    if model.config.first_letter_hidden:
        inputs = [model.first_hidden, model.first_letter, *inputs]
    else:
        layout["~", "w_params"] = model.first_table.embedding, None
    for number, layer in enumerate(inputs):
        linear(_numbered("linear", number), layer)
    n_linears = len(inputs)
    block = model.blocks
    for k in range(model.config.n_layers):
        attention = _numbered("multi_head_attention", k)
        for name, layer in (
            ("query", block.query),
            ("key", block.key),
            ("value", block.value),
            ("linear", block.project),
        ):
            linear(f"{attention}/{name}", layer, k)
        norm(2 * k, block.norm_attention, k)
        norm(2 * k + 1, block.norm_mlp, k)
        linear(_numbered("linear", n_linears + 2 * k), block.expand, k)
        linear(_numbered("linear", n_linears + 2 * k + 1), block.contract, k)
    norm(2 * model.config.n_layers, model.norm)
    linear(_numbered("linear", n_linears + 2 * model.config.n_layers), model.head)
    return layout


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _names(names: set[tuple[str, str]]) -> str:
    """Text with a few of the names."""
    listed = ["/".join(name) for name in sorted(names)]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "") or (
        "nothing"
    )
