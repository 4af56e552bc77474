"""Pickles are read without running them: arrays come out, everything else is refused."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy._core.multiarray import _reconstruct

from crystaljax.models.unpickling import InertState, load_arrays


class Reduced:
    """Pickles as what it is given: a callable, its arguments and a state."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def read(path: Path, content: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Any:
    path.write_bytes(pickle.dumps(content, protocol))
    return load_arrays(path)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_come_out(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=(3, 4)).astype(np.float32),
        np.asfortranarray(rng.normal(size=(3, 4))),
        rng.integers(0, 9, (2, 0, 3)),
        np.array(7, np.int16),
        np.arange(6, dtype=">i4").reshape(2, 3)[:, ::2],
        np.array([True, False]),
        np.array([1 + 2j]),
    ]
    content = OrderedDict(numpy=arrays, jax=[jnp.asarray(x) for x in arrays[:1]], n=np.float64(2.5))
    found = read(tmp_path / "x.pkl", content, protocol)
    for theirs, ours in zip(arrays + arrays[:1], found["numpy"] + found["jax"], strict=True):
        assert np.asarray(ours).dtype == theirs.dtype.newbyteorder("=")
        np.testing.assert_array_equal(ours, theirs)
    assert found["n"] == 2.5


def test_states_of_optimisers_are_inert(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(b"coptax._src.base\nAnyState\n(I3\ntR.")
    found = load_arrays(path)
    assert type(found) is InertState
    assert found == (3,)


def forged(flags: int = 0) -> Reduced:
    """A dtype of objects that says of itself that it is of numbers."""
    objects = (3, "|", None, ("x",), {"x": (np.dtype("O"), 0)}, 8, 1, flags)
    return Reduced(np.dtype, ("V8", False, True), objects)


def array(dtype: Any, content: Any, shape: tuple[int, ...] = (1,)) -> Reduced:
    return Reduced(_reconstruct, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, content))


@pytest.mark.parametrize(
    "hostile",
    [
        array(forged(), b"A" * 8),
        array(np.dtype("O"), [print]),
        array(np.dtype("O"), b"A" * 8),
        array(np.dtype("f8"), [1.0]),
        array("O", b"A" * 8),
        np.array([1, "x"], object),
        np.array([(1, 2.0)], "i4,f8"),
        np.array(["text"]),
        np.datetime64(1, "s"),
    ],
)
def test_arrays_of_other_things_than_numbers(tmp_path: Path, hostile: Any) -> None:
    """A forged type of objects over bytes of the file would make pointers of them."""
    with pytest.raises(ValueError, match=r"refused to read .*numbers"):
        read(tmp_path / "x.pkl", {"params": hostile})


@pytest.mark.parametrize("shape", [(10**13,), (2**62, 2**62), (-1, -1), (2,), ()])
def test_shapes_that_the_content_has_not(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="damaged"):
        read(tmp_path / "x.pkl", array(np.dtype("f8"), b"A" * (8 * (shape != ())), shape))


NAMES = [
    "builtins.eval",
    "builtins.getattr",
    "os.system",
    "posix.system",
    "subprocess.Popen",
    "numpy.fromfile",
    "numpy.load",
    "numpy.core.multiarray.fromfile",
    "optax.adam",
    "optax_fake.State",
    "jax._src.array.ArrayImpl",
    "collections.namedtuple",
]


@pytest.mark.parametrize("name", NAMES)
def test_other_functions_are_refused(tmp_path: Path, name: str) -> None:
    module, function = name.rsplit(".", 1)
    path = tmp_path / "bad.pkl"
    path.write_bytes(f"c{module}\n{function}\n(S'1'\ntR.".encode())
    with pytest.raises(ValueError, match=f"refused to read .*{name}"):
        load_arrays(path)


def test_names_within_names(tmp_path: Path) -> None:
    """Protocol 4 lets a name have dots, which would go from an allowed module to a foreign one."""
    path = tmp_path / "bad.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.ctype\x93.")
    with pytest.raises(ValueError, match=r"refused to read .*numpy\.ndarray\.ctype"):
        load_arrays(path)
    path.write_bytes(b"\x80\x04\x8c\x05optax\x8c\x0fos.system.State\x93.")
    assert load_arrays(path) is InertState  # a name like a state's is never looked up


def test_a_jax_array_built_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(b"cjax._src.array\n_reconstruct_array\n(cnumpy\ndtype\n(S'i4'\nt(tNtR.")
    with pytest.raises(ValueError, match=r"refused to read .*jax array"):
        load_arrays(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"PK\x03\x04 a zip, for instance",
        b"\x80\x04r\xff\xff\xff\x7f",  # the memo lacks it
        b"\x80\x04\x8e" + b"\xff" * 8,  # more bytes than a machine has
        b"\x80\x04\x8e" + b"\xff" * 6 + b"\x7f\x00",
        b"\x80\x63\x00.",  # protocol 99
        b"\x80\x04\x82\x01.",  # an extension
        b"P1\n.",  # a persistent name
    ],
)
def test_no_pickle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pkl is damaged, or no pickle"):
        load_arrays(tmp_path / "x.pkl")


@settings(max_examples=200)
@given(st.data())
def test_damage_is_reported(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes changed or lost anywhere: it is read, or a ValueError says what is wrong."""
    content = pickle.dumps({"a": np.arange(5.0), "b": {"c": np.ones((2, 2), np.float32)}})
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        load_arrays(path)
    except ValueError as error:
        assert "damaged.pkl" in str(error)
