"""Devices in a mesh, and how parameters and batches are spread over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

DATA, FSDP = "data", "fsdp"
"""Axes of the mesh: copies of the parameters; parts of them."""


@dataclass(frozen=True)
class MeshConfig:
    """Sharing of the work among devices of all hosts; batches are spread over all in any case."""

    data: int = -1
    """Copies of the parameters. -1: as many as the devices allow."""
    fsdp: int = 1
    """Devices that share one copy of the parameters."""


def make_mesh(config: MeshConfig = MeshConfig()) -> Mesh:
    """A mesh of all devices with axes "data" and "fsdp".

    ValueError if they cannot be shared out so.
    """
    n, data = len(jax.devices()), config.data
    if data == -1:
        data = n // max(config.fsdp, 1)
    if config.fsdp < 1 or data * config.fsdp != n:
        raise ValueError(
            f"data {config.data} x fsdp {config.fsdp} for {n} devices: the product must be {n}"
        )
    return jax.make_mesh((data, config.fsdp), (DATA, FSDP), axis_types=(AxisType.Auto,) * 2)


def parameter_placement(mesh: Mesh) -> Callable[[tuple[int, ...]], NamedSharding]:
    """The sharding of a parameter by its shape.

    The largest axis of a matrix that the "fsdp" devices divide evenly is split over them; vectors,
    and what cannot be split, every device has whole.
    """
    n = mesh.shape[FSDP]

    def place(shape: tuple[int, ...]) -> NamedSharding:
        axes = [i for i, size in enumerate(shape) if size % n == 0]
        spec: list[str | None] = [None] * len(shape)
        if len(shape) > 1 and axes and n > 1:
            spec[max(axes, key=lambda i: shape[i])] = FSDP
        return NamedSharding(mesh, PartitionSpec(*spec))

    return place


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def parts_sharding(mesh: Mesh) -> NamedSharding:
    """Micro-batches, on the leading axis, each split over all devices along the next."""
    return NamedSharding(mesh, PartitionSpec(None, (DATA, FSDP)))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))
