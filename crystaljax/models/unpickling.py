"""Reading arrays from pickles of others without running their code.

Unpickling calls whatever the file names. Here it may name numpy and jax arrays, and the state
tuples of optimisers, which come out as plain tuples; anything else is refused. Arrays hold plain
numbers only: numpy's own types take any state from a pickle, and one that claims that objects are
numbers makes pointers of the file's bytes.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NUMBER_KINDS = "biufc"
"""Booleans, integers, floating-point and complex numbers, as numpy calls them."""


DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
)
"""Exceptions of unpickling on bytes that are no pickle, or not all of it."""


class ForbiddenContent(pickle.UnpicklingError):
    """A pickle that names what is not read; the message says what."""


class InertState(tuple):
    """Stands in for an optimiser's state: keeps what it is made of, does nothing."""

    def __new__(cls, *fields: Any) -> InertState:
        return super().__new__(cls, fields)


class _Dtype:
    """Stands in for numpy's dtype, of plain numbers only."""

    def __init__(self, name: str, *_: Any) -> None:
        dtype = np.dtype(name) if isinstance(name, str) else None
        if dtype is None or dtype.kind not in NUMBER_KINDS:
            raise ForbiddenContent(f"an array of {name!r}, which are no plain numbers")
        self.numpy = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Of the state (version, byte order, ...) plain numbers need no more."""
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose content comes from a state that is checked first."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, fortran_order, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise ForbiddenContent("an array that is not of plain numbers")
        super().__setstate__((version, shape, dtype.numpy, fortran_order, content))


def _empty_array(*_: Any) -> np.ndarray:
    """Initial state of a pickled array; its shape, type and content come from its state."""
    return np.empty(0).view(_Array)


def _from_buffer(buffer: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    array = np.frombuffer(buffer, dtype.numpy)
    return array.reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype.numpy)[0]


def _jax_array(
    build: Callable[..., np.ndarray], args: tuple[Any, ...], state: tuple[Any, ...], _aval: Any
) -> np.ndarray:
    if build is not _empty_array:
        raise ForbiddenContent("a jax array that is built in an unknown way")
    array = build(*args)
    array.__setstate__(state)
    return array


ARRAYS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("jax._src.array", "_reconstruct_array"): _jax_array,
    ("jaxlib.xla_extension", "_reconstruct_array"): _jax_array,
}
for _core in ("numpy.core", "numpy._core"):
    ARRAYS[f"{_core}.multiarray", "_reconstruct"] = _empty_array
    ARRAYS[f"{_core}.multiarray", "scalar"] = _scalar
    ARRAYS[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _ArrayUnpickler(pickle.Unpickler):
    """Finds the names above, and optimiser states; refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAYS:
            return ARRAYS[module, name]
        if module.split(".", maxsplit=1)[0] == "optax" and name.endswith("State"):
            return InertState
        raise ForbiddenContent(f"the class {module}.{name}")


def load_arrays(path: Path) -> Any:
    """The content of a pickle of nested containers of arrays (numpy) and optimiser states.

    FileNotFoundError if there is none; ValueError naming the class if the file holds anything
    else, which is then not run, and if it is damaged or no pickle.
    """
    with path.open("rb") as file:
        try:
            return _ArrayUnpickler(file).load()
        except ForbiddenContent as error:
            raise ValueError(
                f"refused to read {path}: it holds {error}, and only arrays and optimiser states "
                "are read from pickles, because unpickling anything else may run foreign code"
            ) from error
        except DAMAGE as error:
            raise ValueError(f"{path} is damaged, or no pickle: {error}") from error
