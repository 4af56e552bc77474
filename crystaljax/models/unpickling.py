"""Reads arrays from untrusted pickles without running their code.

Unpickling calls any function that the file names. Here it may name only numpy and jax arrays, and
the state tuples of optimisers, which become plain tuples; anything else is refused. Arrays must
hold plain numbers: numpy's own types accept any state from a pickle, and a state that declares
objects would turn the file's bytes into pointers.
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
"""Exceptions of unpickling for bytes that are not a pickle, or a truncated one."""


class ForbiddenContent(pickle.UnpicklingError):
    """Error: a pickle names something that is not allowed; the message says what."""


class InertState(tuple):
    """Placeholder for an optimiser's state: a plain tuple of its parts."""

    def __new__(cls, *fields: Any) -> InertState:
        return super().__new__(cls, fields)


class _Dtype:
    """Placeholder for numpy's dtype, for plain numbers only."""

    def __init__(self, name: str, *_: Any) -> None:
        dtype = np.dtype(name) if isinstance(name, str) else None
        if dtype is None or dtype.kind not in NUMBER_KINDS:
            raise ForbiddenContent(f"an array of {name!r}, which are no plain numbers")
        self.numpy = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Ignore the state (version, byte order, ...) except what plain numbers need."""
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose state is checked before it is used."""

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
    """Unpickler of the names above and of optimiser states; refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAYS:
            return ARRAYS[module, name]
        if module.split(".", maxsplit=1)[0] == "optax" and name.endswith("State"):
            return InertState
        raise ForbiddenContent(f"the class {module}.{name}")


def load_arrays(path: Path) -> Any:
    """The content of a pickle of nested containers of arrays (numpy) and optimiser states.

    FileNotFoundError; ValueError for a damaged file or none of pickle, and naming the class if the
    file has anything else (it is not run).
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
