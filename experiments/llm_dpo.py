"""Direct preference optimisation of a language model on pairs of completions.

    python experiments/llm_sft.py small && python experiments/llm_dpo.py small

`small` starts from the model of `llm_sft.py small`. It samples answers to the training prompts,
pairs answers nearer to the composition asked for with answers farther from it, and learns from the
pairs; about 4 minutes on two cores. For pairs of your own, give --pairs.file FILE.jsonl with
"prompt", "chosen" and "rejected" (texts, or lists of messages). Run it again with the same
--output to go on after an interruption. The result is in OUTPUT/model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from crystaljax import plots
from crystaljax.evaluation.report import Report, Table
from crystaljax.experiment.answers import Examiner, evaluations_of, shown
from crystaljax.experiment.curves import first_and_last
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.llm_setup import (
    LlmSetup,
    chats,
    paper_setup,
    record,
    weights_of,
    written_as,
)
from crystaljax.experiment.main import run
from crystaljax.experiment.predictors import predicting
from crystaljax.experiment.run_folder import remade
from crystaljax.experiment.texts import Texts, asked_of, read_texts, sequences, writer
from crystaljax.policies.base import Rollout
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.text import TextPolicy
from crystaljax.rewards.completions import composition_likeness
from crystaljax.text.examples import read_pairs
from crystaljax.text.loading import TextModelConfig, load_text_policy
from crystaljax.tracking import read_metrics
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.preference import preference_pairs
from crystaljax.training.text_preference import (
    TextPreferenceConfig,
    TokenPair,
    load_pairs,
    prefer_texts,
    save_pairs,
    split_pairs,
)
from crystaljax.validity import structure_valid

SFT_MODEL = "runs/llm_sft/model"


@dataclass(frozen=True)
class PairsConfig:
    """Pairs: a file of them, or samples of the model, judged as crystals."""

    file: Path | None = None
    """JSONL with "prompt", "chosen" and "rejected", texts or lists of messages. If the model has a
    chat template, it is used. Not given: pairs are made from samples."""
    n_prompts: int = 600
    """Number of training prompts to answer."""
    n_answers: int = 8
    """Answers to each prompt. Better ones are paired with worse ones."""
    validation: float = 0.1
    """Share of the prompts that is held out for validation."""
    min_gap: float = 0.25
    """Smallest difference between the scores of a pair: 1 is the composition asked for, 0 no
    crystal."""


@dataclass(frozen=True)
class Config:
    """Learn from pairs. Before and after, answer prompts that were held out."""

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


PAPER = paper_setup("runs/llm_dpo")

PRESETS = {
    "small": ("Two CPU cores, 4 minutes: goes on from `llm_sft.py small`.", Config()),
    "paper": (
        "One GPU: LoRA on Qwen2.5-7B with an NF4 base. Give --setup.model.adapter of"
        " `llm_sft.py paper`.",
        Config(
            setup=replace(PAPER, model=replace(PAPER.model, lora=None)),
            pairs=PairsConfig(n_prompts=5000),
            dpo=TextPreferenceConfig(beta=0.5, n_epochs=1, batch_size=32, n_parts=16),
        ),
    ),
}


def main(config: Config) -> None:
    setup = config.setup
    find = pairs_of_samples if config.pairs.file is None else pairs_of_file
    with (
        Experiment(
            config, setup.output, setup.tracking, "DPO", ".", vary=("result", "predictors")
        ) as experiment,
        predicting(setup.predictors) as predict,
    ):
        record(experiment, setup)
        experiment.use("pairs", config.pairs.file)
        policy = load_text_policy(setup.model)
        whole, pairs, asked = find(config, policy)
        rows, held_out = split_pairs(pairs, config.pairs.validation, setup.seed)
        examine = Examiner(setup, whole, asked(held_out), predict)
        before = examine(policy.start, 0)
        fit = experiment.main
        state = prefer_texts(
            policy,
            [pairs[i] for i in rows],
            [pairs[i] for i in held_out],
            config.dpo,
            fit.folder,
            fit.log,
            run_id=fit.run_id,
        )
        params = weights_of(state, setup, policy)
        after = examine(params, 1)
        model = experiment.folder / "model"
        with remade(model) as made:
            whole.save(made, params)
        metrics = read_metrics(experiment.folder)
        losses = {"training": metrics["train/loss"]}
        right = {name: metrics[f"{name}/accuracy"] for name in ("train", "validation")}
        figures = {
            "loss": (plots.training_curves(losses, "DPO loss"), "Loss"),
            "accuracy": (
                plots.training_curves(right, "share of pairs"),
                "Pairs the right way round",
            ),
        }
        names = ("train/loss", "train/accuracy", "train/margin", "validation/accuracy")
        report = Report(
            "Direct preference optimisation",
            evaluations_of({"before DPO": before, "after DPO": after}),
            experiment.pictures(figures),
            [
                first_and_last("The run", {name: metrics[name] for name in names}),
                Table("Answers after DPO", shown(after)),
            ],
            [
                f"{len(pairs)} pairs, β = {config.dpo.beta:g}, anchor {config.dpo.anchor:g},"
                f" {config.dpo.n_epochs} epochs."
            ],
        )
        experiment.finish(report, outputs={model: "model"})


Found = tuple[TextPolicy | CrystalTextPolicy, list[TokenPair], Callable[[np.ndarray], Texts]]
"""The policy, pairs, and what it is asked before and after, by the rows of the pairs held out."""


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

    whole = writer(policy, written_as(config.setup), None)
    return whole, [TokenPair(a, b) for a, b in zip(*tokens, strict=True)], asked


def pairs_of_samples(config: Config, policy: TextPolicy) -> Found:
    """New pairs, or those that an interrupted run has made; validation formulas are asked."""
    metadata = written_as(config.setup)
    train, validation = read_texts(config.setup.texts, metadata, chats(config.setup.model))
    whole = writer(policy, metadata, train)
    if train.crystals is None or not isinstance(whole, CrystalTextPolicy):
        raise ValueError("samples are judged as crystals only: give --pairs.file")
    kept = config.setup.output / "pairs.npz"
    if not kept.is_file():
        save_pairs(kept, sampled_pairs(config, whole, train))
    return whole, load_pairs(kept), lambda _: validation


def sampled_pairs(config: Config, policy: CrystalTextPolicy, train: Texts) -> list[TokenPair]:
    """Answers to training prompts, better ones beside worse ones to the same prompt."""
    seed, generation = config.setup.seed, config.setup.generation
    some = train.conditions[: config.pairs.n_prompts]
    rollout = policy.complete(policy.texts.start, some, seed, generation, config.pairs.n_answers)
    rng = np.random.default_rng(seed)
    rows = preference_pairs(worth(rollout), rollout.prompt, config.pairs.min_gap, rng)
    if not len(rows):
        raise ValueError(
            "the answers to each prompt are worth the same: sample more, or at another temperature"
        )
    texts = rollout.sequences.sequences
    return [TokenPair(texts[a], texts[b]) for a, b in rows]


def worth(rollout: Rollout) -> np.ndarray:
    """float64 [N], 0 to 1: likeness to the composition asked for, if any; 0 if not valid."""
    valid = np.flatnonzero(rollout.ok & structure_valid(rollout.crystals))
    found = np.zeros(len(rollout))
    found[valid] = 1
    contents = {i: rollout.conditions[i].content for i in valid.tolist()}
    asked = {i: content for i, content in contents.items() if content is not None}
    if asked:
        rows = np.array(list(asked))
        found[rows] = composition_likeness(rollout.crystals[rows], np.stack(list(asked.values())))
    return found


if __name__ == "__main__":
    run(main, PRESETS)
