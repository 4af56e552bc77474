"""Prompts for models without training on alloys: zero-, one- and few-shot, or ranked examples."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from crystaljax.alloys.baselines.endpoint import Messages
from crystaljax.alloys.composition import TAGS, Tags
from crystaljax.alloys.family import Prompts
from crystaljax.alloys.journal import read_rewards
from crystaljax.rewards.base import RewardBatch
from crystaljax.text.prompts import load_template


@dataclass(frozen=True)
class ShotsConfig:
    """Settings of prompts with examples.

    Templates are names or .toml files. Their fields are {elements} and the examples of their kind.
    A template may have clauses with these, and with lists of known phases, {known_bcc} and
    {known_b2}.
    """

    elements: tuple[str, ...] = ("Al", "Co", "Cr", "Ni")
    """Elements that candidates may have."""
    shots: int = 0
    """Number of examples in each prompt. Ranked prompts have this number of good and of bad
    ones."""
    zero_shot: str = Prompts.zero_shot
    """Template of prompts without examples."""
    few_shot: str = Prompts.few_shot
    """Template of prompts with {examples}."""
    ranked_shots: str = Prompts.ranked_shots
    """Template of prompts with {good} and {bad} examples."""
    seed: int = 0
    """Random seed for the choice of examples."""

    @staticmethod
    def of(
        prompts: Prompts,
        elements: tuple[str, ...],
        shots: int = 0,
        seed: int = 0,
        *,
        plain: bool = False,
    ) -> ShotsConfig:
        """Settings with a family's templates; `plain`: those without the rules, as in the paper."""
        names = (prompts.zero_shot, prompts.few_shot, prompts.ranked_shots)
        return ShotsConfig(elements, shots, *((prompts.plain,) * 3 if plain else names), seed)


@dataclass(frozen=True)
class KnownPhases:
    """Lists of phases for prompts, as texts."""

    bcc: tuple[str, ...]
    b2: tuple[str, ...]


def shot_prompts(
    n: int,
    examples: Sequence[str] = (),
    config: ShotsConfig = ShotsConfig(),
    known: KnownPhases | None = None,
) -> list[Messages]:
    """n prompts, each with `config.shots` candidates that are drawn from `examples` for it.

    After figures 5 and 6 of arXiv 2511.12036, in words of our own. ValueError for too few examples,
    and for known phases without a clause in the template.
    """
    if config.shots == 0:
        return [_asked(config.zero_shot, config, known)] * n
    if not 0 < config.shots <= len(examples):
        raise ValueError(f"{config.shots} examples cannot be drawn from {len(examples)}")
    rng = np.random.default_rng(config.seed)
    drawn = [rng.choice(len(examples), config.shots, replace=False) for _ in range(n)]
    return [
        _asked(config.few_shot, config, known, examples=[examples[i] for i in rows])
        for rows in drawn
    ]


def ranked_prompts(
    n: int,
    texts: Sequence[str],
    rewards: RewardBatch,
    config: ShotsConfig = ShotsConfig(shots=10),
    known: KnownPhases | None = None,
) -> list[Messages]:
    """n equal prompts, with the best and the worst of a model's candidates by their rewards.

    Equal texts count once; texts that are no candidates or could not be judged are left out. The
    paper shows the 10 best and the 10 worst samples of SFT. ValueError for fewer candidates than
    twice `config.shots`, and as in `shot_prompts`.
    """
    first = {text: i for i, text in reversed([*enumerate(texts)]) if rewards.ok[i]}
    ranked = sorted(first, key=lambda text: (-rewards.value[first[text]], first[text]))
    shots = config.shots
    if not 0 < 2 * shots <= len(ranked):
        raise ValueError(
            f"{shots} good and {shots} bad examples cannot be taken from {len(ranked)} different"
            " candidates that were judged"
        )
    good, bad = ranked[:shots], ranked[: -shots - 1 : -1]
    return [_asked(config.ranked_shots, config, known, good=good, bad=bad)] * n


def _asked(
    template: str, config: ShotsConfig, known: KnownPhases | None, **examples: Sequence[str]
) -> Messages:
    """A prompt with the clauses whose values are given."""
    values: dict[str, object] = {name: "\n".join(texts) for name, texts in examples.items()}
    values["elements"] = ", ".join(config.elements)
    if known is not None:
        values |= {"known_bcc": ", ".join(known.bcc), "known_b2": ", ".join(known.b2)}
    loaded = load_template(template)
    chosen = [i for i, names in enumerate(loaded.clause_fields) if names <= values.keys()]
    used = loaded.prompt_fields.union(*(loaded.clause_fields[i] for i in chosen))
    if unused := values.keys() - used - {"elements"}:
        raise ValueError(
            f"the prompt template {template!r} has no place for {', '.join(sorted(unused))}"
        )
    return loaded.saying(chosen).messages(values)


def with_uuid(prompt: Messages, *key: int) -> Messages:
    """A prompt with a random identifier (UUID) at its end, the same for the same numbers.

    It makes answers vary of a model that repeats itself (A.1.3 of arXiv 2511.12036).
    """
    *before, last = prompt
    name = uuid.UUID(bytes=np.random.default_rng(key).bytes(16), version=4)
    return (*before, {**last, "content": f"{last['content']}\n{name}"})


def read_samples(path: str | PathLike[str]) -> tuple[list[str], RewardBatch]:
    """Texts and rewards of a model's samples, from the journal of a run (.jsonl).

    ValueError: the file has none.
    """
    try:
        lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        entries = [line for line in lines if "text" in line]
        if not entries:
            raise ValueError("no line has a text")
        return read_rewards(entries)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no journal of samples with rewards: {error!r}") from error


def final_answer(text: str, tags: Tags = TAGS) -> str:
    """Final answer of a model that writes its reasoning: the text from its last <BCC> on."""
    start = text.rfind(f"<{tags.matrix}>")
    return text[start:] if start >= 0 else text
