"""Direct preference optimisation of a language model on pairs of completions.

    python experiments/llm_sft.py small && python experiments/llm_dpo.py small

`small` goes on from what `llm_sft.py small` left: it samples answers to the training prompts, pairs
those nearer to the composition asked for with those farther from it, and learns from the pairs;
some 4 minutes on two cores. Give --pairs.file FILE.jsonl with "prompt", "chosen" and "rejected"
(texts, or lists of messages) for pairs of your own. Run it again with the same --setup.output to go
on after an interruption. The result is in OUTPUT/model.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
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
    Texts,
    asked_of,
    chats,
    evaluations_of,
    paper_setup,
    prompts,
    read_texts,
    sequences,
    shown,
    weights_of,
)
from crystaljax.hardware import hardware
from crystaljax.policies.text import TextPolicy
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.rewards.completions import FormulaReward
from crystaljax.runtime import prepare
from crystaljax.text.examples import read_pairs
from crystaljax.text.loading import TextModelConfig, load_text_policy
from crystaljax.tokenizations.registry import create_format
from crystaljax.tracking import Tracker, read_metrics
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.preference import preference_pairs
from crystaljax.training.rollouts import Clock
from crystaljax.training.text_preference import (
    TextPreferenceConfig,
    TokenPair,
    load_pairs,
    prefer_texts,
    save_pairs,
    split_pairs,
)
from crystaljax.training.text_task import TextTask

SFT_MODEL = "runs/llm_sft/model"


@dataclass(frozen=True)
class PairsConfig:
    """Pairs: a file of them, or samples of the model, judged as crystals."""

    file: Path | None = None
    """JSONL of "prompt", "chosen" and "rejected", texts or lists of messages; a model that has a
    chat template is asked through it. Pairs are made of samples if not given."""
    n_prompts: int = 600
    """Training prompts that are answered."""
    n_answers: int = 8
    """Answers to each; the better ones are paired with the worse ones."""
    validation: float = 0.1
    """Share of the prompts whose pairs are not learnt."""
    min_gap: float = 0.25
    """Least difference in worth of a pair: 1 for the composition asked for, 0 for no crystal."""


@dataclass(frozen=True)
class Config:
    """Learn from pairs, and answer prompts that were not learnt before and after."""

    setup: LlmSetup = field(
        default_factory=lambda: LlmSetup(
            model=TextModelConfig(base=SFT_MODEL), output=Path("runs/llm_dpo")
        )
    )
    """Texts, model, folders."""
    pairs: PairsConfig = field(default_factory=PairsConfig)
    """Origin of the pairs."""
    dpo: TextPreferenceConfig = field(
        default_factory=lambda: TextPreferenceConfig(
            anchor=1.0,  # without it both answers of a pair become unlikely
            n_epochs=2,
            batch_size=32,
            log_every=2,
            validate_every=5,
            optimizer=OptimizerConfig(
                learning_rate=1e-4, warmup_steps=5, weight_decay=0.0, ema_decay=0.0
            ),
        )
    )
    """The run."""


PRESETS = {
    "small": ("Goes on from `llm_sft.py small`; two CPU cores, 4 minutes.", Config()),
    "paper": (
        "LoRA on a model of 7-9 billion parameters, int8 base: one GPU of 24 GB or more. Give"
        " --setup.model.base, and --setup.model.adapter of `llm_sft.py paper`.",
        Config(
            setup=paper_setup("runs/llm_dpo"),
            pairs=PairsConfig(n_prompts=5000),
            dpo=TextPreferenceConfig(beta=0.5, n_epochs=1, batch_size=32, n_parts=16),
        ),
    ),
}


def main(config: Config) -> None:
    start = time.perf_counter()
    folder = open_run(config.setup.output, config, vary=("result",))
    policy = load_text_policy(config.setup.model)
    find = pairs_of_samples if config.pairs.file is None else pairs_of_file
    settings = dataclasses.asdict(config)
    with Tracker(folder, config.setup.tracking, settings, latest_step(folder)) as tracker:
        pairs, asked = find(config, policy)
        rows, held_out = split_pairs(pairs, config.pairs.validation, config.setup.seed)
        examine = Examiner(config.setup, policy, asked(held_out))
        before = examine(policy.start, 0)
        state = prefer_texts(
            policy,
            [pairs[i] for i in rows],
            [pairs[i] for i in held_out],
            config.dpo,
            folder,
            tracker.log,
            run_id=tracker.run_id,
        )
        params = weights_of(state, config.setup, policy)
        after = examine(params, 1)
        with remade(folder / "model") as made:
            policy.save(made, params)
        page = report(config, len(pairs), before, after, time.perf_counter() - start)
        tracker.log_artifact(folder / "model", "model", "model")
    Console().print(f"The report is in [bold]{page}[/bold], the model in {folder / 'model'}.")


Found = tuple[list[TokenPair], Callable[[np.ndarray], Texts]]
"""Pairs, and what the model is asked before and after, by the rows of the pairs held out."""


def pairs_of_file(config: Config, policy: TextPolicy) -> Found:
    """The pairs of the file; the prompts of those held out are asked."""
    assert config.pairs.file is not None
    chat = chats(config.setup.model)
    both = [asked_of(pair.examples(), chat) for pair in read_pairs(config.pairs.file)]
    chosen, rejected = (Texts.given(side) for side in zip(*both, strict=True))
    tokens = (sequences(policy, texts) for texts in (chosen, rejected))

    def asked(rows: np.ndarray) -> Texts:
        first = {chosen.examples[i].asked: i for i in reversed(rows.tolist())}
        return chosen.take(np.array(sorted(first.values())))

    return [TokenPair(a, b) for a, b in zip(*tokens, strict=True)], asked


def pairs_of_samples(config: Config, policy: TextPolicy) -> Found:
    """New pairs, or those that an interrupted run has made; validation formulas are asked."""
    train, validation = read_texts(config.setup.texts, chats(config.setup.model))
    if not train.are_crystals:
        raise ValueError("samples are judged as crystals only: give --pairs.file")
    kept = config.setup.output / "pairs.npz"
    if not kept.is_file():
        save_pairs(kept, sampled_pairs(config, policy, train))
    return load_pairs(kept), lambda _: validation


def sampled_pairs(config: Config, policy: TextPolicy, train: Texts) -> list[TokenPair]:
    """Answers to training prompts, better ones beside worse ones to the same prompt."""
    some = train.take(np.arange(min(config.pairs.n_prompts, len(train.examples))))
    bounds = RewardBounds(invalid=0.0, low=0.0, high=1.0)
    reward = FormulaReward(create_format(config.setup.texts.format))
    task = TextTask(policy, prompts(policy, some), reward, config.setup.generation, bounds)
    n = len(some.examples) * config.pairs.n_answers
    rollout = task.rollout(policy.start, n, config.setup.seed, Clock(), config.pairs.n_answers)
    rng = np.random.default_rng(config.setup.seed)
    rows = preference_pairs(rollout.reward, rollout.prompt, config.pairs.min_gap, rng)
    if not len(rows):
        raise ValueError(
            "the answers to each prompt are worth the same: sample more, or at another temperature"
        )
    return [TokenPair(rollout.samples[a], rollout.samples[b]) for a, b in rows]


def report(config: Config, n_pairs: int, before: Answers, after: Answers, seconds: float) -> Path:
    """Write the report and its pictures; returns the page's path."""
    folder = config.setup.output
    metrics = read_metrics(folder)
    figures = {
        "loss": ({"training": metrics["train/loss"]}, "DPO loss"),
        "accuracy": (
            {
                "training": metrics["train/accuracy"],
                "validation": metrics["validation/accuracy"],
            },
            "share of pairs the right way round",
        ),
    }
    pictures = [
        Picture(plots.save(plots.training_curves(curves, label), folder / f"{name}.png"), label)
        for name, (curves, label) in figures.items()
    ]
    rows = [["", "first", "last"]]
    for name in ("train/loss", "train/accuracy", "train/margin", "validation/accuracy"):
        first, last = metrics[name][[0, -1], 1]
        rows.append([name, f"{first:.3f}", f"{last:.3f}"])
    notes = [
        f"{n_pairs} pairs, β = {config.dpo.beta:g}, anchor {config.dpo.anchor:g},"
        f" {config.dpo.n_epochs} epochs;"
        f" {seconds:.0f} s on {hardware()}."
    ]
    result = Report(
        "Direct preference optimisation",
        evaluations_of({"before DPO": before, "after DPO": after}),
        pictures,
        [Table("The run", rows), Table("Answers after DPO", shown(after))],
        notes,
        {"seconds": seconds, "hardware": hardware()},
    )
    return result.write(folder)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    prepare()
    main(tyro.extras.overridable_config_cli(PRESETS))
