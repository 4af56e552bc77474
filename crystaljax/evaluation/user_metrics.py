"""Metrics that users write as a function of the generated crystals, in files of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from crystaljax import user_code
from crystaljax.crystal import Crystals
from crystaljax.evaluation.rates import Measure, Metric, Rate

log = logging.getLogger(__name__)

UserMetric = Callable[[Crystals], Any]
"""From all N generated crystals (zero where a sample is none) to a `Rate` or `Measure`, or several;
each describes itself."""


def load_metrics(sources: Sequence[str]) -> dict[str, UserMetric]:
    """Functions by their source, each as FILE.py:FUNCTION.

    Files are run: load none that you do not trust. Errors: see `user_code.load_called`.
    """
    return {source: user_code.load_called(source, "crystals") for source in sources}


def measured(
    functions: dict[str, UserMetric], crystals: Crystals, taken: Collection[str]
) -> tuple[list[Metric], list[str]]:
    """Metrics of N generated crystals, and notes on functions that failed.

    A function that raises, or returns anything but metrics of names that are not `taken`, costs its
    own metrics, not the evaluation.
    """
    found: list[Metric] = []
    notes = []
    for source, function in functions.items():
        try:
            result = function(crystals)
            some = list(result) if isinstance(result, Sequence) else [result]
            _check(some, {*taken, *(metric.name for metric in found)})
        except Exception as error:  # noqa: BLE001 (users' code may raise anything)
            notes.append(f"{source} failed: {type(error).__name__}: {error}")
            log.warning("the metric %s", notes[-1])
            continue
        found += some
    return found, notes


def _check(metrics: list[Any], taken: set[str]) -> None:
    for metric in metrics:
        if not isinstance(metric, Rate | Measure):
            raise TypeError(f"it returned {type(metric).__name__}, not a Rate or a Measure")
        if metric.name in taken:
            raise ValueError(f"there is a metric {metric.name!r} already: give it another name")
        taken.add(metric.name)
