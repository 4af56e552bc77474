"""The report of the experiment on alloys: the paper's table 1, comparisons, candidates, figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from crystaljax import plots
from crystaljax.alloys.composition import master, read_candidate
from crystaljax.alloys.evaluation import figures, over_seeds
from crystaljax.alloys.evaluation.metrics import AlloyEvaluation, compare
from crystaljax.alloys.evaluation.published import published
from crystaljax.alloys.evaluation.table_one import table_one
from crystaljax.alloys.evaluation.tokens import (
    ALLOY_TOKENS,
    ElementTable,
    element_table,
    write_element_tables,
)
from crystaljax.alloys.reward import AlloyReward
from crystaljax.evaluation.report import Report, Table
from crystaljax.experiment.alloys import Run
from crystaljax.experiment.experiment import Experiment, summarize
from crystaljax.text.divergence import TokenDivergence, token_divergence
from crystaljax.tracking import read_metrics

SFT = "SFT"
N_SHOWN = 5
"""Number of best candidates in the table."""
N_DRAWN = 2
"""Number of best candidates with a figure of their phases."""
N_DIVERGENT = 100
"""Number of samples for the divergence by token."""


def finish(experiment: Experiment, judge: AlloyReward, runs: Sequence[Run]) -> Path:
    """Report tables and figures of all seeds; returns the page's path."""
    found = {
        label: [run.bench.evaluation(run.samples[label]) for run in runs]
        for label in runs[0].samples
    }
    table = table_one(found, SFT)
    table.write(experiment.folder)
    divergence = {label: differences(runs[0], label) for label in runs[0].params if label != SFT}
    drifted = drift(runs[0])
    write_element_tables(experiment.folder / "kl_elements.csv", drifted)
    best = best_candidates(runs)
    figures = {
        name: (figure, caption)
        for name, caption, figure in (
            *drawn(runs, found, divergence, judge, best),
            *compared(runs, found, drifted),
        )
    }
    tags = judge.family.tags
    tables = [
        table.table,
        *published(table, judge.family),
        *(
            compare(found[label][0], found[SFT][0]).table(
                f"{label} against SFT, seed {runs[0].bench.seed}"
            )
            for label in runs[0].params
            if label != SFT
        ),
        over_seeds.element_set_table(found, tags=tags),
        token_table(divergence),
        over_seeds.element_divergence_table(drifted),
        Table("Best candidates of all", best_rows(best)),
    ]
    for label, evaluations in found.items():
        for run, evaluation in zip(runs, evaluations, strict=True):
            summarize(experiment.main.tracker, f"{label} {run.bench.name}", evaluation)
    seeds = ", ".join(str(run.bench.seed) for run in runs)
    notes = [
        f"Seeds {seeds}; in the time below what was kept of former runs is not counted.",
        *found[SFT][0].context,
        *judge.limits,
    ]
    title = (
        f"Superalloys of {tags.matrix} and {tags.precipitate}: a language model taught by CALPHAD"
    )
    return experiment.finish(Report(title, {}, experiment.pictures(figures), tables, notes))


class Best(NamedTuple):
    """A candidate."""

    reward: float
    label: str
    text: str
    bound: float
    """The reward is at least this; nan of samples that were judged before it was told."""
    lacking: tuple[float, float]
    """Pairs and triples of its elements whose interaction the database lacks."""


def best_candidates(runs: Sequence[Run]) -> list[Best]:
    """The best candidates of all samples, each text once."""
    found: dict[str, Best] = {}
    for run in runs:
        for label, (texts, judged, _) in run.samples.items():
            unknown = np.full(len(judged), np.nan)
            bound, pairs, triples = (
                judged.info.get(name, unknown).tolist()
                for name in ("bound", "missing", "extrapolated")
            )
            for n in np.flatnonzero(judged.ok):
                one = Best(
                    float(judged.value[n]), label, texts[n], bound[n], (pairs[n], triples[n])
                )
                found.setdefault(texts[n], one)
    return sorted(found.values(), key=lambda one: (one.reward, one.text), reverse=True)[:N_SHOWN]


def best_rows(best: Sequence[Best]) -> list[list[str]]:
    """Rows of a table, their titles first."""
    titles = ["reward", "at least", "lacking pairs, triples", "found by", "candidate"]
    return [
        titles,
        *(
            [
                f"{one.reward:.2g}",
                f"{one.bound:.2g}" if np.isfinite(one.bound) else "–",
                ", ".join(f"{n:g}" for n in one.lacking) if np.isfinite(one.lacking).all() else "–",
                one.label,
                one.text,
            ]
            for one in best
        ),
    ]


def drift(run: Run) -> dict[str, ElementTable]:
    """KL(model ‖ SFT) of each model at the elements in SFT's samples (A.6 of the paper)."""
    sequences = run.bench.sequences(run.samples[SFT])[:N_DIVERGENT]
    return {
        label: element_table(
            token_divergence(run.bench.policy, params, run.params[SFT], sequences, ALLOY_TOKENS)
        )
        for label, params in run.params.items()
        if label != SFT
    }


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
    histogram = figures.reward_histogram(values, rules=judge.family.rules)
    yield "rewards", "Rewards before and after", histogram
    yield (
        "trade_off",
        "Candidates that keep all rules, and diversity",
        figures.reward_against_diversity(found, "all rules"),
    )
    yield "tokens", "KL(DPO ‖ SFT) in samples", figures.token_heat_map(divergence["DPO"])
    yield (
        "kl_elements",
        "KL(DPO ‖ SFT) by element",
        figures.element_heat_map(divergence["DPO"], judge.family.tags),
    )
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
        candidate, _ = read_candidate(one.text, judge.engine.elements, judge.family.tags)
        assert candidate is not None  # it was judged
        mixture = master(candidate, judge.config.mix_by, judge.family.lattice)
        table = judge.engine.equilibria([mixture], np.array(judge.config.temperatures))
        yield (
            f"phases_{n}",
            f"Phases of {one.text}",
            figures.phase_fractions(table, 0, one.text, judge.family),
        )


def compared(
    runs: Sequence[Run],
    found: Mapping[str, Sequence[AlloyEvaluation]],
    drifted: Mapping[str, ElementTable],
) -> Iterator[tuple[str, str, Figure]]:
    """The paper's figures 2 to 4, over seeds, and 11, of the first seed."""
    models = {label: found[label] for label in runs[0].params}
    yield "outcomes", "Win, draw and loss against SFT", over_seeds.outcome_bars(models, SFT)
    yield "rules", "Rules that are kept, against SFT", over_seeds.rule_change_bars(models, SFT)
    training = runs[0].bench.reference.elements
    shares = over_seeds.element_share_bars(models, training)
    yield "elements", "Candidates with each element", shares
    yield "kl_models", "KL(model ‖ SFT) in SFT's samples", over_seeds.divergence_map(drifted)
    if len(drifted) > 1:
        one, other, *_ = drifted
        bars = over_seeds.divergence_change_bars(drifted, one, other)
        yield "kl_change", f"KL of {one} less that of {other}, in SFT's samples", bars
