"""Conditions of a language model, met by its prompt, by a grammar, by a choice of candidates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from crystaljax.composition import symbol
from crystaljax.conditions import Condition
from crystaljax.models.llm.token_grammar import TokenGrammar
from crystaljax.policies.text_metadata import TextMetadata
from crystaljax.policies.text_prompts import CrystalPrompts, Request, around
from crystaljax.text.expressions import one_of
from crystaljax.text.grammar import from_regex
from crystaljax.text.tokenizer import Tokenizer
from crystaljax.tokenizations.base import TextFormat

N_GRAMMARS = 16
"""Grammars that are kept in memory."""

BY_CHOICE = frozenset({"required", "template"})
"""Fields of conditions that are met by a choice of candidates."""


class Held(NamedTuple):
    """Demands that a grammar enforces."""

    space_groups: tuple[int, ...] | None
    """Allowed space groups; all if None."""
    elements: tuple[str, ...] | None
    """Allowed elements; all if None."""
    around: tuple[str, str]
    """Texts before and after the crystal in completions."""


class Plan(NamedTuple):
    """Plan to meet a condition."""

    request: Request
    """The part that the prompt states."""
    held: Held | None
    """The part that a grammar enforces."""
    hard: Condition
    """The part of the condition that is guaranteed, by the grammar or the choice of candidates."""
    redrawn: bool
    """Candidates are drawn until `hard` is met."""


class TextConditions:
    """Plans for conditions, and grammars.

    See `crystal_text.CrystalTextPolicy` for what is met how.

    Args:
      n_vocabulary: of the model.

    ValueError for a template whose completion is not {text} with something fixed around it.
    """

    def __init__(
        self,
        format: TextFormat,
        metadata: TextMetadata,
        tokenizer: Tokenizer,
        n_vocabulary: int,
    ) -> None:
        self.format, self.tokenizer, self.n_vocabulary = format, tokenizer, n_vocabulary
        self.prompts = CrystalPrompts(metadata.generating, metadata.values)
        self._knows_groups = _knows(format, space_groups=[1])
        self._knows_elements = _knows(format, elements=["H"])
        groups = np.flatnonzero(metadata.space_group_counts) + 1
        elements = np.flatnonzero(metadata.element_counts)
        self._groups = tuple(groups.tolist()) or None
        self._elements = tuple(symbol(z) for z in elements.tolist()) or None
        self._grammars: dict[Held, TokenGrammar] = {}

    def plan(self, condition: Condition, grammar: bool) -> Plan:
        """Plan to meet a condition; `grammar` holds it to the format's grammar in any case.

        ValueError for what the policy cannot be asked.
        """
        groups, elements = condition.space_groups, condition.elements
        told = groups is not None and not self._knows_groups
        request = self.prompts.request(condition, frozenset({"space_group"} if told else ()))
        if not self._knows_groups or "space_group" in request.given:
            groups = None
        held = None
        if grammar or groups or (elements and self._knows_elements):
            held = Held(
                (groups or self._groups) if self._knows_groups else None,
                self._held_elements(condition) if self._knows_elements else None,
                around(request.template),
            )
        hard = Condition(
            elements=elements,
            required=condition.required,
            space_group=groups,
            template=condition.template,
        )
        chosen = BY_CHOICE if self._knows_elements else BY_CHOICE | {"elements"}
        return Plan(request, held, hard, bool(hard.asked & chosen))

    def grammar(self, held: Held) -> TokenGrammar:
        """The grammar of completions; the last ones are kept.

        Errors: see `text.grammar.from_regex`.
        """
        if held not in self._grammars:
            before, after = map(_literal, held.around)
            pattern = self.format.pattern(held.space_groups, held.elements)
            made = from_regex(f"{before}(?:{pattern}){after}", self.tokenizer, self.n_vocabulary)
            while len(self._grammars) >= N_GRAMMARS:
                del self._grammars[next(iter(self._grammars))]
            self._grammars[held] = made
        return self._grammars[held]

    def _held_elements(self, condition: Condition) -> tuple[str, ...] | None:
        """Elements that a grammar allows: those asked for, or of the training data."""
        if condition.elements is not None:
            return tuple(sorted(set(condition.elements)))
        if self._elements is None:
            return None
        content = condition.content
        named = () if content is None else (symbol(z) for z in np.flatnonzero(content).tolist())
        return tuple(sorted({*self._elements, *condition.required, *named}))


def _literal(text: str) -> str:
    """The expression for a text itself."""
    return one_of([text]) if text else ""


def _knows(format: TextFormat, **asked: Any) -> bool:
    """The format's pattern depends on what is asked; one that refuses to be asked knows nothing."""
    try:
        return format.pattern(**asked) != format.pattern()
    except ValueError:
        return False
