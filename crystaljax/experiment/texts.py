"""Set-up of the experiments on language models: texts, a policy, a reward of answers."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.data.rows import Dataset
from crystaljax.experiment.predictors import PredictorsConfig
from crystaljax.models.llm.config import LoraConfig
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.loading import read_metadata
from crystaljax.policies.text import Params, TextPolicy
from crystaljax.policies.text_examples import Question, infilling_fields, questions, suited
from crystaljax.policies.text_metadata import CRYSTALS_FILE, MASKED, TextMetadata
from crystaljax.policies.text_prompts import OF_CRYSTALS, around, asking, crystal_fields
from crystaljax.ranges import at_least, check
from crystaljax.text.examples import Chat, Example, read_examples
from crystaljax.text.generation import GenerationConfig
from crystaljax.text.loading import TextModelConfig, load_tokenizer
from crystaljax.text.packing import TokenSequence
from crystaljax.text.prompts import load_template
from crystaljax.tokenizations.augmentation import augmented
from crystaljax.tokenizations.base import TextFormat
from crystaljax.tokenizations.registry import DEFAULT_FORMAT
from crystaljax.tracking import TrackingConfig
from crystaljax.training.fit import best_weights
from crystaljax.training.optimizer import TrainState
from crystaljax.training.text_task import Prompt

if TYPE_CHECKING:
    from crystaljax.experiment.experiment import Experiment

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextsConfig:
    """Texts to learn: a file of examples, or crystals written as texts."""

    file: Path | None = None
    """JSONL of "prompt" and "completion", or of "messages"; crystals if not given. A model that has
    a chat template is asked prompts through it too, as what the user says."""
    crystals: str = "prototypes"
    """Crystals to write as texts: a file, a folder or a registered dataset."""
    format: str = ""
    """Text format of crystals: wyckoff-text, plaid, cif, site-symmetry, wyckoff-bins, coordinates,
    p1-bins, or FILE.py:CLASS for one of your own; options follow after a colon, such as
    wyckoff-bins:coordinate_width=0.002. That of the model's folder if empty, or else
    wyckoff-text."""
    augment: int = 0
    """Texts of each crystal to learn, in as many random equivalent descriptions; if 0 one text, of
    the crystal as it is described. Crystals to validate with are written once, as they are."""
    templates: tuple[str, ...] = ()
    """Prompt templates, of which each example has one at random: shipped ones (formula,
    unconditional, space_group, properties, infilling, crystal_of_formula ...), or paths of TOML
    files; those of the model's folder if empty, or else formula. `properties` asks for some of the
    formula, the space group and properties of the data, `infilling` for a hidden element."""
    weights: tuple[int, ...] = ()
    """Shares of the templates, as whole numbers such as 2 1 1; all equal if not given."""
    redraw: bool = False
    """Draw prompts (templates, properties asked for, hidden elements) anew each epoch, not once."""
    max_sites: int = 6
    """Crystals with more symmetry-distinct sites are left out."""
    validation: float = 0.1
    """Share of the examples that is not learnt."""
    seed: int = 0
    """Random seed for the validation share and for random descriptions."""

    def __post_init__(self) -> None:
        check(self, augment=at_least(0))
        if self.weights and len(self.weights) != len(self.templates):
            raise ValueError(
                f"{len(self.weights)} weights of {len(self.templates)} templates: give one for each"
            )
        if self.weights and (min(self.weights) < 0 or not any(self.weights)):
            raise ValueError(f"weights {self.weights}: give whole numbers, not all of them 0")
        if self.file is not None and self.augment:
            raise ValueError("texts of a file cannot be augmented: give crystals, or --augment 0")


@dataclass(frozen=True)
class LlmSetup:
    """Data, policy and reward of an experiment."""

    texts: TextsConfig = field(default_factory=TextsConfig)
    """Texts that are learnt."""
    model: TextModelConfig = field(default_factory=TextModelConfig)
    """Model that learns them."""
    generation: GenerationConfig = field(
        default_factory=lambda: GenerationConfig(max_new_tokens=160, temperature=0.8)
    )
    """Settings of sampling."""
    n_samples: int = 200
    """Prompts of the validation share that fresh samples answer, one each."""
    predictors: PredictorsConfig = field(default_factory=PredictorsConfig)
    """Judges of samples that were asked for properties."""
    metrics: tuple[str, ...] = ()
    """Further metrics of answers that are crystals, functions of your own as FILE.py:FUNCTION; see
    `EvaluationConfig`."""
    result: Literal["last", "best"] = "last"
    """Weights of a run that are taken: the last, or those of the lowest validation loss."""
    output: Path = Path("runs/llm")
    """Folder of the run and its report. A run with the same settings in it is continued."""
    seed: int = 0
    """Random seed for the evaluation samples."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


PAPER_BASE = "Qwen/Qwen2.5-7B"
"""Model of PLaID++."""

PAPER_SAMPLING = GenerationConfig(max_new_tokens=500, temperature=0.7, top_p=0.9)
"""Settings of sampling of PLaID++, as in its code."""


def paper_setup(output: str) -> LlmSetup:
    """The mixture of PLaID++ (arXiv 2509.07150): LoRA on an NF4 base of 7 billion parameters.

    A third each infilling, any crystal, and crystals of one to five properties, of MP-20 in the
    paper's Wyckoff text.
    """
    return LlmSetup(
        texts=TextsConfig(
            crystals="mp20-train",
            format="plaid",
            templates=("crystal_infilling", "crystal", "crystal_of_properties"),
            redraw=True,
            max_sites=20,
        ),
        model=TextModelConfig(
            base=PAPER_BASE,
            lora=LoraConfig(rank=8, alpha=32.0, dropout=0.05),
            quantized="nf4",
            dtype="bfloat16",
            remat="all",
        ),
        generation=PAPER_SAMPLING,
        output=Path(output),
    )


def record(experiment: Experiment, setup: LlmSetup) -> None:
    """Put on record what an experiment starts from."""
    experiment.use("model", setup.model.base)
    experiment.use("adapter", setup.model.adapter)
    experiment.use("texts", setup.texts.file or setup.texts.crystals)
    experiment.use("hull", setup.predictors.potential and setup.predictors.hull)


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


def written_as(setup: LlmSetup, anew: bool = False) -> TextMetadata:
    """Format and templates: those of the set-up, else of the model's folder, else the defaults.

    anew: the model is to learn them, whatever it has learnt before.

    ValueError if the model in the folder writes in another format than the one asked for.
    """
    texts, model = setup.texts, setup.model
    folders = (Path(name) for name in (model.adapter, model.base) if name)
    folder = next((x for x in folders if (x / CRYSTALS_FILE).is_file()), None)
    if folder is None or (anew and texts.format):
        templates = texts.templates or ("formula",)
        found = TextMetadata.of(texts.format or DEFAULT_FORMAT, map(load_template, templates))
        return found
    found = read_metadata(folder, texts.format)
    if texts.templates:
        found = replace(found, templates=tuple(map(load_template, texts.templates)))
    return found


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
    policy: TextPolicy, metadata: TextMetadata, train: Texts | None, anew: bool = False
) -> TextPolicy | CrystalTextPolicy:
    """The policy of crystals that a language model is, or itself if it writes no crystals.

    Args:
      train: the training data, for models whose folder does not say what theirs was.
      anew: the model is to learn `train`.
    """
    if train is not None and train.crystals is not None and (anew or not metadata.is_known):
        longest = max(len(x.tokens) - x.n_prompt for x in sequences(policy, train))
        metadata = metadata.describing(train.crystals, train.rows, longest)
    elif anew or not metadata.is_known:
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


def chats(model: TextModelConfig) -> bool:
    """The model has a chat template, which its prompts should follow."""
    return bool(model.base) and bool(load_tokenizer(model).fast.chat_template)


def weights_of(state: TrainState, setup: LlmSetup, policy: TextPolicy) -> Params:
    """The weights of a run that are taken."""
    if setup.result == "last":
        return state.averaged
    return policy.place(best_weights(setup.output, state.averaged, policy.identity)[0])
