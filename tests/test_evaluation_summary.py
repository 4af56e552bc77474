"""Tests of crystaljax.evaluation.summary."""

import re
from collections import Counter

import numpy as np

from crystaljax.composition import formulas
from crystaljax.data.dataset import load
from crystaljax.evaluation.summary import N_NAMED, commonest


def test_the_commonest_are_named() -> None:
    crystals = load("prototypes").crystals[np.array([0, 1, 0, 2, 0, 1])]
    names, groups = commonest(crystals)
    counted = Counter(formulas(crystals))
    expected = ", ".join(f"{name} ({n})" for name, n in counted.most_common())
    assert names == f"{len(counted)} formulas: {expected}"
    assert commonest(crystals[:1])[0].startswith("1 formula: ")
    group = int(crystals.space_group[0])
    assert f"{group} " in groups and re.search("space groups?: ", groups)


def test_the_rest_is_not() -> None:
    names, _ = commonest(load("prototypes").crystals[:200])
    assert names.endswith(", ...") and names.count("(") == N_NAMED
