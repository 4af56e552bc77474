"""Supervised fine-tuning of a language model on any prompts and completions.

    python experiments/llm_sft.py small

`small` makes a model of a million parameters and its tokenizer from nothing, and teaches it to
write crystals of a given formula; some 6 minutes on two cores. Give --setup.texts.file FILE.jsonl
for other texts, and --setup.model.base FOLDER for a model of your own. Run it again with the same
--setup.output to go on after an interruption. The result is in OUTPUT/model.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console

from crystaljax import plots
from crystaljax.checkpoints import latest_step
from crystaljax.evaluation.report import Picture, Report, Table
from crystaljax.experiment.run_folder import open_run, remade
from crystaljax.experiment.texts import (
    Answers,
    Examiner,
    LlmSetup,
    chats,
    evaluations_of,
    paper_setup,
    plain,
    read_texts,
    sequences,
    shown,
    weights_of,
)
from crystaljax.hardware import hardware
from crystaljax.runtime import prepare
from crystaljax.text.loading import TextModelConfig, load_text_policy
from crystaljax.tokenizations.registry import create_format
from crystaljax.tracking import Tracker, read_metrics
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.sft import SftConfig, sft


@dataclass(frozen=True)
class Config:
    """Learn texts, and answer prompts that were not learnt before and after."""

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
    "small": ("A model of a million parameters from scratch; two CPU cores, 6 minutes.", Config()),
    "paper": (
        "LoRA on a model of 7-9 billion parameters, int8 base: one GPU of 24 GB or more. Give"
        " --setup.model.base.",
        Config(
            setup=paper_setup("runs/llm_sft"),
            sft=SftConfig(n_epochs=5, batch_size=64, n_parts=8),
        ),
    ),
}


def main(config: Config) -> None:
    start = time.perf_counter()
    folder = open_run(config.setup.output, config, vary=("result",))
    train, validation = read_texts(config.setup.texts, chats(config.setup.model))
    format = create_format(config.setup.texts.format)
    texts = [*plain(train), *plain(validation)]
    policy = load_text_policy(config.setup.model, texts, format)
    examine = Examiner(config.setup, policy, validation)
    settings = dataclasses.asdict(config)
    with Tracker(folder, config.setup.tracking, settings, latest_step(folder)) as tracker:
        before = examine(policy.start, 0)
        state = sft(
            policy,
            sequences(policy, train),
            sequences(policy, validation),
            config.sft,
            folder,
            tracker.log,
            run_id=tracker.run_id,
        )
        params = weights_of(state, config.setup, policy)
        after = examine(params, 1)
        with remade(folder / "model") as made:
            policy.save(made, params)
        page = report(config, before, after, time.perf_counter() - start)
        tracker.log_artifact(folder / "model", "model", "model")
    Console().print(f"The report is in [bold]{page}[/bold], the model in {folder / 'model'}.")


def report(config: Config, before: Answers, after: Answers, seconds: float) -> Path:
    """Write the report and its picture; returns the page's path."""
    folder = config.setup.output
    metrics = read_metrics(folder)
    curves = {"training": metrics["train/nll"], "validation": metrics["validation/nll"]}
    figure = plots.training_curves(curves, "−ln p of a token (nats)")
    picture = Picture(plots.save(figure, folder / "loss.png"), "Loss during fine-tuning")
    losses = {name: [f"{x:.3f}" for x in curve[[0, -1], 1]] for name, curve in curves.items()}
    rows = [["loss (nats by token)", "first", "last"], *([k, *v] for k, v in losses.items())]
    notes = [f"{config.sft.n_epochs} epochs; {seconds:.0f} s on {hardware()}."]
    result = Report(
        "Supervised fine-tuning",
        evaluations_of({"before SFT": before, "after SFT": after}),
        [picture],
        [Table("Loss", rows), Table("Answers after SFT", shown(after))],
        notes,
        {"seconds": seconds, "hardware": hardware()},
    )
    return result.write(folder)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    prepare()
    main(tyro.extras.overridable_config_cli(PRESETS))
