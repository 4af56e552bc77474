"""Prompts for models that were never taught alloys: zero-, one- and few-shot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crystaljax.alloys.baselines.endpoint import Messages
from crystaljax.text.prompts import load_template


@dataclass(frozen=True)
class ShotsConfig:
    """Settings of prompts with examples."""

    elements: tuple[str, ...] = ("Al", "Co", "Cr", "Ni")
    """Elements that it may use."""
    shots: int = 0
    """Examples in each prompt."""
    zero_shot: str = "alloy_zero_shot"
    """Template of prompts without examples, a name or a .toml file; its field is {elements}."""
    few_shot: str = "alloy_few_shot"
    """Template of prompts with examples; its fields are {elements} and {examples}."""
    seed: int = 0
    """Of the choice of examples."""


def shot_prompts(
    n: int, examples: Sequence[str] = (), config: ShotsConfig = ShotsConfig()
) -> list[Messages]:
    """n prompts, each with `config.shots` of the candidates `examples`, drawn anew for each.

    After figures 5 and 6 of arXiv 2511.12036, in words of our own. ValueError: fewer examples than
    are to be shown.
    """
    values: dict[str, object] = {"elements": ", ".join(config.elements)}
    if config.shots == 0:
        return [load_template(config.zero_shot).messages(values)] * n
    if not 0 < config.shots <= len(examples):
        raise ValueError(f"{config.shots} examples cannot be drawn from {len(examples)}")
    template = load_template(config.few_shot)
    rng = np.random.default_rng(config.seed)
    drawn = [rng.choice(len(examples), config.shots, replace=False) for _ in range(n)]
    return [
        template.messages({**values, "examples": "\n".join(examples[i] for i in rows)})
        for rows in drawn
    ]


def final_answer(text: str) -> str:
    """Final answer of a model that thinks aloud: the text from its last <BCC> on."""
    start = text.rfind("<BCC>")
    return text[start:] if start >= 0 else text
