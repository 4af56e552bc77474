"""Base of text formats that write only the parameters that symmetry leaves free."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crystaljax.crystal import Crystals
from crystaljax.text.expressions import one_of
from crystaljax.tokenizations.base import Decoded
from crystaljax.tokenizations.text import patterns, sites
from crystaljax.tokenizations.text.sites import Position, ReadText


@dataclass(frozen=True)
class IndependentText(ABC):
    """Base of formats that write only free numbers; lossless up to the decimals.

    Subclasses define the pattern, `_written` and `_read`.
    """

    coordinate_decimals: int = 4
    """Decimals of fractional coordinates."""
    length_decimals: int = 3
    """Decimals of a, b, c in Å."""
    angle_decimals: int = 2
    """Decimals of α, β, γ in degrees."""

    def __post_init__(self) -> None:
        sites.check_decimals(self.coordinate_decimals, self.length_decimals, self.angle_decimals)

    def encode(self, crystals: Crystals) -> list[str]:
        """The text of each of B crystals; ValueError naming the first that cannot be written."""
        batch = sites.writable(crystals)
        return [self._written(batch, i) for i in range(len(batch))]

    def decode(self, tokens: Sequence[str]) -> Decoded:
        """The crystals that B texts describe; a bad text makes only its own row not ok.

        Sites may be in any order and coordinates may be shifted by lattice translations; white
        space around lines and numbers is ignored.
        """
        return sites.decoded(tokens, self._read)

    @abstractmethod
    def _written(self, batch: Crystals, i: int) -> str:
        """The text of crystal i."""

    @staticmethod
    @abstractmethod
    def _read(text: str) -> ReadText:
        """Parse a text; ValueError with the reason if it is invalid."""

    def _parameters(self, batch: Crystals, i: int) -> list[str]:
        """Free lattice parameters of crystal i."""
        decimals = [self.length_decimals] * 3 + [self.angle_decimals] * 3
        parameters = batch.lattice[i].tolist()
        free = sites.free_parameters(int(batch.space_group[i]))
        return [f"{parameters[j]:.{decimals[j]}f}" for j in free]

    def _coordinates(self, position: Position, frac: Sequence[float]) -> list[str]:
        """Free coordinates of a site."""
        return [sites.coordinate(frac[j], self.coordinate_decimals) for j in position.free]

    def _lattice_pattern(self, group: int) -> str:
        """Regular expression for a space group's free lattice parameters."""
        forms = [patterns.length(self.length_decimals)] * 3
        forms += [patterns.angle(self.angle_decimals)] * 3
        return " ".join(forms[axis] for axis in sites.free_parameters(group))

    def _sites_pattern(self, positions: Mapping[str, Position]) -> str:
        """Regular expression for the name of one of the positions, and its free coordinates."""
        coordinate = f" {patterns.any_coordinate(self.coordinate_decimals)}"
        of_freedom: dict[int, list[str]] = {}
        for name, position in positions.items():
            of_freedom.setdefault(len(position.free), []).append(name)
        return "|".join(f"{one_of(x)}{coordinate * n}" for n, x in of_freedom.items())
