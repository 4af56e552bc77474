"""Table 1 of arXiv 2511.12036 as published, combined with the rows of one's own runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from crystaljax.alloys.composition import TAGS
from crystaljax.alloys.evaluation.table_one import TableOne, plus_minus
from crystaljax.alloys.family import AlloyFamily
from crystaljax.evaluation.rates import Measure
from crystaljax.evaluation.report import Table


class Published(NamedTuple):
    """One row: shares from 0 to 1, and the mean reward; None where the paper has no number."""

    validity: float
    recall: float
    precision: float
    novelty: float
    reward: float | None = None
    unique: float | None = None


PUBLISHED = MappingProxyType(
    {
        "Random search": Published(0.80, 0.98, 0.82, 0.44, -883.71, 1.0),
        "CDVAE": Published(0.73, 0.43, 0.07, 0.94),
        "Crystal-LLM-7B": Published(0.90, 0.34, 0.18, 0.80),
        "Crystal-LLM-13B": Published(0.87, 0.44, 0.17, 0.81),
        "Crystal-LLM-70B": Published(0.91, 0.45, 0.17, 0.83),
        "GPT-4.1": Published(1.00, 0.32, 1.00, 0.86, -53.23, 0.44),
        "GPT-O3": Published(1.00, 0.42, 1.00, 0.99, -75.43, 0.66),
        "Gemini-2.5": Published(0.99, 0.79, 0.99, 0.81, -106.22, 0.82),
        "Prompt-tuned Gemini-2.5": Published(0.99, 0.83, 1.00, 0.98, -350.34, 0.91),
        "Agentic GPT-4.1": Published(1.00, 0.48, 1.00, 0.77, -542.60, 0.98),
        "Agentic Gemini-2.5": Published(1.00, 0.78, 1.00, 0.87, -19.87, 0.61),
        "Gemma SFT": Published(0.99, 0.99, 1.00, 0.94, -220.41, 0.98),
        "Llama SFT": Published(0.99, 0.99, 0.99, 0.92, -215.92, 0.99),
        "OLMo SFT": Published(0.99, 0.99, 0.99, 0.92, -218.54, 1.00),
        "Gemma DPO": Published(1.00, 0.95, 1.00, 0.97, -206.71, 0.92),
        "Llama DPO": Published(0.99, 0.98, 1.00, 0.93, -175.89, 1.00),
        "OLMo DPO": Published(0.99, 0.98, 1.00, 0.95, -268.72, 0.98),
    }
)
"""All rows, of 1,000 samples or more of each model, judged by Thermo-Calc with TCHEA7."""

_COLUMNS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "validity (Pauling)": ("validity", ("Pauling valid (%)",)),
    "validity (SMACT)": ("", ("SMACT valid (%)",)),
    "coverage recall": ("recall", ("COV-R (%)",)),
    "coverage precision": ("precision", ("COV-P (%)",)),
    "novelty": ("novelty", ("novel to known (%)", "novel (%)")),
    "mean reward": ("reward", ("mean reward",)),
    "unique pairs @100": ("unique", ("unique pairs @100",)),
}
# By column: field of the published row, and names of our metric (the first that exists).

CAPTION = (
    "Table 1 of arXiv 2511.12036 as published (p), with the rows of these runs: shares. Databases,"
    " lists of phases and models are others, so that rows of one kind compare, not numbers. The"
    " paper says Pauling's test of validity, and not how alloys pass it; its novelty is to the"
    " Materials Project's alloys, ours to those that were given as known, else to the training"
    " candidates."
)


def published(table: TableOne, family: AlloyFamily) -> list[Table]:
    """The table `beside_published`; none of a family that is not the paper's."""
    return [beside_published(table)] if family.tags == TAGS else []


def beside_published(table: TableOne) -> Table:
    """The published rows, each followed by our runs of that kind of model; other runs at the end.

    A run is of a kind if the published name has the words of its label: "SFT", "Llama DPO".
    """
    places: dict[str, list[str]] = {}
    for label in table.models:
        words = set(label.lower().split())
        same = [name for name in PUBLISHED if words <= set(name.lower().split())]
        places.setdefault(same[-1] if same else "", []).append(label)
    rows = [["", *_COLUMNS]]
    for name, row in PUBLISHED.items():
        rows.append([f"{name} (p)", *(_cell(row, field) for field, _ in _COLUMNS.values())])
        rows += [_ours(label, table.models[label]) for label in places.get(name, ())]
    rows += [_ours(label, table.models[label]) for label in places.get("", ())]
    return Table(CAPTION, rows)


def _cell(row: Published, field: str) -> str:
    value = getattr(row, field) if field else None
    return "–" if value is None else f"{value:.2f}"


def _ours(label: str, metrics: Mapping[str, Measure]) -> list[str]:
    """A row of our run, in the paper's units."""
    cells = [label]
    for column, (_, names) in _COLUMNS.items():
        measure = next((metrics[name] for name in names if name in metrics), None)
        scale = 1.0 if column == "mean reward" else 0.01  # per cent, and 100 pairs
        cells.append("–" if measure is None else plus_minus(_scaled(measure, scale)))
    return cells


def _scaled(measure: Measure, scale: float) -> Measure:
    value, error = scale * measure.value, scale * measure.standard_error
    return Measure(measure.name, value, error, "", measure.total, measure.description)
