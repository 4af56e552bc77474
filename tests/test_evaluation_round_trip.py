"""Round trips of tokenizations."""

import numpy as np

from crystaljax.data.prototypes import prototypes
from crystaljax.evaluation.nll import Resolution
from crystaljax.evaluation.round_trip import round_trip
from crystaljax.tokenizations.base import Decoded


def test_a_lossless_text_comes_back_and_a_wrong_one_does_not() -> None:
    crystals = prototypes().crystals.to_numpy()[np.arange(6)]
    text = Resolution().format("wyckoff-text")
    read = text.decode([*text.encode(crystals)[:4], "no crystal", "225\n4.0\nNa 4a\nCl 4b"])
    rates = {rate.name: rate for rate in round_trip(crystals, read)}
    assert rates["read again"].fraction == "5 / 6"
    assert rates["round trip"].count >= 4
    assert rates["strict round trip"].fraction == "4 / 6"
    assert rates["round trip of space group"].count >= 4


def test_rounding_shows_in_the_strict_rate_alone() -> None:
    crystals = prototypes().crystals.to_numpy()
    crystals = crystals[np.flatnonzero(crystals.lattice[:, 0] < 4)[:3]]
    longer = crystals.to_numpy()
    lattice = longer.lattice * np.array([1.07, 1.07, 1.07, 1, 1, 1], np.float32)
    changed = type(crystals)(
        crystals.space_group, crystals.wyckoff, crystals.species, crystals.frac, lattice
    )
    read = Decoded(changed, np.ones(len(crystals), bool), [None] * len(crystals))
    rates = {rate.name: rate.value for rate in round_trip(crystals, read)}
    assert rates["round trip"] == 1
    assert rates["strict round trip"] == 0
