"""A report of one or several evaluations: Markdown, one self-contained HTML page, and JSON."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from crystaljax.data.files import replacing
from crystaljax.evaluation.candidates import Candidates, page_file
from crystaljax.evaluation.rates import Difference, Metric, MetricSet
from crystaljax.evaluation.safeguards import writable_folder

LONG = 60
"""Characters of a cell above which the page breaks its text into lines."""

WIDE = 110
"""Characters of a row above which the page has a smaller font for the table."""


@dataclass(frozen=True)
class Picture:
    """An image file of a report."""

    path: Path
    """A PNG."""
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of a report beside that of the evaluations."""

    caption: str
    rows: Sequence[Sequence[str]]
    """The header, then the rows."""

    def to_markdown(self) -> str:
        """The table and its caption."""
        return f"**{self.caption}**\n\n{_markdown(self.rows)}"


@dataclass(frozen=True)
class Report:
    """Contents of a report. The difference column compares the first and the last evaluation."""

    title: str
    evaluations: Mapping[str, MetricSet]
    """By label, in order, like {"before PPO": ..., "after PPO": ...}; may be empty."""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    """Sentences under the title: the model, the command, the cost."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of report.json, such as the KL divergence or seconds per phase."""
    candidates: Candidates | None = None
    """Structures to look at."""

    def write(self, folder: str | PathLike[str]) -> Path:
        """Write report.md, report.html and report.json; returns the path of report.html.

        Pictures outside the folder are shown in the HTML page (which holds them all) and linked
        by their absolute path from the Markdown. PermissionError: see `writable_folder`.
        """
        folder = writable_folder(folder)
        files = {
            "report.json": json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n",
            "report.md": self.to_markdown(folder),
            "report.html": self.to_html(),
        }
        for name, text in files.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return folder / "report.html"

    def to_dict(self) -> dict[str, Any]:
        """The content of report.json: every rate with its count and total; no nan, but null."""
        return {
            "title": self.title,
            "notes": list(self.notes),
            "evaluations": {k: e.to_dict() for k, e in self.evaluations.items()},
            "tables": {table.caption: [list(row) for row in table.rows] for table in self.tables},
            "differences": [d.to_dict() for d in self._differences().values()],
            "candidates": None if self.candidates is None else self.candidates.to_dict(),
            **self.extra,
        }

    def to_markdown(self, folder: Path | None = None) -> str:
        """The report as Markdown, with pictures linked relative to `folder`."""
        parts = [f"# {self.title}", *self.notes]
        if self.evaluations:
            parts.append(_markdown(self._table()))
        if note := self._difference_note():
            parts.append(note)
        for table in self._tables():
            parts.append(table.to_markdown())
        for picture in self.pictures:
            target = _relative(picture.path, folder)
            parts.append(f"![{picture.caption}]({target})\n\n*{picture.caption}*")
        if self.evaluations:
            parts += ["## What the numbers mean", _markdown(self._definitions())]
        for label, context in self._contexts().items():
            parts += [f"**{label}**", "\n".join(f"- {line}" for line in context)]
        return "\n\n".join(parts) + "\n"

    def to_html(self) -> str:
        """The report as one page with no other files: pictures are inside."""
        escape = html.escape
        body = [f"<h1>{escape(self.title)}</h1>"]
        body += [f"<p>{escape(note)}</p>" for note in self.notes]
        if self.evaluations:
            body.append(_html(self._table(), "numbers"))
        if note := self._difference_note():
            body.append(f"<p class='small'>{escape(note)}</p>")
        for table in self.tables:
            body.append(f"<h3>{escape(table.caption)}</h3>" + _html(table.rows, "numbers"))
        if self.candidates is not None:
            body.append(self.candidates.to_html())
        for picture in self.pictures:
            data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
            caption = escape(picture.caption)
            body.append(
                f"<figure><img alt='{caption}' src='data:image/png;base64,{data}'>"
                f"<figcaption>{caption}</figcaption></figure>"
            )
        if self.evaluations:
            body.append("<h2>What the numbers mean</h2>")
            body.append(_html(self._definitions(), "words"))
        for label, context in self._contexts().items():
            lines = "".join(f"<li>{escape(line)}</li>" for line in context)
            body.append(f"<h3>{escape(label)}</h3><ul>{lines}</ul>")
        return _PAGE.format(
            title=escape(self.title), style=page_file("report.css"), body="\n".join(body)
        )

    def _tables(self) -> list[Table]:
        """The tables, that of the candidates included."""
        if self.candidates is None:
            return list(self.tables)
        return [*self.tables, Table(self.candidates.caption, self.candidates.to_markdown())]

    def _names(self) -> list[str]:
        """Names of all metrics, in the order they first occur."""
        return list(dict.fromkeys(m.name for e in self.evaluations.values() for m in e.metrics))

    def _metrics(self) -> dict[str, dict[str, Metric]]:
        """{label: {name: metric}}."""
        return {k: {m.name: m for m in e.metrics} for k, e in self.evaluations.items()}

    def _contexts(self) -> dict[str, Sequence[str]]:
        """The context lines by label; those of evaluations that agree stand once."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for label, evaluation in self.evaluations.items():
            groups.setdefault(evaluation.context, []).append(label)
        return {", ".join(labels): context for context, labels in groups.items()}

    def _differences(self) -> dict[str, Difference]:
        """The change of each metric that both the first and the last evaluation have."""
        if len(self.evaluations) < 2:
            return {}
        sets = list(self._metrics().values())
        first, last = sets[0], sets[-1]
        return {n: Difference(first[n], last[n]) for n in self._names() if n in first and n in last}

    def _difference_note(self) -> str:
        if len(self.evaluations) < 2:
            return ""
        first, *_, last = self.evaluations
        return (
            f"Difference: {last} less {first}; ± is one standard error (rates: Wilson), in"
            " quadrature for independent samples; σ is the difference in standard errors."
        )

    def _table(self) -> list[list[str]]:
        """Header and rows of the table of results."""
        differences = self._differences()
        header = ["metric"]
        for label in self.evaluations:
            header += [label, "count / total"]
        if differences:
            header += ["difference", "σ"]
        rows = [header]
        for name in self._names():
            row = [name]
            for metrics in self._metrics().values():
                metric = metrics.get(name)
                row += ["–", ""] if metric is None else [metric.text, metric.fraction]
            if differences:
                difference = differences.get(name)
                sigmas = math.nan if difference is None else difference.sigmas
                row.append("" if difference is None else difference.text)
                row.append(f"{sigmas:+.1f}" if math.isfinite(sigmas) else "")
            rows.append(row)
        return rows

    def _definitions(self) -> list[list[str]]:
        rows = [["metric", "definition", "of", "compared with"]]
        known: dict[str, Metric] = {}
        for metrics in self._metrics().values():
            known = metrics | known
        for name in self._names():
            metric = known[name]
            rows.append([name, metric.description, metric.denominator, metric.reference])
        return rows


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned for those who read it as text."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    header, *body = ("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([header, rule, *body])


def _html(rows: Sequence[Sequence[str]], kind: str) -> str:
    def cell(text: str, tag: str) -> str:
        long = " class='long'" if len(text) > LONG else ""
        return f"<{tag}{long}>{html.escape(text)}</{tag}>"

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(cell(text, tag) for text in cells) + "</tr>"

    header, *body = rows
    widths = (max(len(text) for text in column) for column in zip(*body, strict=True))
    if kind == "numbers" and sum(min(width, LONG) for width in widths) > WIDE:
        kind += " wide"
    lines = "\n".join(line(row, "td") for row in body)
    head = line(header, "th")
    return f"<table class='{kind}'><thead>{head}</thead><tbody>\n{lines}\n</tbody></table>"


def _relative(path: Path, folder: Path | None) -> str:
    path = path.resolve()
    if folder is not None and path.is_relative_to(folder.resolve()):
        return path.relative_to(folder.resolve()).as_posix()
    return path.as_posix()


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
