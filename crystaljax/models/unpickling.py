"""Reading arrays from pickles of others without running their code.

Unpickling calls whatever the file names. Here it may name numpy and jax arrays, and the state
tuples of optimisers, which come out as plain tuples; anything else is refused.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class InertState(tuple):
    """Stands in for an optimiser's state: keeps what it is made of, does nothing."""

    def __new__(cls, *fields: Any) -> InertState:
        return super().__new__(cls, fields)


def _empty_array(subtype: type, shape: tuple[int, ...], dtype: bytes) -> np.ndarray:
    if subtype is not np.ndarray:
        raise pickle.UnpicklingError(f"an array of type {subtype!r}")
    return np.empty(shape, dtype.decode())


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: np.dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype)[0]


def _jax_array(
    build: Callable[..., np.ndarray], args: tuple[Any, ...], state: tuple[Any, ...], _aval: Any
) -> np.ndarray:
    if build is not _empty_array and build is not _from_buffer:
        raise pickle.UnpicklingError("a jax array that is built in an unknown way")
    array = build(*args)
    array.__setstate__(state)
    return array


_ARRAYS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("jax._src.array", "_reconstruct_array"): _jax_array,
    ("jaxlib.xla_extension", "_reconstruct_array"): _jax_array,
}
for _core in ("numpy.core", "numpy._core"):
    _ARRAYS[f"{_core}.multiarray", "_reconstruct"] = _empty_array
    _ARRAYS[f"{_core}.multiarray", "scalar"] = _scalar
    _ARRAYS[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _ArrayUnpickler(pickle.Unpickler):
    """Finds the names above, and optimiser states; refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAYS:
            return _ARRAYS[module, name]
        if module.split(".", maxsplit=1)[0] == "optax" and name.endswith("State"):
            return InertState
        raise pickle.UnpicklingError(f"the class {module}.{name}")


def load_arrays(path: Path) -> Any:
    """The content of a pickle of nested containers of arrays (numpy) and optimiser states.

    FileNotFoundError if there is none; ValueError naming the class if the file holds anything
    else, which is then not run, and if it is damaged or no pickle.
    """
    with path.open("rb") as file:
        try:
            return _ArrayUnpickler(file).load()
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"refused to read {path}: it holds {error}, and only arrays and optimiser states "
                "are read from pickles, because unpickling anything else may run foreign code"
            ) from error
        except (EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged, or no pickle: {error}") from error
