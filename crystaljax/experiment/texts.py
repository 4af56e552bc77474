"""Texts to learn from: read from a file, or written of crystals, with prompts."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.data.rows import Dataset
from crystaljax.experiment.llm_setup import TextsConfig
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.text import TextPolicy
from crystaljax.policies.text_examples import Question, infilling_fields, questions, suited
from crystaljax.policies.text_metadata import MASKED, TextMetadata
from crystaljax.policies.text_prompts import OF_CRYSTALS, around, asking, crystal_fields
from crystaljax.text.examples import Chat, Example, read_examples
from crystaljax.text.packing import TokenSequence
from crystaljax.tokenizations.augmentation import augmented
from crystaljax.tokenizations.base import TextFormat
from crystaljax.training.text_task import Prompt

log = logging.getLogger(__name__)


class Texts(NamedTuple):
    """Examples, and what their prompts were made from."""

    examples: list[Example | Chat]
    asked: list[str]
    """The values in each prompt, for people to read."""
    crystals: Crystals | None = None
    """The crystal of each completion, if they are crystals."""
    rows: Sequence[dict[str, Any]] = ()
    """Values of prompt fields for each crystal."""
    questions: Sequence[Question] = ()
    """About each crystal."""
    later: Sequence[list[Example | Chat]] = ()
    """Examples about the same crystals in the epochs after the first, if they are drawn anew."""

    def take(self, rows: np.ndarray) -> Texts:
        """Some of them."""
        if self.crystals is None:
            return Texts([self.examples[i] for i in rows], [self.asked[i] for i in rows])
        return Texts(
            [self.examples[i] for i in rows],
            [self.asked[i] for i in rows],
            self.crystals[rows],
            [self.rows[i] for i in rows],
            [self.questions[i] for i in rows],
            [[examples[i] for i in rows] for examples in self.later],
        )

    @property
    def every(self) -> list[Example | Chat]:
        """The examples of all epochs, one after the other."""
        return [*self.examples, *itertools.chain(*self.later)]

    @property
    def generating(self) -> np.ndarray:
        """int [n]: those whose prompt asks for a crystal."""
        return np.array([i for i, one in enumerate(self.questions) if not one.masked], int)

    @property
    def conditions(self) -> list[Condition]:
        """The conditions that the prompts of `generating` ask for."""
        return [asking(self.questions[i].template, self.rows[i]) for i in self.generating.tolist()]

    @staticmethod
    def given(examples: Sequence[Example | Chat]) -> Texts:
        """Examples from a file."""
        return Texts(list(examples), [example.asked for example in examples])


def read_texts(
    config: TextsConfig, metadata: TextMetadata, chat: bool, n_epochs: int = 1
) -> tuple[Texts, Texts]:
    """Examples to learn, and others to validate with; all as chats for models that chat.

    n_epochs: for which prompts to learn are drawn, if they are to be drawn anew each epoch.
    """
    if config.file is not None:
        texts = Texts.given(asked_of(read_examples(config.file), chat))
        train, validation = _split(config, len(texts.examples))
        return texts.take(train), texts.take(validation)
    data = load(config.crystals)
    n_sites = np.asarray(data.crystals.n_sites)
    data = data[np.flatnonzero((n_sites > 0) & (n_sites <= config.max_sites))]
    train, validation = _split(config, len(data))
    return (
        crystal_texts(
            config,
            metadata,
            chat,
            data[train],
            config.augment,
            n_epochs if config.redraw else 1,
        ),
        crystal_texts(config, metadata, chat, data[validation]),
    )


def _split(config: TextsConfig, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of n examples are learnt, and which are validated with; ValueError for too few."""
    order = np.random.default_rng(config.seed).permutation(n)
    n_validation = max(1, round(config.validation * n))
    if n <= n_validation:
        raise ValueError(f"{n} examples, and {n_validation} of them to validate with: give more")
    return order[n_validation:], order[:n_validation]


def crystal_texts(
    config: TextsConfig,
    metadata: TextMetadata,
    chat: bool,
    data: Dataset,
    augment: int = 0,
    n_epochs: int = 1,
) -> Texts:
    """Crystals in answers to prompts, each in so many random descriptions, or as it is.

    Prompts of each epoch are drawn at random; see `policies.text_examples.questions`. Crystals for
    which no template has all values are left out, with a warning; ValueError if those are all,
    and for a template whose completion is not what it asks for.
    """
    for template in metadata.templates:
        around(template)
    weights = config.weights or (1,) * len(metadata.templates)
    weighted = [t for t, n in zip(metadata.templates, weights, strict=True) for _ in range(n)]
    rows = crystal_fields(data.crystals, data.properties)
    of_row = [suited(weighted, row) for row in rows]
    kept = np.array([i for i, templates in enumerate(of_row) if templates], int)
    if len(kept) < len(rows):
        fields = (names for t in weighted for names in (t.prompt_fields, *t.clause_fields))
        needed = ", ".join(sorted(set().union(*fields) - {MASKED}))
        message = f"of {len(rows)} crystals {len(rows) - len(kept)} lack what the prompts ask for"
        if not len(kept):
            raise ValueError(f"{message} ({needed}): give other templates or other data")
        log.warning("%s (%s), and are left out", message, needed)
    every, format = np.tile(kept, max(augment, 1)), metadata.create_format()
    crystals, found = data.crystals[every], [rows[i] for i in every]
    ways: list[Callable[[Crystals], list[str]]] = [
        partial(_augmented, format, (config.seed, i)) for i in range(augment)
    ] or [format.encode]
    texts = [text for write in ways for text in write(data.crystals[kept])]
    templates = [of_row[i] for i in every]
    epochs = [
        questions(crystals, found, templates, config.seed, epoch) for epoch in range(n_epochs)
    ]
    hidden = infilling_fields(ways, data.crystals[kept], epochs)
    first, *later = (
        [
            (x.template.chat if chat else x.template.example)(
                {**row, "text": text, **hidden.get((i, x.masked), {})}
            )
            for i, (x, row, text) in enumerate(zip(some, found, texts, strict=True))
        ]
        for some in epochs
    )
    asked = [
        _shown(question, row | hidden.get((i, question.masked), {}))
        for i, (question, row) in enumerate(zip(epochs[0], found, strict=True))
    ]
    return Texts(first, asked, crystals, found, epochs[0], later)


def _augmented(format: TextFormat, seed: Sequence[int], crystals: Crystals) -> list[str]:
    """Texts of random descriptions, the same whenever asked for."""
    return augmented(format, crystals, np.random.default_rng(seed))


def _shown(question: Question, values: Mapping[str, Any]) -> str:
    """The values in a prompt, for people to read."""
    shown = []
    for name in sorted(question.template.prompt_fields):
        value = values[name]
        text = f"{value:g}" if isinstance(value, float) else " / ".join(str(value).splitlines())
        shown.append(text if name in (*OF_CRYSTALS, MASKED) else f"{name} {text}")
    return ", ".join(shown) or "anything"


def writer(
    policy: TextPolicy,
    metadata: TextMetadata,
    train: Texts | None,
    learnt: Sequence[TokenSequence] | None = None,
) -> TextPolicy | CrystalTextPolicy:
    """The policy of crystals that a language model is, or itself if it writes no crystals.

    Args:
      train: the training data, for models whose folder does not say what theirs was.
      learnt: the tokens of `train`, if the model is to learn them.
    """
    anew = learnt is not None or not metadata.is_known
    if train is not None and train.crystals is not None and anew:
        tokens = sequences(policy, train) if learnt is None else learnt
        longest = max(len(x.tokens) - x.n_prompt for x in tokens)
        metadata = metadata.describing(train.crystals, train.rows, longest)
    elif anew:
        return policy
    return CrystalTextPolicy(policy, metadata)


def asked_of(examples: Iterable[Example | Chat], chat: bool) -> list[Example | Chat]:
    """The examples as a model is asked them, one that chats by chats."""
    return [x.chat() if chat and isinstance(x, Example) else x for x in examples]


def plain(texts: Texts) -> list[str]:
    """Texts that a new tokenizer learns from."""
    parts = []
    for example in texts.every:
        if isinstance(example, Chat):
            parts += [message["content"] for message in example.messages]
        else:
            parts += [example.prompt, example.completion]
    return parts


def sequences(policy: TextPolicy, texts: Texts) -> list[TokenSequence]:
    """Tokens of examples, to learn from; those of all epochs, one after the other."""
    tokenizer, examples = policy.tokenizer, texts.every
    found: list[TokenSequence | None] = [None] * len(examples)
    chats = {i: x for i, x in enumerate(examples) if isinstance(x, Chat)}
    plain = {i: x for i, x in enumerate(examples) if isinstance(x, Example)}
    if chats:
        made = tokenizer.chat_sequences([x.messages for x in chats.values()])
        for i, sequence in zip(chats, made, strict=True):
            found[i] = sequence
    asked = [x.prompt for x in plain.values()]
    made = tokenizer.sequences(asked, [x.completion for x in plain.values()])
    for i, sequence in zip(plain, made, strict=True):
        found[i] = sequence
    return [sequence for sequence in found if sequence is not None]


def prompts(policy: TextPolicy, texts: Texts) -> list[Prompt]:
    """Prompts of examples, those of the first epoch."""
    made = sequences(policy, texts._replace(later=()))
    return [
        Prompt(sequence.tokens[: sequence.n_prompt], {"prompt": asked})
        for sequence, asked in zip(made, texts.asked, strict=True)
    ]
