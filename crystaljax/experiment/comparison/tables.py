"""Tables and figures of a comparison, of all results so far."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from crystaljax import plots
from crystaljax.data.files import replacing
from crystaljax.evaluation.nll import Resolution
from crystaljax.evaluation.rates import Rate, pooled, standard_error
from crystaljax.evaluation.report import Table
from crystaljax.experiment.comparison.budget import BudgetConfig, Reached, reached
from crystaljax.experiment.comparison.runs import Run, Stage
from crystaljax.experiment.comparison.variants import Variant
from crystaljax.tracking import wandb_name

SUN = "metastable S.U.N."

RATES = (
    *("decoded", "valid structure", "valid composition", "unique", "novel", "keeps space group"),
    *("metastable", SUN, f"believable {SUN}"),
)
"""Rates in the table of samples; those of a second potential follow."""

DISTANCES = ("space group TV", "space group JS", "element TV", "element JS")
"""Distances of distributions from the training data."""


@dataclass(frozen=True)
class Results:
    """Results so far of some variants and seeds."""

    variants: Sequence[Variant]
    seeds: Sequence[int]
    found: Mapping[Run, Mapping[str, Any]]

    @staticmethod
    def read(output: Path, variants: Sequence[Variant], seeds: Sequence[int]) -> Results:
        """Results in the folder of a comparison."""
        stages: tuple[Stage, ...] = ("train", "free", "grammar", "dpo", "grpo")
        runs = [Run(v, stage, seed) for v in variants for stage in stages for seed in seeds]
        runs += [Run(variant, "ceiling", 0) for variant in variants]
        found = {run: run.result(output) for run in runs}
        return Results(variants, seeds, {k: x for k, x in found.items() if x is not None})

    def of(self, variant: Variant, stage: Stage) -> list[Mapping[str, Any]]:
        """Results of a variant in a stage, by seed."""
        seeds = [0] if stage == "ceiling" else self.seeds
        runs = [Run(variant, stage, seed) for seed in seeds]
        return [self.found[run] for run in runs if run in self.found]

    def rate(self, variant: Variant, stage: Stage, name: str) -> Rate | None:
        """A rate of all seeds together; None if there is none."""
        found = self.of(variant, stage)
        return pooled((metric for result in found for metric in result.get("metrics", ())), name)

    @property
    def judges(self) -> list[str]:
        """Names of the second judges of samples."""
        found = (m["name"] for result in self.found.values() for m in result.get("metrics", ()))
        matches = (re.fullmatch(r"metastable \((.+)\)", name) for name in found)
        return list(dict.fromkeys(match[1] for match in matches if match))

    def values(self, variant: Variant, stage: Stage, name: str) -> np.ndarray:
        """float64 [n]: a metric of each seed, or another number of the result."""
        found = []
        for result in self.of(variant, stage):
            value = result.get(name)
            if value is None:
                metric = self._metric(result, name)
                value = None if metric is None else metric["value"]
            if value is not None:
                found.append(float(value))
        return np.array(found)

    def sun_per_second(self, variant: Variant, stage: Stage) -> np.ndarray:
        """float64 [n]: metastable S.U.N. crystals for each CPU second of sampling, by seed."""
        shares, seconds = (
            self.values(variant, stage, name) for name in (SUN, "cpu_seconds_per_sample")
        )
        return shares / seconds if len(shares) == len(seconds) else np.empty(0)

    def reached(self) -> dict[tuple[Variant, int], Reached]:
        """Validation NLL of each training within three budgets, which are equal within a seed."""
        found: dict[tuple[Variant, int], Reached] = {}
        for seed in self.seeds:
            trained = {
                variant: self.found[run]
                for variant in self.variants
                if (run := Run(variant, "train", seed)) in self.found
            }
            found |= {(variant, seed): x for variant, x in reached(trained).items()}
        return found

    @property
    def headline(self) -> dict[str, float]:
        """Main results of a comparison of a single variant, for sweeps; {} if there are several
        variants."""
        if len(self.variants) != 1:
            return {}
        (variant,) = self.variants
        nll, rate = self.values(variant, "train", "nll"), self.rate(variant, "free", SUN)
        found = {"nll_per_crystal": float(nll.mean())} if len(nll) else {}
        return found if rate is None else found | {wandb_name("free", SUN): rate.value}

    @property
    def missing(self) -> list[str]:
        """Names of the training and evaluation runs that are not finished."""
        stages: tuple[Stage, ...] = ("train", "free", "grammar")
        runs = [Run(v, s, seed) for v in self.variants for s in stages for seed in self.seeds]
        wanted = [run for run in runs if run.variant.is_text or run.stage != "grammar"]
        return [run.name for run in wanted if run not in self.found]

    @staticmethod
    def _metric(result: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
        return next((m for m in result.get("metrics", ()) if m["name"] == name), None)


def training_table(results: Results) -> Table:
    """Size, cost and validation NLL within three budgets, of the variants that were trained."""
    reached_by = results.reached()
    rows = []
    for variant in results.variants:
        trained = results.of(variant, "train")
        if not trained:
            continue
        ceiling = results.rate(variant, "ceiling", "strict round trip")
        budgets = [reached_by[variant, s] for s in results.seeds if (variant, s) in reached_by]
        rows.append(
            [
                variant.label,
                *_sizes(trained),
                "–" if ceiling is None else f"{100 * ceiling.value:.1f} %",
                *(mean_text([getattr(b, name) for b in budgets], 2) for name in Reached._fields),
                mean_text(results.values(variant, "train", "epochs"), 1),
                mean_text(results.values(variant, "train", "crystals_per_second"), 0),
            ]
        )
    header = [
        *("", "tokens: mean", "95 %", "core", "all parameters", "learning rate", "round trip"),
        *("NLL, equal FLOPs", "equal crystals", "equal time", "epochs", "crystals/s"),
    ]
    caption = (
        "Validation NLL in nats per crystal at the common resolution, within equal FLOPs, and on"
        " the same runs' curves when equally many crystals were seen and after equal times"
    )
    return Table(caption, [header, *rows])


def _sizes(trained: Sequence[Mapping[str, Any]]) -> list[str]:
    first = trained[0]
    rates = ", ".join(dict.fromkeys(f"{result['learning_rate']:g}" for result in trained))
    tokens = [f"{first[name]:.0f}" for name in ("tokens_mean", "tokens_p95")]
    return [*tokens, str(first["non_embedding"]), str(first["parameters"]), rates]


def samples_table(results: Results, stage: Stage) -> Table:
    """Rates per attempt, distances from the data, and speed of sampling, of what was sampled."""
    names = [*RATES]
    for judge in results.judges:
        names += [f"{name} ({judge})" for name in ("metastable", SUN, f"believable {SUN}")]
    rows = []
    for variant in results.variants:
        if not results.of(variant, stage):
            continue
        rates = [results.rate(variant, stage, name) for name in names]
        rows.append(
            [
                variant.label,
                *("–" if rate is None else rate.text for rate in rates),
                *(mean_text(results.values(variant, stage, name), 3) for name in DISTANCES),
                mean_text(_speeds(results, variant, stage), 1),
                mean_text(results.sun_per_second(variant, stage), 3),
            ]
        )
    header = ["", *names, *DISTANCES, "crystals/s", f"{SUN} per CPU second"]
    how = {"free": "Samples drawn freely", "grammar": "Samples held to the grammar"}[stage]
    return Table(f"{how}: rates of all attempts, with standard errors", [header, *rows])


def _speeds(results: Results, variant: Variant, stage: Stage) -> np.ndarray:
    """Attempts per second of sampling, by seed."""
    return 1 / results.values(variant, stage, "seconds_per_sample")


def mean_text(values: Sequence[float] | np.ndarray, digits: int) -> str:
    """A mean over seeds, with its standard error where there are several."""
    finite = np.array([x for x in values if math.isfinite(x)])
    if not len(finite):
        return "–"
    error = standard_error(finite)
    plus_minus = f" ± {error:.{digits}f}" if math.isfinite(error) else ""
    return f"{finite.mean():.{digits}f}{plus_minus}"


def write_csv(results: Results, path: Path) -> None:
    """All numbers, a row each: variant, stage, seed, name, value, standard error, count, total."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        header = ["tokenization", "cutting", "order", "stage", "seed", "name", "value"]
        out.writerow([*header, "standard_error", "count", "total"])
        for run, result in results.found.items():
            variant = run.variant
            about = [variant.tokenization, variant.cutting or "", variant.order]
            about += [run.stage, str(run.seed)]
            for name, value in result.items():
                if isinstance(value, int | float):
                    out.writerow([*about, name, value, "", "", ""])
            for metric in result.get("metrics", ()):
                numbers = (metric.get(k) for k in ("value", "standard_error", "count", "total"))
                out.writerow([*about, metric["name"], *("" if x is None else x for x in numbers)])


def trade_off(results: Results) -> Figure:
    """NLL, and metastable S.U.N. crystals, against the tokens of a crystal."""
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    reached_by = results.reached()

    def nll(variant: Variant) -> tuple[float, float]:
        values = np.array(
            [reached_by[variant, s][0] for s in results.seeds if (variant, s) in reached_by]
        )
        error = standard_error(values) if len(values) > 1 else 0.0
        return (float(values.mean()), error) if len(values) else (math.nan, 0.0)

    def sun(variant: Variant) -> tuple[float, float]:
        rate = results.rate(variant, "free", SUN)
        return (math.nan, 0.0) if rate is None else (100 * rate.value, 100 * rate.standard_error)

    labels = ("validation NLL (nats per crystal)", f"{SUN} (% of attempts)")
    for axes, height, label in zip(panels, (nll, sun), labels, strict=True):
        _points(axes, results, height)
        axes.set_xlabel("tokens of a crystal")
        axes.set_ylabel(label)
    panels[1].set_ylim(bottom=min(0.0, panels[1].get_ylim()[0]))
    handles, names = panels[0].get_legend_handles_labels()  # of all that were trained
    if names:
        figure.legend(handles, names, loc="outside upper center", ncols=4)
    return figure


def _points(axes: Any, results: Results, height: Callable[[Variant], tuple[float, float]]) -> None:
    """A point with its error bar for each variant with results."""
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(LogFormatter(minor_thresholds=(3, 0.5)))
    axes.tick_params(axis="x", which="both", length=3, pad=4)
    axes.spines[["top", "right"]].set_visible(False)
    tokens = _trained_tokens(results)
    for i, variant in enumerate(tokens):
        value, error = height(variant)
        if math.isfinite(value):
            colour, marker, _ = plots.look(i + 1)  # as curves
            axes.errorbar(
                *(tokens[variant], value),
                yerr=error,
                fmt=marker,
                color=colour,
                capsize=2,
                label=variant.label,
            )


def _trained_tokens(results: Results) -> dict[Variant, float]:
    """Mean tokens of a crystal of the variants that were trained, in the order of the tables."""
    found = {variant: results.of(variant, "train") for variant in results.variants}
    return {variant: trained[0]["tokens_mean"] for variant, trained in found.items() if trained}


def learning_curves(results: Results, seed: int) -> Figure:
    """Validation NLL against floating-point operations, of a seed."""
    curves = {}
    for variant in results.variants:
        run = Run(variant, "train", seed)
        if run in results.found:
            result = results.found[run]
            points = np.array(result["curve"], float)
            curves[variant.label] = points * [result["flops_per_crystal"] / 1e12, 1.0]
    return plots.training_curves(
        curves, "validation NLL (nats per crystal)", "10¹² floating-point operations"
    )


def notes(results: Results, budget: BudgetConfig, resolution: Resolution) -> list[str]:
    """Notes for the report: definitions of the numbers, and unfinished runs."""
    widths = resolution.widths
    found = [
        f"Every training costs {budget.flops:.3g} floating-point operations: 6 for each parameter"
        " and token (look-up tables do not count, the last layer does), and those of attention."
        f" Steps have {budget.batch_size} crystals. Each variant has the best of the learning rates"
        f" {', '.join(f'{x:g}' for x in budget.learning_rates)}, by short trainings of"
        f" {100 * budget.search:g} % of that cost, and the weights of the lowest of"
        f" {budget.n_validations} validations.",
        "NLL is −ln p of one description of a crystal, in the same bins for all:"
        f" {widths['coordinate_width']:g} (fractional), {widths['length_width']:g} Å,"
        f" {widths['angle_width']:g}°. Densities of the hybrid sequence are integrated over these"
        " bins, and −ln of the frequency of its space group in training is added. Formats of all"
        " atoms (P1) have bins for all atoms of the Niggli-reduced cell, and a model must also"
        " predict their order and origin. plaid and cif repeat what follows from symmetry, and a"
        " model must learn this.",
        "Values at equal crystals and equal time are read from the curves of the same runs, before"
        " the learning rate has decayed.",
    ]
    if "augmented" in {run.variant.order for run in results.found}:
        found.append(
            "Augmented models spread their probability over all descriptions of a crystal. So their"
            " NLL of the canonical description is larger than that of the crystal."
        )
    if missing := results.missing:
        some = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        found.append(f"{len(missing)} runs are not finished: {some}")
    return found
