"""Inputs of rewards: batches of crystals, or lists of texts and other plain items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from crystaljax.crystal import Batch, Crystals

Items = Any
"""A `Batch` such as `Crystals`, or a sequence of items (texts, tuples of numbers and texts)."""

KEY_BYTES = 20


def take(items: Items, rows: np.ndarray) -> Items:
    """The items at `rows` (int [n]) as the same kind of batch, or as a list."""
    if isinstance(items, Batch):
        return items[rows]
    return [items[row] for row in rows]


def on_host(items: Items) -> Items:
    """The same items with all arrays on the host, so that they can be sent to another process."""
    return items.to_numpy() if isinstance(items, Batch) else items


def item_keys(items: Items, identity: str) -> list[bytes]:
    """A key of 20 bytes for each item together with `identity`, the same on every machine.

    The key of crystals is made from `structure_bytes`, that of a text from its characters, that of
    tuples, lists, dictionaries and arrays of numbers and texts from their JSON. TypeError: an item
    is none of these.
    """
    prefix = blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES)
    keys = []
    for content in structure_bytes(items) if isinstance(items, Crystals) else _plain_bytes(items):
        key = prefix.copy()
        key.update(content)
        keys.append(key.digest())
    return keys


def structure_bytes(crystals: Crystals) -> list[bytes]:
    """The fields of each of B crystals as bytes, without empty site slots.

    Crystals have the same bytes when space group, lattice and sites are the same to the last bit
    of their float32; equivalent descriptions of one structure differ.
    """
    host = crystals.to_numpy()
    last = (host.wyckoff > 0) | (host.species > 0)
    n_sites = np.where(last.any(axis=1), host.n_slots - last[:, ::-1].argmax(axis=1), 0)
    head = _rows_as_bytes(_integers(host.space_group)[:, None], _floats(host.lattice))
    sites = _rows_as_bytes(
        _integers(host.wyckoff)[..., None], _integers(host.species)[..., None], _floats(host.frac)
    )
    return [
        b"crystal" + head[row].tobytes() + sites[row, :n].tobytes() for row, n in enumerate(n_sites)
    ]


def _rows_as_bytes(*columns: np.ndarray) -> np.ndarray:
    """uint8 [..., n]: arrays of 4-byte numbers [..., k] side by side."""
    return np.concatenate([np.ascontiguousarray(x).view(np.uint8) for x in columns], axis=-1)


def _integers(values: np.ndarray) -> np.ndarray:
    return values.astype("<i4")


def _floats(values: np.ndarray) -> np.ndarray:
    return values.astype("<f4") + np.float32(0)  # -0 becomes 0


def _plain_bytes(items: Sequence[Any]) -> list[bytes]:
    if isinstance(items, Batch):
        raise TypeError(f"no keys are known for batches of {type(items).__name__}, only Crystals")
    return [
        b"text" + item.encode("utf-8", "surrogatepass")
        if isinstance(item, str)
        else b"json" + json.dumps(item, sort_keys=True, default=plain).encode()
        for item in items
    ]


def plain(value: Any) -> Any:
    """A numpy scalar or array as JSON can write it, for `json.dumps(default=plain)`.

    TypeError for anything else that JSON does not know.
    """
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(
        f"a {type(value).__name__} is neither a text nor made of numbers, texts, lists, tuples,"
        " dictionaries and arrays"
    )
