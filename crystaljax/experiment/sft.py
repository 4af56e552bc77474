"""Supervised fine-tuning of language models in an experiment's folder, and its report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystaljax.data.rows import Dataset
from crystaljax.evaluation.adherence import Predict
from crystaljax.evaluation.report import Report, Table
from crystaljax.experiment.answers import Examiner, evaluations_of, shown
from crystaljax.experiment.experiment import Experiment, TrainingRun
from crystaljax.experiment.learnt import finish_learning
from crystaljax.experiment.llm_setup import LlmSetup, chats, record, weights_of, written_as
from crystaljax.experiment.texts import Texts, crystal_texts, plain, read_texts, sequences, writer
from crystaljax.policies.base import rows_without_error
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.text import TextPolicy
from crystaljax.text.loading import load_text_policy
from crystaljax.text.packing import TokenSequence
from crystaljax.training.optimizer import TrainState
from crystaljax.training.sft import SftConfig, sft

log = logging.getLogger(__name__)


class Lesson(NamedTuple):
    """A language model, and the examples that it is to learn and to be validated with."""

    policy: TextPolicy
    writer: TextPolicy | CrystalTextPolicy
    """The policy of crystals that it is, or itself if it writes no crystals."""
    train: Texts
    validation: Texts
    tokens: list[TokenSequence]
    """Of `train`."""
    validation_tokens: list[TokenSequence]
    """Of `validation`."""

    def learn(self, config: SftConfig, run: TrainingRun) -> TrainState:
        """The state after training, which goes on from the run's last checkpoint."""
        return sft(
            self.policy,
            self.tokens,
            self.validation_tokens,
            config,
            run.folder,
            run.log,
            run_id=run.run_id,
            n_drawn=1 + len(self.train.later),
        )


def make_lesson(
    setup: LlmSetup, n_epochs: int, data: tuple[Dataset, Dataset] | None = None
) -> Lesson:
    """The model and the examples of a setup.

    Args:
      n_epochs: epochs for which prompts are drawn, if they are drawn anew each epoch.
      data: crystals to learn and to validate with, instead of those of `setup.texts`.

    Errors: those of `texts.read_texts`, `load_text_policy` and `fitting`.
    """
    metadata, chat = written_as(setup, anew=True), chats(setup.model)
    if data is None:
        train, validation = read_texts(setup.texts, metadata, chat, n_epochs)
    else:
        train, validation = (crystal_texts(setup.texts, metadata, chat, some) for some in data)
    texts = [*plain(train), *plain(validation)]
    policy = load_text_policy(setup.model, texts, metadata.create_format())
    train, tokens = fitting(policy, train, "learn")
    validation, validation_tokens = fitting(policy, validation, "validate with")
    whole = writer(policy, metadata, train, tokens)
    return Lesson(policy, whole, train, validation, tokens, validation_tokens)


def learn_texts(
    experiment: Experiment,
    setup: LlmSetup,
    config: SftConfig,
    *,
    data: tuple[Dataset, Dataset] | None = None,
    predict: Predict | None = None,
) -> Path:
    """Teach a language model texts, have it answer prompts before and after, and report.

    Args:
      data: see `make_lesson`. A step has all crystals where there are fewer than the batch size.
      predict: properties of answers that were asked for some.

    Returns the model's folder. Errors: those of `make_lesson` and of `training.sft.sft`.
    """
    record(experiment, setup)
    lesson = make_lesson(setup, config.n_epochs, data)
    policy, whole = lesson.policy, lesson.writer
    if data is not None:
        config = config.fitting(len(lesson.train.examples))
    answers = {}
    if setup.n_samples:
        examine = Examiner(setup, whole, lesson.validation, predict)
        answers["before SFT"] = examine(policy.start, 0)
    params = weights_of(lesson.learn(config, experiment.main), setup, policy)
    if setup.n_samples:
        answers["after SFT"] = examine(params, 1)
    tables = [Table("Answers after SFT", shown(answers["after SFT"]))] if answers else []
    note = f"{config.length(len(lesson.train.examples), 'texts')}."
    return finish_learning(
        experiment,
        whole,
        params,
        Report("Supervised fine-tuning", evaluations_of(answers), (), tables, [note]),
        "−ln p of a token (nats)",
    )


def fitting(policy: TextPolicy, texts: Texts, name: str) -> tuple[Texts, list[TokenSequence]]:
    """Examples that a model can take, and their tokens; the others are counted, with a warning.

    A model cannot take what its tokenizer has no tokens for, such as an element, and what is longer
    than its context.

    name: what the examples are for, in messages.

    Returns the tokens in the order of `texts.sequences`. ValueError if none is left.
    """
    n, longest = len(texts.examples), policy.config.max_length
    reasons: list[str] = []
    tokens: dict[int, list[TokenSequence]] = {}  # of each example, in all epochs

    def tokenize(rows: np.ndarray) -> None:
        try:
            made = sequences(policy, texts.take(rows))
        except ValueError as error:
            reasons.append(str(error))
            raise
        tokens.update((row, made[i :: len(rows)]) for i, row in enumerate(rows.tolist()))

    written = rows_without_error(tokenize, np.arange(n)).tolist()
    kept = [row for row in written if all(len(x.tokens) <= longest for x in tokens[row])]
    if len(kept) < len(written):
        reasons.append(f"texts of more tokens than the model's context of {longest}")
    if len(kept) < n:
        said = f"of {n} examples to {name} the model cannot take {n - len(kept)}"
        if not kept:
            raise ValueError(f"{said} ({reasons[-1]}): give others, or another model")
        log.warning("%s, which are left out; one of them: %s", said, reasons[-1])
    of_epochs = zip(*(tokens[row] for row in kept), strict=True)
    return texts.take(np.array(kept, int)), [x for epoch in of_epochs for x in epoch]
