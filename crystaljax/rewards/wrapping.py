"""Base of rewards that are made of another reward."""

from __future__ import annotations

from typing import Any

from crystaljax.rewards.asked import takes_asked
from crystaljax.rewards.bounds import Quantity, quantity_of


class Wrapping:
    """A reward that measures what `reward` measures, and judges crystals by the same.

    A class that takes or gives something else overrides the property.
    """

    reward: Any

    @property
    def quantity(self) -> Quantity:
        """The reward's."""
        return quantity_of(self.reward)

    @property
    def takes_asked(self) -> bool:
        """The reward does."""
        return takes_asked(self.reward)
