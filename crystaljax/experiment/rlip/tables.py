"""Tables of a study of RLIP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crystaljax.evaluation.rates import Rate
from crystaljax.evaluation.report import Table
from crystaljax.experiment.rlip.results import SUN, Line, over
from crystaljax.experiment.rlip.study import ExamConfig
from crystaljax.experiment.rlip.variants import FLAGSHIP
from crystaljax.experiment.run_results import read_tables
from crystaljax.tracking import wandb_name
from crystaljax.training.tiers import KINDS

METASTABLE_RATES = (f"metastable {SUN}", f"believable metastable {SUN}")
"""With all samples, and with those alone whose energies are believable."""

OF_GROUPS = ("S.S.U.N.", "believable S.S.U.N.", "space group met")
"""Rates of single space groups."""

RATES = (
    *("decoded", "valid structure", "valid composition", "unique", "novel"),
    *("stable", SUN, "metastable", *METASTABLE_RATES),
)
"""Of table 1."""

BY_OTHERS = ("stable", SUN, *METASTABLE_RATES)
"""Rates of table 1 that other judges have a say in."""

COLLAPSE = f"{SUN} / stable"


def text(rate: Rate | None) -> str:
    """A rate, or a dash."""
    return "–" if rate is None else rate.text


def rates_table(lines: Sequence[Line], per_valid: bool = False) -> Table:
    """Table 1: rates of fresh samples drawn freely, of all attempts or of those that are read.

    S.U.N. over stable tells collapse: stable samples that are copies of each other or of the
    training data.
    """
    others = [f"{name}{judge}" for judge in lines[0].judges for name in BY_OTHERS]
    names = [*RATES[per_valid:], *others]
    rows = []
    for line in lines:
        rates = [line.rate(name) for name in names]
        decoded = line.rate("decoded")
        if per_valid:
            rates = [over(rate, decoded, "crystals") for rate in rates]
        sun, stable = line.rate(SUN), line.rate("stable")
        row = [line.label, *map(text, rates), text(over(sun, stable, "stable samples"))]
        if not per_valid:
            many = line.rate(f"metastable {SUN}")
            row += [_per_minute(rate, line.seconds) for rate in (sun, many)]
        rows.append(row)
    header = ["", *names, COLLAPSE]
    if per_valid:
        caption = "Rates of the samples that are crystals"
    else:
        header += [f"{SUN} per minute", f"metastable {SUN} per minute"]
        caption = "Rates of all attempts, and discoveries per minute of sampling"
    return Table(f"{caption}, all seeds together", [header, *rows])


def _per_minute(rate: Rate | None, seconds: float) -> str:
    return "–" if rate is None else f"{60 * rate.value / seconds:.1f}"


def seeds_table(lines: Sequence[Line]) -> Table:
    """S.U.N., metastable S.U.N., and that of believable samples, of each seed."""
    names = (SUN, *METASTABLE_RATES)
    seeds = [arm.seed for arm in lines[0].arms]
    rows = [["", *(f"{name}, seed {seed}" for name in names for seed in seeds)]]
    for line in lines:
        values: list[str] = []
        for name in names:
            found = {
                arm.seed: next((m for m in x["metrics"] if m["name"] == name), None)
                for arm in line.arms
                if (x := arm.result(line.output)) is not None
            }
            values += [f"{100 * m['value']:.1f} %" if (m := found.get(s)) else "–" for s in seeds]
        rows.append([line.label, *values])
    return Table("Rates by seed", rows)


def groups_table(lines: Sequence[Line], which: str, groups: Sequence[int], name: str) -> Table:
    """A rate of each space group."""
    rows = [["", *map(str, groups)]]
    for line in lines:
        rates = line.groups(which, name)
        rows.append([line.label, *(map(text, rates) if rates else ["–"] * len(groups))])
    where = "that RLIP was asked for" if which == "groups" else "that RLIP was not asked for"
    return Table(f"{name} in space groups {where}", rows)


def iterations_table(lines: Sequence[Line]) -> Table:
    """Rates after each iteration, and the pairs it was made of (mean over the seeds)."""
    names = ("stable", SUN, *METASTABLE_RATES, "unique", "novel")
    kinds = [kind.replace("_", " > ") for kind in KINDS]  # preferred > rejected
    rows = [["", "iteration", "temperature", *kinds, *names, COLLAPSE]]
    for line in lines:
        if not line.iterations:
            continue
        curves = {name: line.curve(name) for name in names}
        for i, drawn in enumerate(zip(*line.iterations, strict=False)):
            pairs = [f"{np.mean([x.pairs_of[kind] for x in drawn]):.0f}" for kind in KINDS]
            after = {name: curve.get(i + 1) for name, curve in curves.items()}
            collapse = text(over(after[SUN], after["stable"], "stable samples"))
            rates = [text(after[name]) for name in names]
            label, number = line.label if not i else "", str(i + 1)
            rows.append([label, number, f"{drawn[0].temperature:g}", *pairs, *rates, collapse])
    return Table(
        "Iterations: pairs (preferred > rejected), and rates of fresh samples after each", rows
    )


def times_table(lines: Sequence[Line]) -> Table:
    """Minutes of learning by phase, and of sampling a thousand fresh crystals."""
    phases = list(dict.fromkeys(name for line in lines for name in line.phases))
    rows = [["", *phases, "all", "1,000 samples"]]
    for line in lines:
        minutes = [line.phases.get(name, 0.0) / 60 for name in phases]
        speed = 1000 * line.seconds / 60
        rows.append([line.label, *(f"{x:.2f}" for x in (*minutes, sum(minutes), speed))])
    return Table("Minutes of learning (evaluations apart), and of sampling", rows)


def resource_tables(lines: Sequence[Line]) -> list[Table]:
    """Memory and least hours of language models, each once."""
    return read_tables(table for line in lines for table in line.about["resources"])


def all_tables(lines: Sequence[Line], exam: ExamConfig) -> list[Table]:
    """All tables of lines that have results."""
    found = [rates_table(lines), rates_table(lines, per_valid=True)]
    if len(lines[0].arms) > 1:
        found.append(seeds_table(lines))
    for which in ("groups", "unseen_groups"):
        groups: tuple[int, ...] = getattr(exam, which)
        if groups:
            found += [groups_table(lines, which, groups, name) for name in OF_GROUPS]
    return [*found, iterations_table(lines), times_table(lines), *resource_tables(lines)]


def headline(lines: Sequence[Line]) -> dict[str, float]:
    """Rates of the flagship of the first model, for sweeps; {} without."""
    flagship = [line for line in lines if line.variant == FLAGSHIP][:1]
    names = (SUN, f"metastable {SUN}")
    rates = {name: line.rate(name) for line in flagship for name in names}
    return {wandb_name(name): rate.value for name, rate in rates.items() if rate is not None}
