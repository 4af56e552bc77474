"""One run of the script: its time, and the rows that it fills, kept after each."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from crystaljax.roofline import Peak, Work, share

Status = Literal["measured", "agrees", "differs", "skipped", "failed"]
FAULTS = ("differs", "failed")

WIDTHS = {"section": 10, "name": 46, "status": 8, "value": 12, "unit": 12, "first": 9}
"""Of the table's columns; the note follows."""


class Budget:
    """Seconds that may be spent, compilation included; nothing is interrupted."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._end = clock, clock() + seconds

    @property
    def left(self) -> float:
        """Seconds until the end, never negative."""
        return max(self._end - self._clock(), 0.0)

    def part(self, share: float) -> Budget:
        """A share of what is left, from now on."""
        return Budget(self.left * min(share, 1.0), self._clock)


@dataclass(frozen=True)
class Found:
    """Result of a measurement or a comparison."""

    value: float
    unit: str
    note: str = ""
    """Its limit, or the two sides of the comparison."""
    first_s: float | None = None
    """Seconds of the first call, mostly of compiling."""
    agrees: bool | None = None
    """Of a comparison: whether it is within its tolerance."""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    section: str
    name: str
    status: Status
    note: str = ""
    value: float | None = None
    unit: str = ""
    first_s: float | None = None
    seconds: float = 0.0
    """Spent on this row; shared evenly where several come from one measurement."""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        value = (
            "" if self.value is None else f"{self.value:{',.0f' if self.value >= 1e3 else '.4g'}}"
        )
        first = "" if self.first_s is None else f"{self.first_s:.1f} s"
        cells = (self.section, self.name, self.status, value, self.unit, first)
        widths = zip(cells, WIDTHS.values(), strict=True)
        return " ".join(f"{cell:<{width}}" for cell, width in widths) + " " + self.note


Measure = Callable[[], Found | Mapping[str, Found]]
"""Fills a row, or several with names of their own."""

Measurement = tuple[str, Measure]
"""The name of the row, or of what would fill it."""

Section = Callable[["Run", Budget], Iterator[Measurement]]
"""Yields measurements; what they share is made between them, and costs the rest of the section
if it fails."""


def show(line: str) -> None:
    """Print a line at once: the process may be killed."""
    print(line, flush=True)


class Run:
    """Collects rows, prints them, and writes all of them to a file after each.

    Args:
      about: what the JSON says about the run beside its rows.
      budget: of the whole run.
      output: a JSON file; none is written if not given.
      say: prints a line.
    """

    def __init__(
        self,
        about: dict[str, Any],
        budget: Budget,
        output: Path | None = None,
        say: Callable[[str], None] = show,
    ) -> None:
        self.about, self.budget, self.output, self.say = about, budget, output, say
        self.rows: list[Row] = []
        self.peak: Peak | None = None
        """Of the device, once it was measured."""
        self.step_seconds: float | None = None
        """Of a training step at the published size, once it was measured."""
        self._writing = threading.Lock()
        self._at = "the beginning"  # what is being measured
        heading = zip(WIDTHS, WIDTHS.values(), strict=True)
        say(" ".join(f"{name:<{width}}" for name, width in heading) + " note")

    def sections(self, sections: Mapping[str, tuple[float, Section]]) -> None:
        """All of them, each with its weight: what one leaves over, those after it share."""
        weights = [weight for weight, _ in sections.values()]
        for i, (name, (weight, section)) in enumerate(sections.items()):
            self.section(name, section, self.budget.part(weight / sum(weights[i:])))

    def section(self, name: str, section: Section, budget: Budget) -> None:
        """Do what a section yields while there is time for it.

        Skipped with a line: what needs a package or a file that is absent, and all that comes when
        less time is left than the longest measurement of the section took. A measurement that
        fails costs itself alone.
        """
        if not budget.left:
            self._add(Row(name, "all of it", "skipped", "no time is left for it"))
            return
        longest = 0.0
        measurements = section(self, budget)
        while True:
            start = time.monotonic()
            try:
                found = next(measurements, None)
            except Exception as error:  # noqa: BLE001 (one section must not cost the others)
                self._add(_fault(name, "all of it", error, time.monotonic() - start))
                return
            if found is None:
                return
            what, measure = found
            self._at = f"{name}, {what}"
            if budget.left <= longest:
                self._add(_no_time(name, [what, *(x for x, _ in measurements)], budget, longest))
                return
            for row in _rows(name, what, measure, start):
                self._add(row)
            longest = max(longest, time.monotonic() - start)

    def limit(self, work: Work, seconds: float) -> tuple[str, dict[str, float]]:
        """Limit of some work that took so many seconds, in words and as shares of the peaks."""
        if self.peak is None:
            return "no peaks were measured", {}
        try:
            found = share(work, seconds, self.peak)
        except ValueError as error:
            return str(error), {}
        return str(found), {"share_of_peak": found.compute, "share_of_bandwidth": found.memory}

    @property
    def faults(self) -> int:
        """Rows that differ or failed."""
        return sum(row.status in FAULTS for row in self.rows)

    def report(self) -> str:
        """All that was found, as one JSON."""
        counts = Counter(row.status for row in self.rows)
        rows = [dataclasses.asdict(row) for row in self.rows]
        found = {"name": "accelerator", **self.about, "counts": dict(counts), "rows": rows}
        return json.dumps(_plain(found))

    def stop_at_the_end(self) -> threading.Timer:
        """End the process, with its report, should the time be up while something is compiled."""

        def stop() -> None:
            self._add(Row("run", "stopped", "skipped", f"the time was up at: {self._at}"))
            self.say(self.report())
            os._exit(1 if self.faults else 0)

        timer = threading.Timer(self.budget.left, stop)
        timer.daemon = True
        timer.start()
        return timer

    def _add(self, row: Row) -> None:
        with self._writing:
            self.rows.append(row)
            self.say(str(row))
            if self.output is not None:
                temporary = self.output.with_name(self.output.name + ".part")
                temporary.write_text(self.report() + "\n", encoding="utf-8")
                temporary.replace(self.output)


def _rows(section: str, name: str, measure: Measure, start: float) -> list[Row]:
    try:
        found = measure()
    except Exception as error:  # noqa: BLE001 (a measurement that fails costs itself alone)
        return [_fault(section, name, error, time.monotonic() - start)]
    named = {name: found} if isinstance(found, Found) else found
    seconds = (time.monotonic() - start) / len(named)
    return [_row(section, what, each, seconds) for what, each in named.items()]


def _row(section: str, name: str, found: Found, seconds: float) -> Row:
    status: Status = "measured"
    if found.agrees is not None:
        status = "agrees" if found.agrees else "differs"
    return Row(
        section,
        name,
        status,
        found.note,
        found.value,
        found.unit,
        found.first_s,
        seconds,
        found.details,
    )


def _no_time(section: str, names: list[str], budget: Budget, longest: float) -> Row:
    """A row for the rest of a section."""
    title = names[0] if len(names) == 1 else f"{names[0]}, and {len(names) - 1} more"
    reason = f"{budget.left:.0f} s left; the longest so far took {longest:.0f}"
    return Row(section, title, "skipped", reason, details={"skipped": names})


def _fault(section: str, name: str, error: Exception, seconds: float) -> Row:
    """A row for an exception: absent packages and files are skipped, the rest failed."""
    absent = isinstance(error, ImportError | FileNotFoundError)
    text = str(error).strip().split("\n")[0][:300]
    reason = text if absent else f"{type(error).__name__}: {text}"
    return Row(section, name, "skipped" if absent else "failed", reason, seconds=seconds)


def _plain(value: Any) -> Any:
    """As JSON can hold it: numbers that are not finite become null, others keep four digits."""
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


class Timing(NamedTuple):
    """Seconds of what was done again and again."""

    first: float
    """Of the first time, mostly of compiling."""
    median: float
    """Of the times after it."""
    n: int
    """Number of those."""


def timed(
    work: Callable[[], Any], budget: Budget, *, at_least: int = 3, most_s: float = 2.0
) -> Timing:
    """Do some work, which waits for its own end, `at_least` times after the first.

    More often, up to 100 times, while `most_s` seconds and a tenth of the budget last.
    """
    clock = time.perf_counter
    start = clock()
    work()
    first = clock() - start
    seconds: list[float] = []
    allowed = min(most_s, budget.left / 10)
    while len(seconds) < at_least or (sum(seconds) < allowed and len(seconds) < 100):
        start = clock()
        work()
        seconds.append(clock() - start)
    return Timing(first, sorted(seconds)[len(seconds) // 2], len(seconds))
