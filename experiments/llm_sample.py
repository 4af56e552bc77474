"""Samples of a language model: completions of prompts, with their log-probabilities.

    python experiments/llm_sft.py small && python experiments/llm_sample.py small

`small` asks the model of `llm_sft.py small` for crystals of formulas that it has not learnt, once
freely and once held to the grammar of their format; a minute on two cores. Give
--setup.texts.file FILE.jsonl for other prompts, and --pattern for a regular expression that
completions have to match. The completions are in OUTPUT/*.jsonl.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crystaljax.composition import element_counts, symbol
from crystaljax.data.files import replacing
from crystaljax.evaluation.report import Report, Table
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.main import run
from crystaljax.experiment.texts import (
    Answers,
    Examiner,
    LlmSetup,
    TextsConfig,
    chats,
    evaluations_of,
    plain,
    read_texts,
    record,
    shown,
)
from crystaljax.symmetry.tables import letter, tables
from crystaljax.text.generation import GenerationConfig, TokenGrammar
from crystaljax.text.grammar import from_regex
from crystaljax.text.loading import TextModelConfig, load_text_policy
from crystaljax.text.tokenizer import Tokenizer
from crystaljax.tokenizations.base import TextFormat

SFT_MODEL = "runs/llm_sft/model"


@dataclass(frozen=True)
class Config:
    """Complete prompts, freely and held to a grammar."""

    setup: LlmSetup = field(
        default_factory=lambda: LlmSetup(
            model=TextModelConfig(base=SFT_MODEL), output=Path("runs/llm_sample")
        )
    )
    """Prompts (those of the validation share), model, folders."""
    pattern: str = ""
    """Regular expression for completions; for crystals, that of their format if empty."""
    n_groups: int = 20
    """That is of so many space groups, the commonest of the training share."""


PRESETS = {
    "small": ("The model of `llm_sft.py small`; two CPU cores, a minute.", Config()),
    "paper": (
        "10,000 crystals of a model of 7-9 billion parameters: one GPU of 24 GB or more. Give"
        " --setup.model.base and --setup.model.adapter.",
        Config(
            setup=LlmSetup(
                texts=TextsConfig(crystals="mp20-train", template="crystal_of_formula"),
                model=TextModelConfig(quantized="int8", dtype="bfloat16"),
                generation=GenerationConfig(max_new_tokens=384, temperature=0.8),
                n_samples=10_000,
                output=Path("runs/llm_sample"),
            )
        ),
    ),
}


def main(config: Config) -> None:
    setup = config.setup
    with Experiment(config, setup.output, setup.tracking, "samples") as experiment:
        record(experiment, setup)
        train, validation = read_texts(setup.texts, chats(setup.model))
        policy = load_text_policy(setup.model)
        examine = Examiner(setup, policy, validation)
        pattern = config.pattern
        if not pattern and train.are_crystals:
            pattern = pattern_of(examine.format, plain(train), config.n_groups, policy.tokenizer)
        grammars: dict[str, TokenGrammar | None] = {"free": None}
        if pattern:
            vocabulary = policy.config.vocabulary
            grammars["held to the grammar"] = from_regex(pattern, policy.tokenizer, vocabulary)
        found, notes, files = {}, [], []
        for label, grammar in grammars.items():
            start = time.perf_counter()
            found[label] = examine(policy.start, 0, grammar)
            seconds = time.perf_counter() - start
            n_tokens = int(found[label].generation.length.sum())
            notes.append(
                f"{label}: {len(found[label].answers)} completions, {n_tokens} tokens,"
                f" {seconds:.0f} s with compilation."
            )
            files.append(experiment.folder / f"{label.replace(' ', '_')}.jsonl")
            write(found[label], files[-1])
        tables = [Table(f"Some answers, {label}", shown(x)) for label, x in found.items()]
        evaluations = evaluations_of(found)
        report = Report("Samples of a language model", evaluations, (), tables, notes)
        experiment.finish(report, outputs=dict.fromkeys(files, "completions"))


def pattern_of(format: TextFormat, texts: list[str], n_groups: int, tokenizer: Tokenizer) -> str:
    """Of the elements in some texts and the commonest space groups of those that are crystals.

    A tokenizer that was learnt from few texts may not know all letters: groups whose Wyckoff
    positions it cannot write are left out.
    """
    decoded = format.decode(texts)
    crystals = decoded.crystals[np.flatnonzero(decoded.ok)]
    known = {token for token in tokenizer.fast.get_vocab() if len(token) == 1}
    common = [group for group, _ in Counter(crystals.space_group.tolist()).most_common()]
    letters = [set(map(letter, range(1, tables().n_letters[g - 1] + 1))) for g in common]
    groups = [g for g, needed in zip(common, letters, strict=True) if needed <= known][:n_groups]
    present = np.flatnonzero(element_counts(crystals).sum(axis=0))
    return format.pattern(sorted(groups), [symbol(int(z)) for z in present])


def write(answers: Answers, path: Path) -> None:
    """One JSON object a line: the completion, what it was asked for, ln p, what ended it."""
    drawn = answers.generation
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for i, answer in enumerate(answers.answers):
            line = {
                **answer.fields,
                "completion": answer.text,
                "logp": float(drawn.logp_model[i].sum()),
                "tokens": int(drawn.length[i]),
                "ended_by": str(drawn.reason[i]),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    run(main, PRESETS)
