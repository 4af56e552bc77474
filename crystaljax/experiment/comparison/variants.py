"""The variants that are compared: a tokenization, a way of cutting texts, an order of writing."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from crystaljax.experiment.run_results import chosen
from crystaljax.text.cutting import Cutting
from crystaljax.tokenizations.base import TextFormat
from crystaljax.tokenizations.registry import kind_of

Order = Literal["canonical", "augmented"]
"""Every crystal in its canonical description, or in a random equivalent one each time."""

HYBRID = "wyckoff"
"""The sequence of the Wyckoff transformer."""


@dataclass(frozen=True)
class Variant:
    """One line of the comparison."""

    tokenization: str
    """Specification of the tokenization; see `tokenizations.registry`."""
    cutting: Cutting | None = None
    """Cutting of texts into tokens; None for the hybrid sequence."""
    order: Order = "canonical"
    """Description in which crystals are written; see `Order`."""

    @property
    def is_text(self) -> bool:
        """A language model learns it."""
        return self.cutting is not None

    @property
    def label(self) -> str:
        """Label for tables, such as "cif, bpe, augmented"; usual settings are left out."""
        parts = [self.tokenization]
        parts += [self.cutting] if self.cutting == "bpe" else []
        parts += ["augmented"] if self.order == "augmented" else []
        return ", ".join(parts)

    @property
    def folder(self) -> str:
        """Name of the variant's folder."""
        parts = [self.tokenization, self.cutting or "hybrid", self.order]
        return "-".join(re.sub(r"[^\w.=-]+", "_", part).strip("_") for part in parts)


def variants_of(
    tokenizations: Sequence[str], cuttings: Sequence[Cutting], orders: Sequence[Order]
) -> list[Variant]:
    """All possible combinations, each once.

    A format without a vocabulary of its own is cut into symbols where "own" is asked for; the
    hybrid sequence is not cut at all. ValueError for an unknown tokenization, or none.
    """
    if not (tokenizations and cuttings and orders):
        raise ValueError("nothing to compare: name at least one tokenization, cutting and order")
    found = []
    for name, order in itertools.product(tokenizations, orders):
        if kind_of(name) == "hybrid":
            found.append(Variant(name, None, order))
        else:
            found += [Variant(name, cutting, order) for cutting in cuttings]
    return list(dict.fromkeys(found))


def settled(variant: Variant, format: TextFormat) -> Variant:
    """The variant, cut into symbols if the format has no vocabulary of its own."""
    if variant.cutting == "own" and not hasattr(format, "vocabulary"):
        return Variant(variant.tokenization, "symbols", variant.order)
    return variant


def selected(variants: Sequence[Variant], only: Sequence[str]) -> list[Variant]:
    """The variants whose labels are in `only`: see `run_results.chosen`."""
    labels = {variant.label: variant for variant in variants}
    return [labels[label] for label in chosen(labels, only)]
