"""Questions about crystals, drawn at random from some prompt templates, to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from crystaljax.composition import symbol
from crystaljax.crystal import Crystals
from crystaljax.policies.text_metadata import ELEMENT, MASKED, is_infilling
from crystaljax.text.prompts import PromptTemplate
from crystaljax.tokenizations.masking import masked


class Question(NamedTuple):
    """A question about a crystal."""

    template: PromptTemplate
    """Its clauses are chosen."""
    masked: int = 0
    """Atomic number of the element that is asked for; 0 where the crystal is."""


def suited(templates: Sequence[PromptTemplate], row: Mapping[str, Any]) -> list[PromptTemplate]:
    """The templates for which a crystal with these prompt fields has all values."""
    return [
        template
        for template in templates
        if template.prompt_fields - {MASKED} <= row.keys()
        and len(_told(template, row)) >= template.n_clauses_min
    ]


def questions(
    crystals: Crystals,
    rows: Sequence[Mapping[str, Any]],
    templates: Sequence[Sequence[PromptTemplate]],
    seed: int,
    epoch: int,
) -> list[Question]:
    """A question about each of N crystals, the same for the same seed and epoch.

    Each is by one of the crystal's templates, all equally likely. Of clauses the number is drawn
    first, from the least to all of which the crystal has the values, and then which; the element
    to hide is any of the crystal's.

    Args:
      rows: values of prompt fields of each crystal.
      templates: those suited to each crystal.
    """
    species = np.asarray(crystals.species)
    most = max((len(x.clauses) for some in templates for x in some), default=0)
    which = np.random.default_rng([seed, 1_000_003, epoch])
    uniform = np.random.default_rng([seed, 1_000_033, epoch]).random((len(rows), 2 + most))
    found = []
    for i, some in enumerate(templates):
        template, (first, second, *others) = some[int(which.integers(len(some)))], uniform[i]
        told, least = _told(template, rows[i]), template.n_clauses_min
        n = least + int(first * (len(told) - least + 1))
        said = template.saying(told[j] for j in np.argsort(others[: len(told)])[:n])
        elements = np.unique(species[i][species[i] > 0]) if is_infilling(template) else [0]
        found.append(Question(said, int(elements[int(second * len(elements))])))
    return found


def infilling_fields(
    ways: Sequence[Callable[[Crystals], list[str]]],
    crystals: Crystals,
    epochs: Sequence[Sequence[Question]],
) -> dict[tuple[int, int], dict[str, str]]:
    """Values of the fields of infilling by (text, hidden element); each is written once.

    Args:
      ways: functions that write the texts: those of the K crystals one way, then another.
      crystals: [K]
      epochs: questions about each text.
    """
    pairs = sorted({(i, x.masked) for some in epochs for i, x in enumerate(some) if x.masked})
    found: dict[tuple[int, int], dict[str, str]] = {}
    for way, write in enumerate(ways):
        mine = [(i, z) for i, z in pairs if i // len(crystals) == way]
        if not mine:
            continue
        row, species = np.array(mine).T
        texts = masked(write, crystals[row % len(crystals)], species)
        found |= {
            pair: {MASKED: text, ELEMENT: symbol(pair[1])}
            for pair, text in zip(mine, texts, strict=True)
        }
    return found


def _told(template: PromptTemplate, row: Mapping[str, Any]) -> list[int]:
    """The clauses of which a crystal has all values."""
    return [i for i, names in enumerate(template.clause_fields) if names <= row.keys()]
