"""What to ask of a Wyckoff transformer's samples, and the arrays that stand for it."""

from __future__ import annotations

from dataclasses import dataclass

from crystaljax.conditions import Condition


@dataclass(frozen=True)
class SamplingConfig:
    """What to sample and how."""

    temperature: float = 1.0
    """Below 1 likelier crystals, above 1 more varied ones."""
    top_p: float = 1.0
    """Draw letters and elements only from the likeliest that make up this probability."""
    elements: tuple[str, ...] | None = None
    """Elements that may occur; all if not given."""
    required: tuple[str, ...] = ()
    """Elements that must occur."""
    space_groups: tuple[int, ...] | None = None
    """Space groups to draw from, as often as in the training data; all if not given."""
    template: tuple[str, ...] | None = None
    """Wyckoff letters of all sites, such as a a b; only groups that have them are drawn."""
    formula: str | None = None
    """Content of the primitive cell, such as Sr1Ti1O3."""
    max_candidates: int = 8
    """Candidates drawn for each sample, at most, where demands on elements, template or formula
    need some to choose from; samples whose weights still differ tell by their effective size."""
    batch_size: int = 256
    """Samples made at a time; the result does not depend on it."""

    @property
    def condition(self) -> Condition:
        """What is asked of every sample."""
        return Condition(
            formula=self.formula,
            formula_units=None if self.formula is None else 1,
            elements=self.elements,
            required=self.required,
            space_group=self.space_groups,
            template=self.template,
        )
