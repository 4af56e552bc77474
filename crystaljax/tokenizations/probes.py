"""Tests of a user's text format on a few crystals: decode and pattern must agree with encode."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from crystaljax.composition import symbol
from crystaljax.crystal import Crystals
from crystaljax.text.expressions import one_of
from crystaljax.tokenizations.base import Decoded, TextFormat
from crystaljax.tokenizations.text.wyckoff import WyckoffText

_PROBES = (
    "2\n2.793 3.307 7.412 85.70 89.06 85.15\nCf 1a\nCf 1b\nCf 2i 0.4330 0.5720 0.2590",
    "14\n5.150 5.212 5.317 99.23\nO 4e 0.0504 0.2431 0.0208\nZr 4e 0.2246 0.5395 0.7917\n"
    "O 4e 0.4300 0.6683 0.1553",
    "62\n5.422 7.651 5.404\nTi 4a\nO 4c 0.0313 0.0586\nCa 4c 0.4877 0.9916\n"
    "O 8d 0.2120 0.0370 0.7130",
    "136\n4.592 2.957\nTi 2a\nO 4f 0.3050",
    "148\n5.088 14.085\nTi 6c 0.1464\nFe 6c 0.3554\nO 18f 0.0159 0.3726 0.4216",
    "186\n3.823 6.261\nS 2b 0.0000\nZn 2b 0.3748",
    "205\n5.650\nN 8c 0.0557",
)
"""Prototypes (AFLOW; one per crystal system) as Wyckoff texts, which a user's format must encode
and decode: high-pressure Cf, baddeleyite, perovskite, rutile, ilmenite, wurtzite, alpha-N2."""


def check_format(name: str, format: TextFormat) -> None:
    """ValueError if a format does not decode the texts that it encodes, or its pattern fails.

    If it has a vocabulary, the texts must be made of its words.
    """
    crystals = WyckoffText().decode(_PROBES).crystals
    texts = _called(name, "encode", format.encode, crystals)
    is_list = isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)
    if not is_list or len(texts) != len(crystals):
        raise ValueError(f"{name}: encode has to return a list of one text for each crystal")
    decoded = _called(name, "decode", format.decode, [*texts, "", "no crystal"])
    is_decoded = isinstance(decoded, Decoded) and isinstance(decoded.crystals, Crystals)
    if not is_decoded or not len(decoded.ok) == len(decoded.crystals) == len(texts) + 2:
        raise ValueError(f"{name}: decode has to return a Decoded with a row for each text")
    if decoded.ok[-2:].any():
        raise ValueError(f"{name}: decode reads a crystal in an empty or senseless text")
    for i in np.flatnonzero(~decoded.ok[: len(texts)]).tolist():
        reason = decoded.reasons[i]
        raise ValueError(f"{name}: decode refuses what encode writes ({reason}): {texts[i]!r}")
    for i in _changed(crystals, decoded.crystals[np.arange(len(texts))]):
        raise ValueError(f"{name}: decode reads another crystal than encode wrote: {texts[i]!r}")
    for i, text in enumerate(texts):
        groups = [int(crystals.space_group[i])]
        elements = [symbol(z) for z in np.unique(crystals.species[i]).tolist() if z]
        for asked in ((groups, elements), (None, None)):
            if not _matches(name, _called(name, "pattern", format.pattern, *asked), text):
                raise ValueError(
                    f"{name}: the pattern of space groups {asked[0] or 'all'} and elements"
                    f" {asked[1] or 'all'} does not match what encode writes: {text!r}"
                )
    if hasattr(format, "vocabulary"):
        words = _called(name, "vocabulary", lambda: one_of(format.vocabulary()))
        for text in texts:
            if not _matches(name, f"(?:{words})+", text):
                raise ValueError(
                    f"{name}: its vocabulary has not all words of what encode writes: {text!r}"
                )


def _matches(name: str, pattern: str, text: str) -> bool:
    """Whether a text matches; ValueError for an invalid pattern."""
    try:
        return re.fullmatch(pattern, text) is not None
    except (re.error, TypeError) as error:
        raise ValueError(f"{name}: the pattern is no regular expression: {error}") from error


def _called(name: str, method: str, function: Any, *arguments: Any) -> Any:
    """Result of a method; ValueError if it raises."""
    try:
        return function(*arguments)
    except Exception as error:
        raise ValueError(f"{name}: {method} raises {type(error).__name__}: {error}") from error


def _changed(written: Crystals, read: Crystals) -> list[int]:
    """Crystals that differ after decoding, by pymatgen's matcher with default tolerances."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from crystaljax.structures import to_structures

    matcher = StructureMatcher(scale=False)
    pairs = zip(to_structures(written, True), to_structures(read, True), strict=True)
    return [
        i
        for i, (one, other) in enumerate(pairs)
        if one is None or other is None or not matcher.fit(one, other)
    ]
