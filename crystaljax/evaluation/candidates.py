"""Candidates of a report: a table to sort and filter, with a viewer of structures in its page."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from crystaljax.numbers import number_format

Kind = Literal["text", "number", "flag"]

Value = str | float | bool

N_IN_MARKDOWN = 10
"""Candidates that the Markdown of a report lists."""


class Column(NamedTuple):
    """A column of the table."""

    name: str
    values: Sequence[Value]
    """Texts, numbers (nan: not known) or truth values, one per candidate."""

    @property
    def kind(self) -> Kind:
        """Kind of the values."""
        first = self.values[0]
        if isinstance(first, bool):
            return "flag"
        return "text" if isinstance(first, str) else "number"

    def texts(self) -> list[str]:
        """The values as a reader sees them."""
        if self.kind == "text":
            return [str(value) for value in self.values]
        if self.kind == "flag":
            return ["yes" if value else "no" for value in self.values]
        whole = isinstance(self.values[0], int)
        shown = ".0f" if whole else number_format(map(float, self.values))
        return [f"{x:{shown}}" if math.isfinite(float(x)) else "–" for x in self.values]


@dataclass(frozen=True)
class Candidates:
    """Structures worth a look, best first; at least one.

    ValueError for columns of another length than `cifs`, and if there are no candidates.
    """

    caption: str
    columns: Sequence[Column]
    cifs: Sequence[str]
    """A CIF of each."""
    names: Sequence[str]
    """What each is called, such as its formula; CIFs that are downloaded have these names."""

    def __post_init__(self) -> None:
        if not self.cifs:
            raise ValueError(f"{self.caption}: there are no candidates to list")
        for name, values in [*self.columns, ("names", self.names)]:
            if len(values) != len(self.cifs):
                raise ValueError(f"{name}: {len(values)} values of {len(self.cifs)} candidates")

    def to_markdown(self) -> list[list[str]]:
        """Header and rows of a table of the first few."""
        cells = [column.texts()[:N_IN_MARKDOWN] for column in self.columns]
        return [[column.name for column in self.columns], *map(list, zip(*cells, strict=True))]

    def to_dict(self) -> dict[str, list[Any]]:
        """{column: values}, and the CIFs; None for numbers that are not known."""
        return {name: list(map(_known, values)) for name, values in self.columns} | {
            "CIF": list(self.cifs)
        }

    def to_html(self) -> str:
        """The table and the viewer, with the scripts that they need inside."""
        heads = "".join(
            f"<th scope='col'><button type='button'>{html.escape(column.name)}</button></th>"
            for column in self.columns
        )
        filters = "".join(f"<th>{_filter(column)}</th>" for column in self.columns)
        texts = [column.texts() for column in self.columns]
        data = {
            "columns": [{"name": column.name, "kind": column.kind} for column in self.columns],
            "rows": [
                {
                    "name": self.names[i],
                    "cells": [_known(column.values[i]) for column in self.columns],
                    "texts": [column[i] for column in texts],
                    "cif": cif,
                }
                for i, cif in enumerate(self.cifs)
            ],
        }
        written = json.dumps(data, allow_nan=False).replace("</", "<\\/")
        return _SECTION.format(
            caption=html.escape(self.caption),
            heads=heads,
            filters=filters,
            data=written,
            library=page_file("3Dmol-min.js"),
            script=page_file("candidates.js"),
        )


@cache
def page_file(name: str) -> str:
    """The text of a file that report pages are made of."""
    return (Path(__file__).parent / "page" / name).read_text(encoding="utf-8")


def _known(value: Value) -> Value | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _filter(column: Column) -> str:
    label = html.escape(column.name, quote=True)
    if column.kind == "flag":
        return f"<label><input type='checkbox' aria-label='only {label}'> only</label>"
    hint = "≤ or &gt; …" if column.kind == "number" else "contains …"
    return f"<input type='text' placeholder='{hint}' aria-label='filter {label}'>"


_SECTION = """<h3>{caption}</h3>
<section class="candidates">
<div>
<div class="list"><table><thead><tr><th></th>{heads}</tr>
<tr class="filters"><th></th>{filters}</tr></thead><tbody></tbody></table></div>
<p class="small shown"></p>
</div>
<aside><div class="view"></div><p class="small elements"></p><p class="small chosen-title"></p>
<a class="small cif" href="#">Download its CIF</a></aside>
</section>
<script type="application/json" id="candidates-data">{data}</script>
<script>{library}</script>
<script>{script}</script>"""
