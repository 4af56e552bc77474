"""Supervised fine-tuning of a language model on any prompts and completions.

    python experiments/llm_sft.py small

`small` makes a new model of a million parameters and its tokenizer, and teaches it to write
crystals of a given formula; about 6 minutes on two cores. Other prompts are possible, such as
--setup.texts.templates formula unconditional. `mix` is `small` with the tasks of PLaID++ (arXiv
2509.07150), drawn anew for every crystal in every epoch: name a hidden element, write any crystal,
or write one of given properties. These are formula, space group, formation energy, energy above
hull and band gap, if --setup.texts.crystals has them. The report has the rates of each task;
--setup.predictors judges energies and band gaps. Give --setup.texts.file FILE.jsonl for other
texts, and --setup.model.base FOLDER for a model of your own. Run it again with the same
--output to go on after an interruption. The model is in OUTPUT/model, which all scripts on
crystals take. If it learnt crystals from a file of texts, tell these scripts its format and
prompts: --setup.tokenization and --setup.templates.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.llm_setup import LlmSetup, TextsConfig, paper_setup
from crystaljax.experiment.main import run
from crystaljax.experiment.predictors import predicting
from crystaljax.experiment.sft import learn_texts
from crystaljax.text.loading import TextModelConfig
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.sft import SftConfig, adapter_tuning


@dataclass(frozen=True)
class Config:
    """Learn texts. Before and after, answer prompts that were held out."""

    setup: LlmSetup = field(
        default_factory=lambda: LlmSetup(
            model=TextModelConfig(cutting="symbols"), output=Path("runs/llm_sft")
        )
    )
    """Texts, model, folders."""
    sft: SftConfig = field(
        default_factory=lambda: SftConfig(
            n_epochs=12,
            batch_size=32,
            log_every=10,
            validate_every=100,
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=30, ema_decay=0.0),
        )
    )
    """The run."""


PRESETS = {
    "small": ("Two CPU cores, 6 minutes: a million parameters, from scratch.", Config()),
    "mix": (
        "Two CPU cores: as `small`, for infilling, any crystal, and some properties.",
        Config(
            setup=LlmSetup(
                texts=TextsConfig(
                    templates=("infilling", "unconditional", "properties"), redraw=True
                ),
                model=TextModelConfig(cutting="symbols"),
                output=Path("runs/llm_sft"),
            )
        ),
    ),
    "paper": (
        "One GPU: LoRA on Qwen2.5-7B with an NF4 base, and the tasks of PLaID++.",
        Config(
            setup=paper_setup("runs/llm_sft"),
            sft=SftConfig(
                n_epochs=10,
                batch_size=16,
                n_parts=4,
                optimizer=replace(adapter_tuning(), learning_rate=1e-5),
            ),
        ),
    ),
}


def main(config: Config) -> None:
    setup, vary = config.setup, ("result", "predictors")
    with (
        Experiment(config, setup.output, setup.tracking, "SFT", ".", vary=vary) as experiment,
        predicting(setup.predictors) as predict,
    ):
        learn_texts(experiment, setup, config.sft, predict=predict)


if __name__ == "__main__":
    run(main, PRESETS)
