"""A text format as a user writes it, outside the package."""

FORMAT = '''
"""Wyckoff texts in one line."""
from dataclasses import dataclass

from crystaljax.tokenizations.text.wyckoff import WyckoffText


@dataclass(frozen=True)
class OneLine:
    mark: str = ";"
    coordinate_decimals: int = 4
    length_decimals: int = 3
    angle_decimals: int = 2

    @property
    def lines(self):
        return WyckoffText(self.coordinate_decimals, self.length_decimals, self.angle_decimals)

    def encode(self, crystals):
        return [text.replace("\\n", self.mark) for text in self.lines.encode(crystals)]

    def decode(self, tokens):
        return self.lines.decode([text.replace(self.mark, "\\n") for text in tokens])

    def pattern(self, space_groups=None, elements=None):
        return self.lines.pattern(space_groups, elements).replace("\\\\n", self.mark)
'''
