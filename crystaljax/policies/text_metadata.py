"""Description of a language model that writes crystals: crystals.json in its folder."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.composition import N_SPECIES, element_counts
from crystaljax.crystal import Crystals
from crystaljax.symmetry.tables import N_GROUPS
from crystaljax.text.prompts import PromptTemplate
from crystaljax.tokenizations.base import TextFormat
from crystaljax.tokenizations.registry import create_format, format_options, read_specification

CRYSTALS_FILE = "crystals.json"

MAX_VALUES = 20_000
"""Different sets of values of prompt fields that are kept of the training data, the commonest."""

ROOM = 1.25
"""Tokens of a crystal at most, as a multiple of those of the longest in the training data."""

DEFAULT_NEW_TOKENS = 512
"""Tokens of a crystal at most where no training data tells."""

ALWAYS = frozenset({"formula", "space_group"})
"""Fields whose values are kept whether or not a template has them."""

MASKED, ELEMENT = "masked", "element"
"""Fields of infilling: the text of a crystal in which an element is hidden, and its symbol."""

KIND = "crystal text"


def is_infilling(template: PromptTemplate) -> bool:
    """The template asks for the hidden element of a crystal, and not for a crystal."""
    return MASKED in template.prompt_fields


@dataclass(frozen=True)
class PromptValues:
    """Values of prompt fields of the training crystals; from them is drawn what is not asked."""

    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """[K] values by field, such as formula and space_group; a row is one set of values."""
    counts: Sequence[int] = ()
    """[K]: crystals that have them, in decreasing order."""

    @staticmethod
    def of(rows: Sequence[Mapping[str, Any]]) -> PromptValues:
        """Values of the prompt fields of some crystals; rows have the same fields."""
        if not rows:
            return PromptValues()
        names = list(rows[0])
        counter = Counter(tuple(row[name] for name in names) for row in rows)
        common = counter.most_common(MAX_VALUES)
        columns = {name: [values[i] for values, _ in common] for i, name in enumerate(names)}
        return PromptValues(columns, [n for _, n in common])


@dataclass(frozen=True)
class TextMetadata:
    """A language model's format and prompts of crystals, and the crystals it has learnt."""

    format: str
    """Name of the text format, or FILE.py:CLASS, without options."""
    templates: tuple[PromptTemplate, ...]
    """Prompt templates."""
    format_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the format."""
    max_new_tokens: int = DEFAULT_NEW_TOKENS
    """Tokens of a crystal at most, the end token included."""
    space_group_counts: Sequence[int] = (0,) * N_GROUPS
    """[230]: training crystals of each space group; all 0 if they are not known."""
    element_counts: Sequence[int] = (0,) * N_SPECIES
    """[119]: training crystals with the element of each atomic number; all 0 if not known."""
    values: PromptValues = field(default_factory=PromptValues)
    """Prompt fields of the training crystals."""
    base: str = ""
    """Folder or name of the model that adapters belong to."""
    vocabulary_digest: str = ""
    """Digest of the tokenizer's vocabulary; not checked if empty."""

    @staticmethod
    def of(specification: str, templates: Iterable[PromptTemplate]) -> TextMetadata:
        """Metadata without training data; errors as in `tokenizations.registry.create_format`."""
        name, _ = read_specification(specification)
        options = format_options(create_format(specification))
        return TextMetadata(name, tuple(templates), options)

    def describing(
        self, crystals: Crystals, rows: Sequence[Mapping[str, Any]], longest: int
    ) -> TextMetadata:
        """The same with what is to be known of the training data.

        Args:
          rows: values of prompt fields of each crystal; those that lack one that a template has
            are not drawn from.
          longest: tokens of the longest text, the end token included.
        """
        groups = np.bincount(np.asarray(crystals.space_group), minlength=N_GROUPS + 1)[1:]
        elements = (element_counts(crystals) > 0).sum(axis=0)
        names = ALWAYS.union(*(template.prompt_fields for template in self.generating))
        return dataclasses.replace(
            self,
            max_new_tokens=int(np.ceil(ROOM * longest)),
            space_group_counts=groups.tolist(),
            element_counts=elements.tolist(),
            values=PromptValues.of(
                [{name: row[name] for name in sorted(names)} for row in rows if names <= row.keys()]
            ),
        )

    @property
    def generating(self) -> tuple[PromptTemplate, ...]:
        """The templates that ask for crystals."""
        return tuple(one for one in self.templates if not is_infilling(one))

    @property
    def is_known(self) -> bool:
        """Whether the training data are known."""
        return any(self.space_group_counts)

    def create_format(self) -> TextFormat:
        """The text format; a user's file is run."""
        return create_format(self.format, **self.format_options)

    def write(self, folder: str | Path) -> None:
        """Write crystals.json in a folder."""
        templates = [template.content for template in self.templates]
        content = {"kind": KIND, **dataclasses.asdict(self), "templates": templates}
        path = Path(folder) / CRYSTALS_FILE
        path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def read(folder: str | Path) -> TextMetadata:
        """Read the metadata in a model's folder.

        FileNotFoundError if there is none, ValueError if it is of another version or damaged.
        """
        path = Path(folder) / CRYSTALS_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {CRYSTALS_FILE}, which says how it writes")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("kind") != KIND:
                raise ValueError("another kind of model")
            templates = tuple(PromptTemplate(**one) for one in content.pop("templates"))
            values = PromptValues(**content.pop("values"))
            found = TextMetadata(templates=templates, values=values, **content)
            found.check()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path} does not describe texts of crystals as this version does ({error!r}): the"
                " file is damaged, or from another version of crystaljax"
            ) from error
        return found

    def check(self) -> None:
        """ValueError for lists of wrong lengths."""
        lengths = {
            "space_group_counts": (len(self.space_group_counts), N_GROUPS),
            "element_counts": (len(self.element_counts), N_SPECIES),
        }
        n_values = len(self.values.counts)
        lengths |= {name: (len(x), n_values) for name, x in self.values.columns.items()}
        for name, (found, expected) in lengths.items():
            if found != expected:
                raise ValueError(f"{name} has {found} entries, not {expected}")
