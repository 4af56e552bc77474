"""Adherence to conditions: whether crystals are what they were asked to be, field by field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from crystaljax.conditions import Condition, unmet
from crystaljax.crystal import Crystals
from crystaljax.evaluation.rates import Measure, Rate
from crystaljax.evaluation.stability import found_space_group

Predict = Callable[[Crystals], Mapping[str, np.ndarray]]
"""Properties of B crystals by name, float64 [B] each, nan where there is none."""

SYMPREC = 0.01
"""Å: tolerance of the symmetry search."""

UNITS = {"band_gap": "eV", "e_above_hull": "eV/atom", "formation_energy_per_atom": "eV/atom"}
"""Units of properties that have one."""


def adherence(
    crystals: Crystals, conditions: Sequence[Condition], predict: Predict | None = None
) -> tuple[list[Rate | Measure], list[str]]:
    """Metrics of N samples by the field that they were asked for, and notes on them.

    Of formulas, and of space groups (of the full cell, as `found_space_group` finds it), the share
    of the samples asked for one that have it. Of a property the error of the predicted value, and
    its sign: the share of samples that are above what was asked for; a note names those properties
    that nothing predicts.

    Args:
      crystals: [N]; rows that are no crystal are all zero, and do not have what was asked.
      conditions: [N]
      predict: properties of crystals; called once, with those that were asked for any.
    """
    metrics: list[Rate | Measure] = []
    formula = np.array([x.formula is not None for x in conditions], bool)
    if formula.any():
        rows = np.flatnonzero(formula)
        asked = [replace(Condition(), formula=conditions[i].formula) for i in rows.tolist()]
        lacking = unmet(crystals[rows], asked)
        same = np.array([reason is None for reason in lacking], bool)
        text = "the composition is the one asked for"
        metrics.append(Rate.of("formula as asked", same, text, "samples asked for a formula"))
    group = np.array([x.space_groups is not None for x in conditions], bool)
    if group.any():
        rows = np.flatnonzero(group)
        found = found_space_group(crystals[rows], SYMPREC).tolist()
        wanted = [conditions[i].space_groups or () for i in rows.tolist()]
        same = np.array([one in some for one, some in zip(found, wanted, strict=True)], bool)
        text = f"the space group found at {SYMPREC:g} Å is the one asked for"
        metrics.append(
            Rate.of("space group as asked", same, text, "samples asked for a space group")
        )
    of_properties, notes = _properties(crystals, conditions, predict)
    return [*metrics, *of_properties], notes


def _properties(
    crystals: Crystals, conditions: Sequence[Condition], predict: Predict | None
) -> tuple[list[Rate | Measure], list[str]]:
    """Metrics of properties, and notes."""
    names = sorted(set().union(*(x.properties for x in conditions)))
    is_crystal = np.asarray(crystals.n_sites) > 0
    rows = np.array([i for i, x in enumerate(conditions) if x.properties and is_crystal[i]], int)
    predicted = predict(crystals[rows]) if names and predict is not None and len(rows) else {}
    metrics: list[Rate | Measure] = []
    unjudged = []
    for name in names:
        n_asked = sum(name in x.properties for x in conditions)
        if name not in predicted:
            unjudged.append(f"{name} ({n_asked} samples)")
            continue
        asked = np.array([conditions[i].properties.get(name, np.nan) for i in rows.tolist()])
        metrics += _errors(name, np.asarray(predicted[name], float) - asked, n_asked)
    notes = [f"not judged, for want of a predictor: {', '.join(unjudged)}"] if unjudged else []
    return metrics, notes


def _errors(name: str, error: np.ndarray, n_asked: int) -> list[Rate | Measure]:
    """Metrics of a property's errors; nan of samples that were not asked for it, or have none."""
    error, unit = error[np.isfinite(error)], UNITS.get(name, "")
    judged = f"samples asked for {name} that its predictor takes"
    less = f"{name} as predicted less what was asked for"
    return [
        Rate(
            f"{name} judged",
            len(error),
            n_asked,
            "the predictor gave a value",
            f"samples asked for {name}",
        ),
        Rate.of(f"{name} above what was asked", error > 0, f"{less} is positive", judged),
        Measure.mean(f"error of {name}", error, unit, less, denominator=judged),
        Measure.mean(
            f"absolute error of {name}", np.abs(error), unit, f"size of {less}", denominator=judged
        ),
    ]
