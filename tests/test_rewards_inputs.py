"""Selecting items of any kind, and the keys they are known by."""

import time

import numpy as np
import pytest
from test_rewards_base import batch_of

from crystaljax.crystal import Cells, Crystals
from crystaljax.data.dataset import load
from crystaljax.rewards.inputs import item_keys, take


def test_batches_and_lists_are_selected_alike() -> None:
    rows = np.array([3, 0, 3])
    np.testing.assert_array_equal(take(batch_of(4), rows).lattice[:, 0], [4, 1, 4])
    assert take(["a", "b", "c", "d"], rows) == ["d", "a", "d"]
    assert take((("Fe", 0.5), ("Ni", 0.1)), np.array([1])) == [("Ni", 0.1)]


def test_keys_of_crystals_do_not_depend_on_empty_slots_or_the_batch() -> None:
    crystals = load("prototypes").crystals.to_numpy()
    keys = item_keys(crystals, "reward")
    assert item_keys(crystals.with_slots(crystals.n_slots + 5), "reward") == keys
    rows = np.array([7, 2])
    assert item_keys(crystals[rows], "reward") == [keys[7], keys[2]]
    assert item_keys(batch_of(2)[:0], "reward") == []


def test_keys_tell_different_crystals_and_rewards_apart() -> None:
    crystals = load("prototypes").crystals.to_numpy()
    keys = item_keys(crystals, "reward")
    distinct = {
        tuple(np.concatenate([np.ravel(x) for x in row]).tolist())
        for row in zip(*vars(crystals).values(), strict=True)
    }
    assert len(set(keys)) == len(distinct)
    assert not set(keys) & set(item_keys(crystals, "another reward"))


@pytest.mark.parametrize("field", ["space_group", "wyckoff", "species", "frac", "lattice"])
def test_every_field_matters_to_the_last_bit(field: str) -> None:
    crystals = batch_of(1)
    changed = np.array(getattr(crystals, field))
    if changed.dtype == np.float32:
        changed[..., -1] = np.nextafter(changed[..., -1], np.float32(100))
    else:
        changed[...] += 1
    other = Crystals(**{**vars(crystals), field: changed})
    assert item_keys(other, "reward") != item_keys(crystals, "reward")


def test_minus_zero_is_zero() -> None:
    crystals = batch_of(1)
    other = Crystals(**{**vars(crystals), "frac": -crystals.frac})
    assert np.signbit(other.frac).all()
    assert item_keys(other, "reward") == item_keys(crystals, "reward")


def test_keys_of_texts_and_plain_items() -> None:
    items = ["Fe", "Ni", "\ud800", ("Fe", 0.5), ("Fe", np.float32(0.5)), [1, np.int64(2)], "[1, 2]"]
    keys = item_keys(items, "reward")
    assert keys[3] == keys[4]
    assert len(set(keys)) == len(keys) - 1
    with pytest.raises(TypeError, match="object is neither a text nor"):
        item_keys([object()], "reward")
    cells = Cells(np.zeros((1, 1, 3)), np.ones((1, 1), int), np.eye(3)[None])
    with pytest.raises(TypeError, match="batches of Cells"):
        item_keys(cells, "reward")


def test_ten_thousand_keys_take_less_than_a_second() -> None:
    crystals = batch_of(10_000).with_slots(20)
    start = time.process_time()  # other processes do not count
    assert len(set(item_keys(crystals, "reward"))) == 10_000
    assert time.process_time() - start < 1
