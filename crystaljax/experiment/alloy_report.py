"""The report of the experiment on alloys: the paper's table 1, comparisons, candidates, figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from crystaljax import plots
from crystaljax.alloys.composition import master, read_candidate
from crystaljax.alloys.evaluation import figures
from crystaljax.alloys.evaluation.metrics import AlloyEvaluation, compare
from crystaljax.alloys.evaluation.table_one import table_one
from crystaljax.alloys.evaluation.tokens import ALLOY_TOKENS
from crystaljax.alloys.reward import AlloyReward
from crystaljax.evaluation.report import Report, Table
from crystaljax.experiment.alloys import Run
from crystaljax.experiment.experiment import Experiment, summarize
from crystaljax.text.divergence import TokenDivergence, token_divergence
from crystaljax.tracking import read_metrics

SFT = "SFT"
N_SHOWN = 5
"""Best candidates that are listed."""
N_DRAWN = 2
"""Of which phases are drawn."""
N_DIVERGENT = 100
"""Samples whose tokens are looked at."""


def finish(experiment: Experiment, judge: AlloyReward, runs: Sequence[Run]) -> Path:
    """Report tables and figures of all seeds; returns the page's path."""
    found = {
        label: [run.bench.evaluation(run.samples[label]) for run in runs]
        for label in runs[0].samples
    }
    table = table_one(found, SFT)
    table.write(experiment.folder)
    divergence = {label: differences(runs[0], label) for label in runs[0].params if label != SFT}
    best = best_candidates(runs)
    figures = {
        name: (figure, caption)
        for name, caption, figure in drawn(runs, found, divergence, judge, best)
    }
    tables = [
        table.table,
        *(
            compare(found[label][0], found[SFT][0]).table(
                f"{label} against SFT, seed {runs[0].bench.seed}"
            )
            for label in runs[0].params
            if label != SFT
        ),
        element_sets(found),
        token_table(divergence),
        Table("Best candidates of all", [["reward", "found by", "candidate"], *best_rows(best)]),
    ]
    for label, evaluations in found.items():
        for run, evaluation in zip(runs, evaluations, strict=True):
            summarize(experiment.main.tracker, f"{label} {run.bench.name}", evaluation)
    seeds = ", ".join(str(run.bench.seed) for run in runs)
    notes = [
        f"Seeds {seeds}; in the time below what was kept of former runs is not counted.",
        *found[SFT][0].context,
    ]
    title = "Superalloys of BCC and B2: a language model taught by CALPHAD"
    return experiment.finish(Report(title, {}, experiment.pictures(figures), tables, notes))


class Best(NamedTuple):
    """A candidate."""

    reward: float
    label: str
    text: str


def best_candidates(runs: Sequence[Run]) -> list[Best]:
    """Of all samples, each text once."""
    found: dict[str, Best] = {}
    for run in runs:
        for label, samples in run.samples.items():
            for text, value, ok in zip(
                samples.texts, samples.judged.value, samples.judged.ok, strict=True
            ):
                if ok:
                    found.setdefault(text, Best(float(value), label, text))
    return sorted(found.values(), reverse=True)[:N_SHOWN]


def best_rows(best: Sequence[Best]) -> list[list[str]]:
    """Rows of a table."""
    return [[f"{one.reward:.2g}", one.label, one.text] for one in best]


def element_sets(found: Mapping[str, Sequence[AlloyEvaluation]]) -> Table:
    """The commonest sets of elements of the BCC, by label, first seed."""
    rows = [["", *(f"{n}." for n in range(1, 6))]]
    for label, (first, *_) in found.items():
        rows.append([label, *(f"{rate.name} {100 * rate.value:.0f} %" for rate in first.top_bcc)])
    width = max(map(len, rows))
    return Table(
        "Commonest sets of elements in the BCC, first seed",
        [[*row, *[""] * (width - len(row))] for row in rows],
    )


def differences(run: Run, label: str) -> TokenDivergence:
    """KL(model ‖ SFT) at the tokens of the model's samples."""
    sequences = run.bench.sequences(run.samples[label])[:N_DIVERGENT]
    return token_divergence(
        run.bench.policy, run.params[label], run.params[SFT], sequences, ALLOY_TOKENS
    )


def token_table(divergence: Mapping[str, TokenDivergence]) -> Table:
    """Nats of each kind of token."""
    parts = {label: {m.name: m.text for m in each.by_kind()} for label, each in divergence.items()}
    kinds = list(dict.fromkeys(kind for each in parts.values() for kind in each))
    rows = [["", *kinds]]
    rows += [[label, *(each.get(kind, "") for kind in kinds)] for label, each in parts.items()]
    return Table("KL(model ‖ SFT) of a text by kind of token, first seed", rows)


def drawn(
    runs: Sequence[Run],
    found: Mapping[str, Sequence[AlloyEvaluation]],
    divergence: Mapping[str, TokenDivergence],
    judge: AlloyReward,
    best: Sequence[Best],
) -> Iterator[tuple[str, str, Figure]]:
    """File name, caption and figure."""
    values = {
        label: np.concatenate([run.samples[label].judged.value for run in runs])
        for label in (SFT, "DPO", "GRPO")
    }
    yield "rewards", "Rewards before and after", figures.reward_histogram(values)
    yield (
        "trade_off",
        "Candidates that keep all rules, and diversity",
        figures.reward_against_diversity(found, "all rules"),
    )
    elements = {"training data": runs[0].bench.reference.elements}
    elements |= {label: found[label][0].elements for label in (SFT, "DPO", "GRPO")}
    yield "elements", "Candidates with each element", plots.element_bars(elements, of="candidates")
    yield "tokens", "KL(DPO ‖ SFT) in samples", figures.token_heat_map(divergence["DPO"])
    yield "kl_elements", "KL(DPO ‖ SFT) by element", figures.element_heat_map(divergence["DPO"])
    first = runs[0].bench.folder
    sft, dpo, grpo = (read_metrics(first / name) for name in ("SFT", "DPO", "GRPO"))
    curves: dict[str, tuple[Mapping[str, np.ndarray], str]] = {
        "loss": (
            {"training": sft["train/nll"], "validation": sft["validation/nll"]},
            "−ln p of a token (nats), SFT",
        ),
        "accuracy": (
            {"training": dpo["train/accuracy"], "validation": dpo["validation/accuracy"]},
            "share of pairs the right way round, DPO",
        ),
        "grpo": ({"reward": grpo["reward/mean"]}, "mean reward of rollouts, GRPO"),
    }
    for name, (series, label) in curves.items():
        yield name, label, plots.training_curves(series, label)
    for n, one in enumerate(best[:N_DRAWN], 1):
        candidate, _ = read_candidate(one.text, judge.engine.elements)
        assert candidate is not None  # it was judged
        mixture = master(candidate, judge.config.mix_by)
        table = judge.engine.equilibria([mixture], np.array(judge.config.temperatures))
        yield f"phases_{n}", f"Phases of {one.text}", figures.phase_fractions(table, 0, one.text)
