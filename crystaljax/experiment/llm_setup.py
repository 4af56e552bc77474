"""Set-up of the experiments on language models: texts to learn, model, sampling, output."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from crystaljax.experiment.main import OF_THE_RUN
from crystaljax.experiment.predictors import PredictorsConfig
from crystaljax.models.llm.config import LoraConfig
from crystaljax.policies.loading import read_metadata
from crystaljax.policies.text import Params, TextPolicy
from crystaljax.policies.text_metadata import CRYSTALS_FILE, TextMetadata
from crystaljax.ranges import at_least, check
from crystaljax.text.generation import GenerationConfig
from crystaljax.text.loading import TextModelConfig, load_tokenizer
from crystaljax.text.prompts import load_template
from crystaljax.tokenizations.registry import DEFAULT_FORMAT
from crystaljax.tracking import TrackingConfig
from crystaljax.training.fit import best_weights
from crystaljax.training.optimizer import TrainState

if TYPE_CHECKING:
    from crystaljax.experiment.experiment import Experiment

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextsConfig:
    """Texts to learn: a file of examples, or crystals written as texts."""

    file: Path | None = None
    """JSONL with "prompt" and "completion", or with "messages". Not given: crystals. If the model
    has a chat template, prompts are messages of the user."""
    crystals: str = "prototypes"
    """Crystals to write as texts: a file, a folder or a registered dataset."""
    format: str = ""
    """Text format of crystals: wyckoff-text, plaid, cif, site-symmetry, wyckoff-bins, coordinates,
    p1-bins, or FILE.py:CLASS for one of your own; options follow after a colon, such as
    wyckoff-bins:coordinate_width=0.002. Empty: that of the model's folder, or else wyckoff-text."""
    augment: int = 0
    """Number of texts of each training crystal, in random equivalent descriptions. 0: one text, of
    the given description. Each validation crystal has one text, of the given description."""
    templates: tuple[str, ...] = ()
    """Prompt templates: shipped ones (formula, unconditional, space_group, properties, infilling,
    crystal_of_formula ...), or TOML files. Each example gets one at random. `properties` asks for
    some of the formula, the space group and properties of the data, and `infilling` for a hidden
    element. Empty: those of the model's folder, or else formula."""
    weights: tuple[int, ...] = ()
    """Shares of the templates, as whole numbers such as 2 1 1. Not given: all equal."""
    redraw: bool = False
    """Draw prompts (templates, properties, hidden elements) anew in each epoch, and not only
    once."""
    max_sites: int = 6
    """Crystals with more symmetry-distinct sites are left out."""
    validation: float = 0.1
    """Share of the examples that is held out for validation."""
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
    """Training texts."""
    model: TextModelConfig = field(default_factory=TextModelConfig)
    """Model to train."""
    generation: GenerationConfig = field(
        default_factory=lambda: GenerationConfig(max_new_tokens=160, temperature=0.8)
    )
    """Settings of sampling."""
    n_samples: int = 200
    """Number of prompts of the validation share that are answered in the evaluation."""
    predictors: PredictorsConfig = field(default_factory=PredictorsConfig)
    """Predictors that check samples with properties in their prompts."""
    metrics: tuple[str, ...] = ()
    """Further metrics of answers that are crystals: functions of your own as FILE.py:FUNCTION; see
    `EvaluationConfig`."""
    result: Literal["last", "best"] = "last"
    """Weights of the result: the last ones, or those of the lowest validation loss."""
    output: Annotated[Path, OF_THE_RUN] = Path("runs/llm")
    """Folder of the run and its report. A run with the same settings in it is continued."""
    seed: int = 0
    """Random seed for the evaluation samples."""
    tracking: Annotated[TrackingConfig, OF_THE_RUN] = field(default_factory=TrackingConfig)
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


def chats(model: TextModelConfig) -> bool:
    """The model has a chat template, which its prompts should follow."""
    return bool(model.base) and bool(load_tokenizer(model).fast.chat_template)


def weights_of(state: TrainState, setup: LlmSetup, policy: TextPolicy) -> Params:
    """The weights of a run that are taken."""
    if setup.result == "last":
        return state.averaged
    return policy.place(best_weights(setup.output, state.averaged, policy.identity)[0])
