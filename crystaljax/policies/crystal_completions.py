"""Completions of prompts that should be texts of crystals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crystaljax.policies.base import Typical
from crystaljax.policies.text_prompts import stripped
from crystaljax.text.batches import plan_like
from crystaljax.text.engine import bucket
from crystaljax.text.packing import RowPlan, TokenSequence, plan_completions
from crystaljax.text.prompts import PromptTemplate
from crystaljax.tokenizations.base import Decoded, TextFormat


@dataclass(frozen=True, eq=False)
class CrystalTexts:
    """N completions that should be crystals, with their prompts."""

    sequences: list[TokenSequence]
    """[N]: prompt and completion."""
    templates: list[PromptTemplate]
    """[N]: what they were asked by."""
    texts: list[str]
    """[N]: completions as texts."""
    reason: np.ndarray
    """str [N]: end of the completion: "end" token, "stop" string, "length"."""
    logp: np.ndarray
    """float64 [N]: of the completion, as it was sampled."""
    logp_model: np.ndarray
    """float64 [N]: of the completion, under the model itself."""
    max_new_tokens: int
    """Tokens of a completion at most."""

    @property
    def lengths(self) -> np.ndarray:
        """int [N]: tokens, with those of the prompt."""
        return np.array([len(x.tokens) for x in self.sequences], np.int64)

    @property
    def prompt_lengths(self) -> np.ndarray:
        """int [N]: tokens of the prompt."""
        return np.array([x.n_prompt for x in self.sequences], np.int64)

    @property
    def longest(self) -> int:
        """Tokens that completions of such prompts may have at most, with the prompt's (rounded)."""
        return bucket(int(self.prompt_lengths.max(initial=1))) + self.max_new_tokens

    def put(self, rows: np.ndarray, other: CrystalTexts, chosen: np.ndarray) -> None:
        """Put items `chosen` (int [n]) of another batch in `rows` (int [n])."""
        for row, i in zip(rows.tolist(), chosen.tolist(), strict=True):
            self.sequences[row], self.texts[row] = other.sequences[i], other.texts[i]
        for name in ("reason", "logp", "logp_model"):
            getattr(self, name)[rows] = getattr(other, name)[chosen]

    def decoded(self, format: TextFormat, rows: np.ndarray) -> Decoded:
        """The crystals of some rows (int [n]); what was cut off is none."""
        texts = [
            "" if self.reason[i] == "length" else stripped(self.texts[i], self.templates[i])
            for i in rows.tolist()
        ]
        decoded = format.decode(texts)
        for i, row in enumerate(rows.tolist()):
            if self.reason[row] == "length":
                decoded.reasons[i] = f"not ended after {self.max_new_tokens} tokens"
        return decoded


class CompletionRows:
    """Plans of the rows that completions are packed into, for a network and a number of devices."""

    def __init__(self, width: int, n_devices: int) -> None:
        self._sizes = width, n_devices
        self._plans: dict[tuple[int, int, Typical], RowPlan] = {}

    def like(self, texts: CrystalTexts, n: int, typical: Typical | None) -> RowPlan:
        """Rows for n texts like the typical ones, planned once; like all texts if not given."""
        if typical is None:
            return plan_like(texts.lengths, n, texts.longest, *self._sizes)
        key = n, texts.longest, typical
        if key not in self._plans:
            lengths = typical(n).sequences.lengths
            self._plans[key] = plan_like(lengths, n, texts.longest, *self._sizes)
        return self._plans[key]

    def any_length(self, texts: CrystalTexts, n: int) -> RowPlan:
        """Rows for n texts of any length that completions of the prompts may have."""
        shortest = int(texts.prompt_lengths.min(initial=texts.longest))
        return plan_completions(shortest, texts.longest, n, *self._sizes)
