"""Wyckoff sequences: round trips, packing, and faults that are reported and never raised."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crystaljax.data.dataset import load
from crystaljax.tokenizations.packing import Rows, pack, plan_rows
from crystaljax.tokenizations.wyckoff import WyckoffTokenization, WyckoffTokens

TOKENIZATION = WyckoffTokenization(21)


def test_round_trip() -> None:
    crystals = load("prototypes").crystals.with_slots(21)
    decoded = TOKENIZATION.decode(TOKENIZATION.encode(crystals))
    assert decoded.ok.all()
    assert decoded.reasons == [None] * len(crystals)
    for name in ("space_group", "wyckoff", "species"):
        np.testing.assert_array_equal(getattr(decoded.crystals, name), getattr(crystals, name))
    np.testing.assert_allclose(decoded.crystals.lattice, crystals.lattice, rtol=1e-5)
    difference = decoded.crystals.frac - crystals.frac
    assert np.abs(difference - np.round(difference)).max() < 1e-5


@pytest.mark.slow
def test_round_trip_of_materials_project(shared: Path, tmp_path: Path) -> None:
    """Encode → decode gives back the same crystal for all of mp20_bt, in float precision."""
    for part in ("train", "val", "test"):
        source = shared / "data" / "mp20_bt" / f"{part}.csv.gz"
        crystals = load(source, cache_dir=tmp_path, workers=1).crystals.with_slots(21)
        decoded = TOKENIZATION.decode(TOKENIZATION.encode(crystals))
        assert decoded.ok.all()
        np.testing.assert_array_equal(decoded.crystals.wyckoff, crystals.wyckoff)
        np.testing.assert_allclose(decoded.crystals.lattice, crystals.lattice, rtol=1e-5)
        difference = decoded.crystals.frac - crystals.frac
        assert np.abs(difference - np.round(difference)).max() < 1e-5


def good() -> WyckoffTokens:
    """Rock salt."""
    lattice = np.array([[5.6 / 2, 5.6 / 2, 5.6 / 2, *[np.pi / 2] * 3]], np.float32)
    tokens = WyckoffTokens(
        np.array([225]),
        np.zeros((1, 21), int),
        np.zeros((1, 21), int),
        np.zeros((1, 21, 3), np.float32),
        lattice,
    )
    tokens.wyckoff[0, :2], tokens.species[0, :2] = [1, 2], [11, 17]
    return tokens


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"space_group": 231}, "not one of 1-230"),
        ({"wyckoff": 0, "species": 0}, "no site"),
        ({"wyckoff": [1, 20]}, "lacks"),
        ({"wyckoff": [2, 1]}, "out of order"),
        ({"wyckoff": [1, 1]}, "without freedom twice"),
        ({"species": [11, 119]}, "no element"),
        ({"species": [11, 0]}, "without element"),
        ({"frac": np.nan}, "coordinate"),
        ({"lattice": np.inf}, "not finite"),
        ({"lattice": -1.0}, "out of range"),
    ],
)
def test_faults(change: dict, reason: str) -> None:
    tokens = good()
    assert TOKENIZATION.decode(tokens).ok.all()
    for name, value in change.items():
        array = getattr(tokens, name)
        if name in ("wyckoff", "species"):
            array[0, :2] = value
        else:
            array[...] = value
    decoded = TOKENIZATION.decode(tokens)
    assert not decoded.ok[0]
    assert reason in (decoded.reasons[0] or "")
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(decoded.crystals))


def test_one_fault_costs_one_crystal() -> None:
    crystals = load("prototypes").crystals[np.arange(10)]
    tokens = TOKENIZATION.encode(crystals)
    tokens.lattice[4] = np.nan
    decoded = TOKENIZATION.decode(tokens)
    np.testing.assert_array_equal(np.flatnonzero(~decoded.ok), [4])


@settings(max_examples=30)
@given(st.data())
def test_garbage_never_raises(data: st.DataObject) -> None:
    batch, sites = 8, 21
    integers = st.integers(-3, 300)
    floats = st.floats(width=32)

    def draw(shape: tuple[int, ...], elements: st.SearchStrategy) -> np.ndarray:
        dtype = np.float32 if elements is floats else np.int32
        return data.draw(hnp.arrays(dtype, shape, elements=elements))

    tokens = WyckoffTokens(
        draw((batch,), integers),
        draw((batch, sites), integers),
        draw((batch, sites), integers),
        draw((batch, sites, 3), floats),
        draw((batch, 6), floats),
    )
    decoded = TOKENIZATION.decode(tokens)
    assert [reason is None for reason in decoded.reasons] == decoded.ok.tolist()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(decoded.crystals))


def test_packing_loses_nothing() -> None:
    crystals = load("prototypes").crystals
    tokens = TOKENIZATION.encode(crystals)[np.arange(100)]
    packed = pack(tokens, plan_rows([np.asarray(tokens.n_sites)]))
    crystal = np.concatenate([block.crystal.ravel() for block in packed])
    site = np.concatenate([block.site.ravel() for block in packed])
    species = np.concatenate([block.species.ravel() for block in packed])
    used = crystal < 100
    found = np.zeros_like(tokens.species)
    assert len({*zip(crystal[used], site[used], strict=True)}) == used.sum()
    found[crystal[used], site[used]] = species[used]
    np.testing.assert_array_equal(found, tokens.species)
    ends = np.concatenate([block.end_crystal.ravel() for block in packed])
    assert sorted(ends[ends < 100]) == list(range(100))
    for block in packed:  # a crystal is in one row
        for number in np.unique(block.crystal[block.crystal < 100]):
            assert len(np.unique(np.nonzero(block.crystal == number)[0])) == 1


def test_packing_grows_when_it_must() -> None:
    tokens = TOKENIZATION.encode(load("prototypes").crystals)[np.arange(50)]
    packed = pack(tokens, (Rows(1, 21, 4), Rows(1, 4, 1)))
    ends = np.concatenate([block.end_crystal.ravel() for block in packed])
    assert sorted(ends[ends < 50]) == list(range(50))
    with pytest.raises(ValueError, match="sites in rows of"):
        pack(tokens, (Rows(1, 2, 1),))


def test_too_many_sites() -> None:
    crystals = load("prototypes").crystals
    few = dataclasses.replace(TOKENIZATION, max_sites=2)
    with pytest.raises(ValueError, match="sites"):
        few.encode(crystals)
