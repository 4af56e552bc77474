"""Set-up of the experiments on language models: texts, a policy, a reward of answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from crystaljax.composition import formulas
from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.evaluation.rates import Rate
from crystaljax.models.llm.lora import LoraConfig
from crystaljax.policies.text import Params, TextPolicy
from crystaljax.ranges import at_least, check
from crystaljax.rewards.completions import Completion, read_completions
from crystaljax.text.engine import Generation
from crystaljax.text.examples import Chat, Example, read_examples
from crystaljax.text.generation import GenerationConfig, TokenGrammar
from crystaljax.text.loading import TextModelConfig, load_tokenizer
from crystaljax.text.packing import TokenSequence
from crystaljax.text.prompts import load_template
from crystaljax.tokenizations.augmentation import augmented
from crystaljax.tokenizations.base import TextFormat
from crystaljax.tokenizations.registry import DEFAULT_FORMAT, create_format
from crystaljax.tracking import TrackingConfig
from crystaljax.training.fit import best_weights
from crystaljax.training.optimizer import TrainState
from crystaljax.training.text_task import Prompt

if TYPE_CHECKING:
    from crystaljax.experiment.experiment import Experiment

SHOWN = 80
"""Characters of a prompt in a table."""


@dataclass(frozen=True)
class TextsConfig:
    """Texts to learn: a file of examples, or crystals written as texts."""

    file: Path | None = None
    """JSONL of "prompt" and "completion", or of "messages"; crystals if not given. A model that has
    a chat template is asked prompts through it too, as what the user says."""
    crystals: str = "prototypes"
    """Crystals to write as texts: a file, a folder or a registered dataset."""
    format: str = DEFAULT_FORMAT
    """Text format of crystals: wyckoff-text, plaid, cif, site-symmetry, wyckoff-bins, coordinates,
    p1-bins, or FILE.py:CLASS for one of your own; options follow after a colon, such as
    wyckoff-bins:coordinate_width=0.002."""
    augment: int = 0
    """Texts of each crystal to learn, in as many random equivalent descriptions; if 0 one text, of
    the crystal as it is described. Crystals to validate with are written once, as they are."""
    template: str = "formula"
    """Prompt template: a shipped one, or the path of a TOML file. Of those shipped,
    `crystal_of_formula` describes wyckoff-text, `formula` suits every format."""
    max_sites: int = 6
    """Crystals with more symmetry-distinct sites are left out."""
    validation: float = 0.1
    """Share of the examples that is not learnt."""
    seed: int = 0
    """Of the choice of that share, and of random descriptions."""

    def __post_init__(self) -> None:
        check(self, augment=at_least(0))
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
    result: Literal["last", "best"] = "last"
    """Weights of a run that are taken: the last, or those of the lowest validation loss."""
    output: Path = Path("runs/llm")
    """Folder of the run."""
    seed: int = 0
    """Of the samples."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""


def paper_setup(output: str) -> LlmSetup:
    """LoRA on a model of 7-9 billion parameters with an int8 base, taught MP-20."""
    return LlmSetup(
        texts=TextsConfig(crystals="mp20-train", template="crystal_of_formula"),
        model=TextModelConfig(
            lora=LoraConfig(rank=8, alpha=32.0), quantized="int8", dtype="bfloat16", remat="all"
        ),
        output=Path(output),
    )


def record(experiment: Experiment, setup: LlmSetup) -> None:
    """Put on record what an experiment starts from."""
    experiment.use("model", setup.model.base)
    experiment.use("adapter", setup.model.adapter)
    experiment.use("texts", setup.texts.file or setup.texts.crystals)


class Texts(NamedTuple):
    """Examples, and what their prompts were made from."""

    examples: list[Example | Chat]
    fields: list[dict[str, str]]
    """The formula of a crystal; the prompt of an example from a file."""

    def take(self, rows: np.ndarray) -> Texts:
        """Some of them."""
        return Texts([self.examples[i] for i in rows], [self.fields[i] for i in rows])

    @property
    def are_crystals(self) -> bool:
        """The completions are crystals."""
        return "formula" in self.fields[0]

    @staticmethod
    def given(examples: Sequence[Example | Chat]) -> Texts:
        """Examples from a file."""
        return Texts(list(examples), [{"prompt": example.asked} for example in examples])


def read_texts(config: TextsConfig, chat: bool) -> tuple[Texts, Texts]:
    """Examples to learn, and others to validate with; all as chats for models that chat."""
    if config.file is not None:
        texts = Texts.given(asked_of(read_examples(config.file), chat))
        train, validation = _split(config, len(texts.examples))
        return texts.take(train), texts.take(validation)
    crystals = load(config.crystals).crystals
    n_sites = np.asarray(crystals.n_sites)
    crystals = crystals[np.flatnonzero((n_sites > 0) & (n_sites <= config.max_sites))]
    train, validation = _split(config, len(crystals))
    return (
        crystal_texts(config, chat, crystals[train], config.augment),
        crystal_texts(config, chat, crystals[validation]),
    )


def _split(config: TextsConfig, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of n examples are learnt, and which are validated with; ValueError for too few."""
    order = np.random.default_rng(config.seed).permutation(n)
    n_validation = max(1, round(config.validation * n))
    if n <= n_validation:
        raise ValueError(f"{n} examples, and {n_validation} of them to validate with: give more")
    return order[n_validation:], order[:n_validation]


def crystal_texts(config: TextsConfig, chat: bool, crystals: Crystals, augment: int = 0) -> Texts:
    """Crystals as answers to their formulas, each in so many random descriptions, or as it is."""
    template, format = load_template(config.template), create_format(config.format)
    written = [
        augmented(format, crystals, np.random.default_rng([config.seed, i])) for i in range(augment)
    ] or [format.encode(crystals)]
    names = formulas(crystals)
    values = [
        {"formula": name, "text": text}
        for texts in written
        for name, text in zip(names, texts, strict=True)
    ]
    make = template.chat if chat else template.example
    asked = [{"formula": value["formula"]} for value in values]
    return Texts([make(value) for value in values], asked)


def asked_of(examples: Iterable[Example | Chat], chat: bool) -> list[Example | Chat]:
    """The examples as a model is asked them, one that chats by chats."""
    return [x.chat() if chat and isinstance(x, Example) else x for x in examples]


def plain(texts: Texts) -> list[str]:
    """Texts that a new tokenizer learns from."""
    parts = []
    for example in texts.examples:
        if isinstance(example, Chat):
            parts += [message["content"] for message in example.messages]
        else:
            parts += [example.prompt, example.completion]
    return parts


def sequences(policy: TextPolicy, texts: Texts) -> list[TokenSequence]:
    """Tokens of examples, to learn from."""
    tokenizer = policy.tokenizer
    found: list[TokenSequence | None] = [None] * len(texts.examples)
    chats = {i: x for i, x in enumerate(texts.examples) if isinstance(x, Chat)}
    plain = {i: x for i, x in enumerate(texts.examples) if isinstance(x, Example)}
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
    """Prompts of examples."""
    return [
        Prompt(sequence.tokens[: sequence.n_prompt], fields)
        for sequence, fields in zip(sequences(policy, texts), texts.fields, strict=True)
    ]


def chats(model: TextModelConfig) -> bool:
    """The model has a chat template, which its prompts should follow."""
    return bool(model.base) and bool(load_tokenizer(model).fast.chat_template)


def weights_of(state: TrainState, setup: LlmSetup, policy: TextPolicy) -> Params:
    """The weights of a run that are taken."""
    if setup.result == "last":
        return state.averaged
    return policy.place(best_weights(setup.output, state.averaged, policy.identity)[0])


class Answers(NamedTuple):
    """Fresh answers and what they are worth."""

    generation: Generation
    answers: list[Completion]
    evaluation: Evaluation | None
    """Of answers that should be crystals."""


class Examiner:
    """Asks a policy the prompts of some texts, the same to every policy.

    Args:
      known: crystals that do not count as new.
    """

    def __init__(self, setup: LlmSetup, policy: TextPolicy, texts: Texts) -> None:
        self.setup, self.policy = setup, policy
        self.prompts = prompts(policy, texts)[: setup.n_samples]
        self.format, self.reference = create_format(setup.texts.format), None
        if texts.are_crystals:
            crystals = load(setup.texts.crystals).crystals
            self.reference = Reference.of(crystals, setup.texts.crystals)

    def __call__(self, params: Params, stream: int, grammar: TokenGrammar | None = None) -> Answers:
        """Answers, one to each prompt; those of different streams are independent."""
        tokens = [prompt.tokens for prompt in self.prompts]
        seed = self.setup.seed + 1_000_001 + stream
        drawn = self.policy.sample(params, tokens, seed, self.setup.generation, grammar=grammar)
        answers = [
            Completion(prompt.fields, text, reason != "length")
            for prompt, text, reason in zip(self.prompts, drawn.text, drawn.reason, strict=True)
        ]
        evaluation = None
        if self.reference is not None:
            evaluation = evaluate_answers(answers, self.format, self.reference)
        return Answers(drawn, answers, evaluation)


def evaluate_answers(
    answers: Sequence[Completion], format: TextFormat, reference: Reference
) -> Evaluation:
    """Metrics of answers that should be crystals."""
    read = read_completions(answers, format)
    found = evaluate(read.crystals, reference, config=EvaluationConfig(progress=False))
    asked = Rate.of(
        "as asked",
        read.info["valid"] & read.info["as_asked"],
        "a valid structure with the composition asked for",
    )
    return replace(found, metrics=(asked, *found.metrics))


def evaluations_of(answers: Mapping[str, Answers]) -> dict[str, Evaluation]:
    """Those of answers that should be crystals, by label."""
    return {label: x.evaluation for label, x in answers.items() if x.evaluation is not None}


def shown(answers: Answers, n: int = 6) -> list[list[str]]:
    """Header and rows of a table of some answers."""
    rows = [["asked for", "answer", "ended by"]]
    for answer, reason in zip(answers.answers[:n], answers.generation.reason, strict=False):
        asked = ", ".join(answer.fields.values())[:SHOWN]
        rows.append([asked, " / ".join(answer.text.splitlines()), str(reason)])
    return rows
