"""Numbers that carry their meaning: rates with their denominators, and other measures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from crystaljax.numbers import number_format

GENERATED = "generated samples"
"""The denominator of most rates: every sample asked of the model, failed ones too."""


@dataclass(frozen=True)
class Rate:
    """A share with its denominator: `count` of `total`."""

    name: str
    count: int
    total: int
    description: str
    """Title of what is counted, for a person to read."""
    denominator: str = GENERATED
    """The items that `total` counts."""
    reference: str = ""
    """The reference that items were compared with: a training set, a hull, a table."""
    runs: tuple[tuple[int, int], ...] = ()
    """Count and total of each of several runs, such as seeds, that the items are from."""

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.total:
            raise ValueError(f"the rate {self.name!r} counts {self.count} of {self.total}")

    @staticmethod
    def of(
        name: str,
        mask: np.ndarray,
        description: str,
        denominator: str = GENERATED,
        reference: str = "",
    ) -> Rate:
        """The rate of True in a mask [N]."""
        mask = np.asarray(mask, bool)
        return Rate(name, int(mask.sum()), mask.size, description, denominator, reference)

    @property
    def value(self) -> float:
        """The fraction, nan of nothing."""
        return self.count / self.total if self.total else math.nan

    @property
    def standard_error(self) -> float:
        """Half the width of the one-sigma Wilson interval, which does not vanish at 0 of n.

        Of several runs, the standard error over them where it is larger: runs differ by more than
        the number of their items explains.
        """
        low, high = self._wilson(1.0)
        return max((high - low) / 2, self._over_runs)

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """An interval of the true rate, within [0, 1], 95 % by default; nan of nothing.

        Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927)), or z standard
        errors over runs to either side of the rate where these are wider.
        """
        low, high = self._wilson(z)
        apart = z * self._over_runs
        if high - low < 2 * apart:
            low, high = self.value - apart, self.value + apart
        return max(0.0, low), min(1.0, high)

    @property
    def _over_runs(self) -> float:
        """Standard error of the mean over runs; 0 for a single one."""
        values = np.array([count / total for count, total in self.runs if total])
        return standard_error(values) if len(values) > 1 else 0.0

    def _wilson(self, z: float) -> tuple[float, float]:
        if not self.total:
            return math.nan, math.nan
        n, p = self.total, self.value
        center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        return center - half, center + half

    @property
    def text(self) -> str:
        """Like "12.3 ± 1.0 %"."""
        if not self.total:
            return "–"
        return f"{100 * self.value:.1f} ± {100 * self.standard_error:.1f} %"

    @property
    def fraction(self) -> str:
        """Like "123 / 1000"."""
        return f"{self.count} / {self.total}"

    def to_dict(self) -> dict[str, Any]:
        """Its entry in report.json; numbers that do not exist are None."""
        return {
            "name": self.name,
            "value": _json(self.value),
            "standard_error": _json(self.standard_error),
            "count": self.count,
            "total": self.total,
            "denominator": self.denominator,
            "reference": self.reference,
            "description": self.description,
        }


def pooled(metrics: Iterable[Mapping[str, Any]], name: str) -> Rate | None:
    """A rate over several runs, whose metrics `to_dict` wrote; None if it is in none.

    Its standard error is that over the runs where this is larger than that of the items.
    """
    found = [metric for metric in metrics if metric["name"] == name and "count" in metric]
    if not found:
        return None
    first = found[0]
    runs = tuple((metric["count"], metric["total"]) for metric in found)
    return Rate(
        name,
        sum(count for count, _ in runs),
        sum(total for _, total in runs),
        first["description"],
        first.get("denominator", GENERATED),
        first.get("reference", ""),
        runs,
    )


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of values [N]; nan for fewer than two."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Measure:
    """A number that is no rate, such as a mean energy, over `total` items."""

    name: str
    value: float
    standard_error: float
    """nan where none is known."""
    unit: str
    total: int
    description: str
    denominator: str = GENERATED
    """The items that `total` counts."""
    reference: str = ""
    """The reference that items were compared with."""

    @staticmethod
    def mean(
        name: str,
        values: np.ndarray,
        unit: str,
        description: str,
        *,
        denominator: str = GENERATED,
        reference: str = "",
    ) -> Measure:
        """The mean of the finite values, with the standard error of the mean."""
        values = np.asarray(values, np.float64)
        values = values[np.isfinite(values)]
        n = len(values)
        mean = float(values.mean()) if n else math.nan
        error = standard_error(values)
        return Measure(name, mean, error, unit, n, description, denominator, reference)

    @staticmethod
    def median(
        name: str,
        values: np.ndarray,
        unit: str,
        description: str,
        *,
        denominator: str = GENERATED,
        reference: str = "",
    ) -> Measure:
        """The median of the finite values, with a standard error from order statistics.

        Half the distance between the order statistics one binomial standard deviation (sqrt(n)/2
        ranks) either side of the middle.
        """
        values = np.asarray(values, np.float64)
        values = np.sort(values[np.isfinite(values)])
        n = len(values)
        if not n:
            return Measure(name, math.nan, math.nan, unit, 0, description, denominator, reference)
        error = math.nan
        if n > 1:
            ranks = (n - 1) / 2 + np.array([-1, 1]) * math.sqrt(n) / 2
            low, high = np.interp(ranks, np.arange(n), values)
            error = float(high - low) / 2
        median = float(np.median(values))
        return Measure(name, median, error, unit, n, description, denominator, reference)

    @property
    def text(self) -> str:
        """Like "0.123 ± 0.004 eV/atom", or "12.3 ± 0.4 %"."""
        if not math.isfinite(self.value):
            return "–"
        return _with_error(self.value, self.standard_error, self.unit)

    @property
    def fraction(self) -> str:
        """Number of items it is of, like "987"."""
        return str(self.total)

    def to_dict(self) -> dict[str, Any]:
        """Its entry in report.json; numbers that do not exist are None."""
        return {
            "name": self.name,
            "value": _json(self.value),
            "standard_error": _json(self.standard_error),
            "unit": self.unit,
            "total": self.total,
            "denominator": self.denominator,
            "reference": self.reference,
            "description": self.description,
        }


Metric = Rate | Measure
"""Every number of an evaluation."""


@dataclass(frozen=True)
class MetricSet:
    """The metrics of N generated samples."""

    n: int
    """Generated samples, failed ones included."""
    metrics: tuple[Metric, ...]
    """Every number, in the order of a report."""
    context: tuple[str, ...]
    """Provenance of the numbers: samples, reference set, hull, tables, thresholds, failures."""
    columns: Mapping[str, np.ndarray]
    """Per sample [N]: what it is, the masks behind the rates, energies or rewards."""

    def __getitem__(self, name: str) -> Metric:
        """The metric of a name; KeyError listing the names if there is none."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        names = ", ".join(metric.name for metric in self.metrics)
        raise KeyError(f"no metric {name!r} in this evaluation, which has {names}")

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The metrics that are rates."""
        return tuple(metric for metric in self.metrics if isinstance(metric, Rate))

    @property
    def values(self) -> dict[str, float]:
        """{name: value}, to be logged by a tracker."""
        return {metric.name: metric.value for metric in self.metrics}

    def to_dict(self) -> dict[str, Any]:
        """Its entry in report.json."""
        metrics = [metric.to_dict() for metric in self.metrics]
        return {"samples": self.n, "metrics": metrics, "context": list(self.context)}

    @staticmethod
    def from_dict(written: Mapping[str, Any]) -> MetricSet:
        """Metrics from a dictionary of `to_dict`, without columns; KeyError for any other."""
        metrics = tuple(_metric(each) for each in written["metrics"])
        return MetricSet(written["samples"], metrics, tuple(written["context"]), {})


@dataclass(frozen=True)
class Difference:
    """Change of a metric between two independent sets of samples."""

    before: Metric
    after: Metric

    @property
    def value(self) -> float:
        """After less before."""
        return self.after.value - self.before.value

    @property
    def standard_error(self) -> float:
        """The two standard errors in quadrature, for independent samples."""
        return math.hypot(self.before.standard_error, self.after.standard_error)

    @property
    def sigmas(self) -> float:
        """The difference in standard errors; nan where there is no error."""
        return self.value / self.standard_error if self.standard_error > 0 else math.nan

    @property
    def text(self) -> str:
        """Like "+12.3 ± 1.0 %"; rates in percentage points."""
        if not math.isfinite(self.value):
            return "–"
        rate = isinstance(self.after, Rate)
        scale, unit = (100, "%") if rate else (1, getattr(self.after, "unit", ""))
        return _with_error(scale * self.value, scale * self.standard_error, unit, sign="+")

    def to_dict(self) -> dict[str, Any]:
        """Its entry in report.json; numbers that do not exist are None."""
        return {
            "name": self.after.name,
            "difference": _json(self.value),
            "standard_error": _json(self.standard_error),
            "sigmas": _json(self.sigmas),
        }


def _metric(written: Mapping[str, Any]) -> Metric:
    """A metric from its entry in report.json."""
    words = (written["description"], written["denominator"], written["reference"])
    if "count" in written:
        return Rate(written["name"], written["count"], written["total"], *words)
    value, error = (
        math.nan if written[key] is None else written[key] for key in ("value", "standard_error")
    )
    return Measure(written["name"], value, error, written["unit"], written["total"], *words)


def _json(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _with_error(value: float, error: float, unit: str, sign: str = "") -> str:
    """A finite value with its error, if that is known, and its unit; per cent with one decimal."""
    shown = ".1f" if unit == "%" else number_format([value, error])
    plus_minus = f" ± {error:{shown}}" if math.isfinite(error) else ""
    return f"{value:{sign}{shown}}{plus_minus} {unit}".rstrip()
