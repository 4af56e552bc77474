"""Base of text formats with redundant parts: formulas, dependent coordinates and lengths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from crystaljax.composition import element_counts, in_order
from crystaljax.crystal import Crystals
from crystaljax.tokenizations.base import Decoded
from crystaljax.tokenizations.text import sites
from crystaljax.tokenizations.text.sites import ReadText, Rounding


@dataclass(frozen=True)
class RedundantText(ABC):
    """Base of formats that write all numbers of a site; lossless up to the decimals.

    Subclasses define the pattern, `_written` and `_read`.
    """

    coordinate_decimals: int
    """Decimals of fractional coordinates."""
    length_decimals: int
    """Decimals of a, b, c in Å."""
    angle_decimals: int
    """Decimals of α, β, γ in degrees."""
    consistent: bool = False
    """True: a text that contradicts itself is not a crystal, as in CrystaLLM. It does so if its
    contents, the space group's name, dependent coordinates or lattice parameters do not follow from
    its space group and sites. False: the space group, the positions and the independent numbers
    define the crystal and the rest is ignored, as in PLaID++'s own reader, so that formats with and
    without redundant parts are judged alike."""

    def __post_init__(self) -> None:
        sites.check_decimals(self.coordinate_decimals, self.length_decimals, self.angle_decimals)

    def encode(self, crystals: Crystals) -> list[str]:
        """The text of each of B crystals; ValueError naming the first that cannot be written."""
        batch = sites.projected(sites.writable(crystals))
        counts = [in_order(row) for row in element_counts(batch)]
        return [self._written(batch, i, counts[i]) for i in range(len(batch))]

    def decode(self, tokens: Sequence[str]) -> Decoded:
        """The crystals that B texts describe; a bad text makes only its own row not ok.

        Sites may be in any order; empty lines are ignored.
        """
        decimals = (self.coordinate_decimals, self.length_decimals, self.angle_decimals)
        rounding = Rounding(*(10.0**-n for n in decimals)) if self.consistent else None
        return sites.decoded(tokens, self._read, rounding)

    @abstractmethod
    def _written(self, batch: Crystals, i: int, counts: dict[int, int]) -> str:
        """The text of crystal i; `counts`: atoms of each element in the conventional cell."""

    @abstractmethod
    def _read(self, text: str) -> ReadText:
        """Parse a text line by line; ValueError with the reason if it is invalid."""
