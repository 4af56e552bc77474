"""Reads PyTorch's files as numpy arrays, without PyTorch and without running their code.

A file of `torch.save` is a zip archive. It has a pickle of nested containers, whose tensors name
the members of the archive with their numbers. Unpickling may call any function that the pickle
names. Here it may name only tensors of plain numbers and ordered dictionaries (in checkpoints also
arrays of plain numbers, and devices); anything else is refused.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.models.unpickling import ARRAYS, DAMAGE, ForbiddenContent

_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """A tensor's numbers, copied out of the storage that it is a view of."""
    if offset < 0 or min(size, default=1) < 0 or min(stride, default=0) < 0:
        raise ValueError("a tensor of negative size or stride")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= len(storage):
        raise ValueError("a tensor that reaches beyond its numbers")
    strides = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


class _TensorUnpickler(pickle.Unpickler):
    """Unpickler of tensors and ordered dictionaries; refuses anything else."""

    def __init__(self, archive: zipfile.ZipFile, member: str) -> None:
        super().__init__(archive.open(member))
        self._archive = archive
        self._folder = member.rsplit("/", maxsplit=1)[0]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise ForbiddenContent(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise ForbiddenContent(f"a reference to {pid!r}")
        return np.frombuffer(self._archive.read(f"{self._folder}/data/{key}"), dtype)


class _CheckpointUnpickler(_TensorUnpickler):
    """Also unpickles numpy arrays and PyTorch's devices."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch", "device"):
            return _device
        if (module, name) == ("_codecs", "encode"):
            return _encode
        return ARRAYS.get((module, name)) or super().find_class(module, name)


def _device(kind: str, *index: int) -> str:
    """A device by its name."""
    return ":".join([kind, *map(str, index)])


def _encode(text: str, encoding: str) -> bytes:
    """Bytes that old pickles store as text."""
    if encoding != "latin1":
        raise ForbiddenContent(f"a text encoded as {encoding}")
    return text.encode("latin1")


def load_tensors(path: str | PathLike) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary that `torch.save` wrote, by name.

    FileNotFoundError; ValueError for a damaged file, and naming the content if it is anything but a
    dictionary of tensors (it is not run).
    """
    content = _load(path, _TensorUnpickler)
    if not isinstance(content, dict) or not all(
        isinstance(x, np.ndarray) for x in content.values()
    ):
        raise ValueError(f"{path} holds no dictionary of tensors")
    return dict(content)


def load_checkpoint(path: str | PathLike) -> Any:
    """Content of a file of `torch.save`, with numpy arrays as tensors, and devices by name.

    FileNotFoundError; ValueError for a damaged file, and naming the content if it is anything but
    nested containers of tensors, arrays, numbers, texts and devices (it is not run).
    """
    return _load(path, _CheckpointUnpickler)


def _load(path: str | PathLike, unpickler: type[_TensorUnpickler]) -> Any:
    """The content of a file; for errors see `load_checkpoint`."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(members) != 1:
                raise ValueError("it has no data.pkl")
            return unpickler(archive, members[0]).load()
    except ForbiddenContent as error:
        raise ValueError(
            f"refused to read {path}: it holds {error}, and only tensors are read from pickles,"
            " because unpickling anything else may run foreign code"
        ) from error
    except (*DAMAGE, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged, or no file of torch.save: {error}") from error
