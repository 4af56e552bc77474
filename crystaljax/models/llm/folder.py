"""Import and export of language models as Hugging Face folders."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Sharding, SingleDeviceSharding
from jax.typing import DTypeLike

from crystaljax.crystal import Array
from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.linear import Format, QuantizedKernel
from crystaljax.models.llm.lora import projections
from crystaljax.models.llm.names import tensor_name
from crystaljax.models.llm.quantization import quantize
from crystaljax.models.llm.tensor_files import SafetensorError, safe_open, save_file

log = logging.getLogger(__name__)

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""Names of embedding and head, which may be one tensor (tied)."""

COMPARED = 4096
"""Number of rows that are compared at a time."""

TEXT_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
"""Files of the tokenizer and of the generation settings, which are copied with a model."""

Placement = Callable[[tuple[int, ...]], Sharding]
"""The sharding of a parameter, from its shape."""


def read_fields(folder: str | Path) -> dict[str, Any]:
    """The fields of a folder's `config.json`.

    FileNotFoundError: no such folder, or no such file in it. ValueError: it is not JSON.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder: give one with {CONFIG} and *.safetensors; "
            f"`hf download NAME --local-dir FOLDER` fetches a model from the hub"
        )
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}: is it the folder of a model?")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): fetch it again") from None


def load_config(folder: str | Path) -> LlmConfig:
    """The configuration of a folder's model; errors as `read_fields`, `LlmConfig.from_hf`."""
    fields = read_fields(folder)
    try:
        return LlmConfig.from_hf(fields)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


class Tensors:
    """The tensors of a folder's safetensors files, read one by one or in parts.

    FileNotFoundError if a file is missing, ValueError if one is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._open = ExitStack()
        files = self._files()
        self._handles = {path: self._open.enter_context(_open(path)) for path in files}
        self._owner = {name: x for x in self._handles.values() for name in x.keys()}  # noqa: SIM118

    def __enter__(self) -> Tensors:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._owner)

    def slices(self, name: str) -> Any:
        """A lazy tensor: it has `get_shape`, and indexing reads its data.

        ValueError if there is none of this name.
        """
        if name not in self._owner:
            raise ValueError(
                f"{self.folder} has no tensor {name}, which its {CONFIG} asks for: the one or the "
                "files are not of this model; fetch the folder again"
            )
        return self._owner[name].get_slice(name)

    def _files(self) -> list[Path]:
        index = self.folder / INDEX
        if not index.is_file():
            if not (self.folder / SINGLE).is_file():
                raise FileNotFoundError(
                    f"{self.folder} has neither {SINGLE} nor {INDEX}: weights are read from "
                    "safetensors files alone"
                )
            return [self.folder / SINGLE]
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        missing = [name for name in names if not (self.folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{self.folder} lacks {', '.join(missing)}, which {INDEX} lists: fetch "
                f"{'it' if len(missing) == 1 else 'them'} again"
            )
        return [self.folder / name for name in names]


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}): fetch it again") from None


def abstract_model(
    config: LlmConfig, dtype: DTypeLike, quantized: Format | None = None, tile: int = 0
) -> LanguageModel:
    """A model with shapes in place of parameters, which takes no memory; errors as `quantize`."""

    def build() -> LanguageModel:
        model = LanguageModel(config, nnx.Rngs(0), dtype)
        if quantized is not None:
            quantize(model, quantized, tile)
        return model

    return nnx.eval_shape(build)


def load_model(
    folder: str | Path,
    dtype: DTypeLike | None = None,
    placement: Placement | None = None,
    quantized: Format | None = None,
    tile: int = 0,
) -> LanguageModel:
    """The language model of a Hugging Face folder.

    Args:
      dtype: type of parameters and activations; that of the files' embedding if not given.
      placement: sharding of each parameter; all on the first device if not given.
      quantized, tile: format of the blocks' projections, as in `quantize`; plain if not given.

    Tensors are read one at a time from the file to their devices, and quantised there before the
    next one is read; a host reads only the parts of its own devices. If the configuration says that
    head and embedding are tied, but the file has a different head, this is used, with a warning, as
    in transformers 5.

    FileNotFoundError if folder, configuration or a shard is missing. ValueError for an unknown
    architecture, a tile that does not fit, and tensors that are missing, unknown, or not of the
    shape in the configuration.
    """
    config = load_config(folder)
    with Tensors(folder) as tensors:
        if config.tied and not _is_tied(tensors):
            config = replace(config, tied=False)
            log.warning(
                "%s: tie_word_embeddings is true in %s, but %s is another matrix than %s: they are"
                " read as two; set it to false",
                *(folder, CONFIG, HEAD, EMBEDDING),
            )
        if dtype is None:
            dtype = tensors.slices(EMBEDDING)[:1].dtype
        graph = nnx.graphdef(abstract_model(config, dtype, quantized, tile))
        plain = abstract_model(config, dtype)
        projected = {(*path, "kernel") for path in projections(plain)}
        flat = nnx.to_flat_state(nnx.state(plain))
        names = [tensor_name(path, config) for path, _ in flat]
        _check_unknown(tensors, set(names), config)
        place = placement or (lambda _: _first_device())
        filled = []
        for name, (path, leaf) in zip(names, flat, strict=True):
            value = _read(tensors, name, path[-1] == "kernel", leaf, place(leaf.shape))
            if quantized is None or path not in projected:
                filled.append((path, leaf.replace(value)))
                continue
            kernel = nnx.state(QuantizedKernel(value, quantized, tile))
            for part, array in nnx.to_flat_state(kernel):
                value = jax.device_put(array.get_value(), place(array.shape))
                filled.append(((*path, *part), array.replace(value)))
    return nnx.merge(graph, nnx.from_flat_state(filled))


def _is_tied(tensors: Tensors) -> bool:
    """Whether there is no head, or it equals the embedding."""
    if not {EMBEDDING, HEAD} <= tensors.names:
        return True
    one, other = tensors.slices(EMBEDDING), tensors.slices(HEAD)
    if one.get_shape() != other.get_shape():
        return False
    size = one.get_shape()[0]
    parts = [slice(i, min(i + COMPARED, size)) for i in range(0, size, COMPARED)]
    return all(np.array_equal(one[part], other[part]) for part in parts)


def _first_device() -> Sharding:
    return SingleDeviceSharding(jax.local_devices()[0])


def _check_unknown(tensors: Tensors, known: set[str], config: LlmConfig) -> None:
    """ValueError for tensors that the model does not have."""
    unknown = {name for name in tensors.names - known if not name.endswith("rotary_emb.inv_freq")}
    if config.tied:
        unknown -= {HEAD}  # equal to the embedding
    if unknown:
        some = ", ".join(sorted(unknown)[:3])
        raise ValueError(
            f"{tensors.folder} has {len(unknown)} tensors that its {CONFIG} has no place for, such "
            f"as {some}: the one or the files are not of this model; fetch the folder again"
        )


def _read(
    tensors: Tensors, name: str, transposed: bool, leaf: Any, sharding: Sharding
) -> jax.Array:
    """One parameter on its devices."""
    source = tensors.slices(name)
    shape = tuple(source.get_shape())
    expected = leaf.shape[::-1] if transposed else leaf.shape
    if shape != expected:
        raise ValueError(
            f"{tensors.folder}: tensor {name} is {list(shape)}, and {CONFIG} makes it "
            f"{list(expected)}: the one or the other is not of this model; fetch the folder again"
        )

    parts: dict[str, np.ndarray] = {}  # several devices may need the same one

    def part(index: Any) -> np.ndarray:
        if str(index) not in parts:
            x = source[index[::-1]].T if transposed else source[index]
            parts[str(index)] = np.ascontiguousarray(x.astype(leaf.dtype))
        return parts[str(index)]

    return jax.make_array_from_callback(leaf.shape, sharding, part)


def export_model(
    model: LanguageModel,
    folder: str | Path,
    source: str | Path | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Write a model as a Hugging Face folder, which transformers loads.

    Args:
      source: folder whose tokenizer files, and other fields of `config.json`, are copied.
      max_shard_bytes: largest size of a file, unless a single tensor is larger.

    In a run of many processes all must call it; the first one writes. FileExistsError if the folder
    has weights already. ValueError for a parameter without a name in transformers, such as those of
    adapters.
    """
    folder = Path(folder)
    if any(folder.glob("*.safetensors")):
        raise FileExistsError(f"{folder} has weights already: choose another folder")
    tensors = _named(model)
    shards = list(_shards(tensors, max_shard_bytes))
    writes = jax.process_index() == 0
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for i, names in enumerate(shards):
        file = SINGLE if len(shards) == 1 else f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        values = {name: on_host(*tensors[name]) for name in names}
        if writes:
            save_file(values, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(names, file))
    if not writes:
        return
    if len(shards) > 1:
        size = sum(x.nbytes for x, _ in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2))
    fields = model.config.to_hf(read_fields(source) if source else None)
    fields["torch_dtype"] = str(model.dtype)
    (folder / CONFIG).write_text(json.dumps(fields, indent=2))
    for name in TEXT_FILES if source else ():
        if (Path(str(source)) / name).is_file():
            shutil.copy(Path(str(source)) / name, folder / name)


def _named(model: LanguageModel) -> dict[str, tuple[Array, bool]]:
    """Parameters, and whether to transpose them, by the names of transformers."""
    named = {}
    for path, leaf in nnx.to_flat_state(nnx.state(model)):
        try:
            name = tensor_name(path, model.config)
        except (KeyError, ValueError):
            raise ValueError(
                f"parameter {'.'.join(map(str, path))} has no name in transformers: merge adapters "
                "and dequantise before exporting"
            ) from None
        named[name] = leaf.get_value(), path[-1] == "kernel"
    return named


def _shards(tensors: dict[str, tuple[Array, bool]], limit: int) -> Iterator[list[str]]:
    """Names of the tensors of each file."""
    names: list[str] = []
    size = 0
    for name, (x, _) in tensors.items():
        if names and size + x.nbytes > limit:
            yield names
            names, size = [], 0
        names.append(name)
        size += x.nbytes
    yield names


def on_host(x: jax.Array, transposed: bool) -> np.ndarray:
    """A whole parameter in numpy; in a run of many processes all must call it."""
    if not x.is_fully_addressable:
        x = multihost_utils.process_allgather(x, tiled=True)
    value = np.asarray(x)
    return np.ascontiguousarray(value.T if transposed else value)
