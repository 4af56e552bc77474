"""Texts in random descriptions: others, of the same crystals, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from random_crystals import prototypes

from crystaljax.structures import to_structures
from crystaljax.tokenizations.augmentation import augmented
from crystaljax.tokenizations.registry import create_format, tokenization_names

CRYSTALS = prototypes(61)


@pytest.mark.parametrize("name", tokenization_names("text"))
def test_other_texts_of_the_same_crystals(name: str) -> None:
    format = create_format(name)
    plain = format.encode(CRYSTALS)
    one, other, again = (augmented(format, CRYSTALS, np.random.default_rng(i)) for i in (0, 1, 0))
    assert one == again
    assert np.mean([a != b for a, b in zip(one, other, strict=True)]) > 0.8
    assert np.mean([a != b for a, b in zip(plain, one, strict=True)]) > 0.8
    decoded = format.decode(one)
    assert decoded.ok.all()
    matcher = StructureMatcher()
    pairs = zip(to_structures(CRYSTALS, True), to_structures(decoded.crystals, True), strict=True)
    for a, b in pairs:
        assert a is not None and b is not None
        assert matcher.fit(a, b)
    if name not in ("coordinates", "p1-bins"):
        np.testing.assert_array_equal(decoded.crystals.space_group, CRYSTALS.space_group)
