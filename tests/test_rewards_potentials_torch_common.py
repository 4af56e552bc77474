"""The base of the PyTorch potentials."""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs an extra that brings PyTorch")

from crystaljax import AtomicCell  # noqa: E402
from crystaljax.rewards.potentials.screening import neighbors  # noqa: E402
from crystaljax.rewards.potentials.torch_common import collate, to_torch  # noqa: E402


def test_arrays_share_memory_with_their_tensors_on_the_same_device() -> None:
    ours = jnp.arange(12.0).reshape(3, 4)
    tensor = to_torch(ours, "cpu")
    assert tensor.data_ptr() == ours.unsafe_buffer_pointer()
    assert tensor.shape == (3, 4)
    array = np.arange(6)
    tensor = to_torch(array, "cpu")
    array[2] = 7
    assert tensor.tolist() == [0, 1, 7, 3, 4, 5]


def test_collated_structures_keep_their_own_edges() -> None:
    one = AtomicCell(3.0 * np.eye(3), np.zeros((1, 3)), np.array([26]))
    two = AtomicCell(4.0 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([55, 17]))
    lists = [neighbors(one, 3.5), neighbors(two, 3.5)]
    joined = collate([one, two], lists)
    assert joined.owner.tolist() == [0, 1, 1]
    assert joined.species.tolist() == [26, 55, 17]
    assert joined.n_edges.tolist() == [6, 16]
    assert (joined.owner[joined.center] == joined.owner[joined.neighbor]).all()
    assert joined.owner[joined.center].tolist() == [0] * 6 + [1] * 16
