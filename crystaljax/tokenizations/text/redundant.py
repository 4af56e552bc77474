"""Texts that also state what follows from the rest: formulas, dependent coordinates and lengths."""

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

    A format of this kind adds a pattern, and `_written` and `_read`.
    """

    coordinate_decimals: int
    """Decimals of fractional coordinates."""
    length_decimals: int
    """Decimals of a, b, c in Å."""
    angle_decimals: int
    """Decimals of α, β, γ in degrees."""
    consistent: bool = False
    """A text that contradicts itself (in what it states of the contents, the space group's name,
    coordinates or lattice parameters that are not those of its space group and its sites) is no
    crystal, as CrystaLLM judges. By default the space group, the positions and the independent
    numbers say what the crystal is, and the rest is passed over, as PLaID++'s own reader does: so
    texts that repeat themselves are judged as those that do not."""

    def __post_init__(self) -> None:
        sites.check_decimals(self.coordinate_decimals, self.length_decimals, self.angle_decimals)

    def encode(self, crystals: Crystals) -> list[str]:
        """The text of each of B crystals; ValueError naming the first that cannot be written."""
        batch = sites.projected(sites.writable(crystals))
        counts = [in_order(row) for row in element_counts(batch)]
        return [self._written(batch, i, counts[i]) for i in range(len(batch))]

    def decode(self, tokens: Sequence[str]) -> Decoded:
        """The crystals that B texts describe; a bad text costs itself alone.

        Sites may stand in any order, and empty lines anywhere.
        """
        decimals = (self.coordinate_decimals, self.length_decimals, self.angle_decimals)
        rounding = Rounding(*(10.0**-n for n in decimals)) if self.consistent else None
        return sites.decoded(tokens, self._read, rounding)

    @abstractmethod
    def _written(self, batch: Crystals, i: int, counts: dict[int, int]) -> str:
        """The text of crystal i, of so many atoms of each element in the conventional cell."""

    @abstractmethod
    def _read(self, text: str) -> ReadText:
        """A text read line by line; ValueError saying why it cannot be."""
