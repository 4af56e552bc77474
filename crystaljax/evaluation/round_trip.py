"""Survival of crystals that are written and read: the ceiling of a tokenization."""

from __future__ import annotations

from typing import Any

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.evaluation.matching import FAILURES
from crystaljax.evaluation.rates import Rate
from crystaljax.evaluation.safeguards import time_limit
from crystaljax.tokenizations.base import Decoded

STRICT: dict[str, Any] = {"ltol": 0.05, "stol": 0.05, "angle_tol": 1.0}
"""Tolerances of StructureMatcher under which rounding shows."""


def round_trip(written: Crystals, read: Decoded, seconds: float = 10.0) -> list[Rate]:
    """Rates of N crystals that come back from their sequences.

    The same structure by StructureMatcher, with its own tolerances and with `STRICT` ones (volumes
    compared too), and the same space group. `seconds` limits each comparison.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from crystaljax.structures import to_structures

    both = [to_structures(x, primitive=True) for x in (written.to_numpy(), read.crystals)]
    matchers = StructureMatcher(), StructureMatcher(scale=False, **STRICT)
    same = np.zeros((2, len(written)), bool)
    for row, (before, after) in enumerate(zip(*both, strict=True)):
        if before is None or after is None:
            continue
        for matcher, found in zip(matchers, same, strict=True):
            try:
                with time_limit(seconds):
                    found[row] = matcher.fit(before, after)
            except FAILURES:
                continue
    group = np.asarray(read.crystals.space_group) == np.asarray(written.space_group)
    of = "crystals written"
    tolerances = ", ".join(f"{name} {x:g}" for name, x in STRICT.items())
    return [
        Rate.of("read again", read.ok, "what was written describes a crystal", of),
        Rate.of("round trip", same[0], "the same structure by StructureMatcher's defaults", of),
        Rate.of("strict round trip", same[1], f"the same structure with {tolerances}", of),
        Rate.of("round trip of space group", group & read.ok, "the same space group", of),
    ]
