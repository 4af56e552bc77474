"""Samples of a language model: completions of prompts, with their log-probabilities.

    python experiments/llm_sft.py small && python experiments/llm_sample.py small

`small` asks the model of `llm_sft.py small` for crystals of formulas that were held out, once
freely and once under the grammar of their format; a minute on two cores. Give --setup.texts.file
FILE.jsonl for other prompts, and --pattern for a regular expression that completions have to match.
The completions are in OUTPUT/*.jsonl.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crystaljax.data.files import replacing
from crystaljax.evaluation.report import Report, Table
from crystaljax.experiment.answers import Answers, Examiner, evaluations_of, shown
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.llm_setup import (
    PAPER_BASE,
    PAPER_SAMPLING,
    LlmSetup,
    TextsConfig,
    chats,
    record,
    written_as,
)
from crystaljax.experiment.main import run
from crystaljax.experiment.predictors import predicting
from crystaljax.experiment.texts import read_texts, writer
from crystaljax.models.llm.token_grammar import TokenGrammar
from crystaljax.text.examples import Chat, Example
from crystaljax.text.grammar import from_regex
from crystaljax.text.loading import TextModelConfig, load_text_policy

SFT_MODEL = "runs/llm_sft/model"


@dataclass(frozen=True)
class Config:
    """Complete prompts, freely and under a grammar."""

    setup: LlmSetup = field(
        default_factory=lambda: LlmSetup(
            model=TextModelConfig(base=SFT_MODEL), output=Path("runs/llm_sample")
        )
    )
    """Prompts (those of the validation share), model, folders."""
    pattern: str = ""
    """Regular expression for completions. Empty: for crystals, that of their format."""


PRESETS = {
    "small": ("Two CPU cores, 1 minute: the model of `llm_sft.py small`.", Config()),
    "paper": (
        "One GPU: up to 10,000 answers of Qwen2.5-7B with an NF4 base. Give"
        " --setup.model.adapter of `llm_sft.py paper`.",
        Config(
            setup=LlmSetup(
                texts=TextsConfig(crystals="mp20-train", max_sites=20),
                model=TextModelConfig(base=PAPER_BASE, quantized="nf4", dtype="bfloat16"),
                generation=PAPER_SAMPLING,
                n_samples=10_000,
                output=Path("runs/llm_sample"),
            )
        ),
    ),
}


def main(config: Config) -> None:
    setup = config.setup
    with (
        Experiment(config, setup.output, setup.tracking, "samples") as experiment,
        predicting(setup.predictors) as predict,
    ):
        record(experiment, setup)
        metadata = written_as(setup)
        train, validation = read_texts(setup.texts, metadata, chats(setup.model))
        policy = load_text_policy(setup.model)
        examine = Examiner(setup, writer(policy, metadata, train), validation, predict)
        grammars: dict[str, bool | TokenGrammar] = {"free": False}
        if config.pattern:
            size = policy.config.vocabulary
            grammars["held to the grammar"] = from_regex(config.pattern, policy.tokenizer, size)
        elif train.crystals is not None:
            grammars["held to the grammar"] = True
        found, notes, files = {}, [], []
        for label, grammar in grammars.items():
            start = time.perf_counter()
            found[label] = examine(policy.start, 0, grammar)
            seconds = time.perf_counter() - start
            n_tokens = int(found[label].n_tokens.sum())
            notes.append(
                f"{label}: {len(found[label])} completions, {n_tokens} tokens,"
                f" {seconds:.0f} s with compilation."
            )
            files.append(experiment.folder / f"{label.replace(' ', '_')}.jsonl")
            write(examine.texts.examples, found[label], files[-1])
        tables = [Table(f"Some answers, {label}", shown(x)) for label, x in found.items()]
        evaluations = evaluations_of(found)
        report = Report("Samples of a language model", evaluations, (), tables, notes)
        experiment.finish(report, outputs=dict.fromkeys(files, "completions"))


def prompt_of(example: Example | Chat) -> str | list[dict[str, str]]:
    """All that comes before the completion: a text, or a list of messages."""
    return list(example.messages[:-1]) if isinstance(example, Chat) else example.prompt


def write(asked: Sequence[Example | Chat], answers: Answers, path: Path) -> None:
    """One JSON object a line: prompt, completion, what was asked for, ln p, what ended it."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for i, (example, text) in enumerate(zip(asked, answers.texts, strict=True)):
            line = {
                "prompt": prompt_of(example),
                "completion": text,
                "asked": answers.asked[i],
                "logp": float(answers.logp[i]),
                "tokens": int(answers.n_tokens[i]),
                "ended_by": str(answers.reason[i]),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    run(main, PRESETS)
