"""Predicted structures as files: tables, CIFs, a picture, a report."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax import plots
from crystaljax.data.files import file_names, replacing
from crystaljax.data.writers import to_cif, write
from crystaljax.evaluation.candidates import Candidates, Column
from crystaljax.evaluation.report import Picture, Report, Table
from crystaljax.experiment.run_folder import remade
from crystaljax.prediction.predict import Predictions
from crystaljax.reasons import in_words
from crystaljax.symmetry.tables import tables

N_LISTED = 100
"""Structures, and formulas, of the tables in a report; the files have all."""

N_DRAWN = 8
"""Structures of the picture."""

N_NAMED = 3
"""Formulas that a sentence names."""

HEADINGS = {
    "e_above_hull": "above hull (eV/atom)",
    "energy_per_atom": "energy (eV/atom)",
    "log_prob": "log-probability (nats)",
    "atoms_in_primitive_cell": "atoms",
    "times_found": "times found",
    "converged": "converged",
    "hull_entries": "hull entries",
}
"""Headings of the columns that a report lists; the files have all columns."""

TABLE, FORMULAS, CIFS, PICTURE = "predictions.csv", "formulas.csv", "cifs", "best.png"
"""Names of files and of the folder of CIFs."""


def write_predictions(found: Predictions, folder: Path) -> Report:
    """Write all that is known of the structures to a folder, but for the report, which is returned.

    `TABLE` has the structures, formula by formula, the best first, with their CIFs, in a form that
    `evaluation.prediction_files` reads; `FORMULAS` has every formula that was given. Each CIF is
    named FORMULA_ATTEMPT.cif. Nothing but formulas and report is written if there are no
    structures.
    """
    summary = formula_table(found)
    with replacing(folder / FORMULAS) as path, path.open("w", newline="") as file:
        csv.writer(file).writerows(summary)
    listed = Table(f"Formulas{_cut(len(summary) - 1)}", _shown(summary)[: N_LISTED + 1])
    pictures, listing = [], None
    if len(found.target):
        names = _names(found)
        write(found.crystals, folder / TABLE, {"material_id": names, **_columns(found)})
        with remade(folder / CIFS) as cifs:
            cifs.mkdir()
            for name, text in zip(names, to_cif(found.crystals), strict=True):
                (cifs / f"{name}.cif").write_text(text, encoding="utf-8")
        rows = found.best(N_DRAWN)
        captions = [_caption(found, row) for row in rows.tolist()]
        grid = plots.structure_grid(found.crystals[rows], captions)
        pictures = [Picture(plots.save(grid, folder / PICTURE), "The best structures.")]
        listing = candidates(found, names, N_LISTED)
    said = notes(found)
    return Report("Predicted structures", {}, pictures, [listed], said, candidates=listing)


def candidates(found: Predictions, names: Sequence[str], n: int) -> Candidates:
    """The first n structures with some of their columns, to sort, filter and look at.

    `names`: of all structures, for their CIFs.
    """
    rows = np.arange(min(n, len(found.target)))
    columns = [
        Column("formula", [_formula(found, row) for row in rows.tolist()]),
        Column("rank", found.rank[rows].tolist()),
        Column("space group", [_group(found, row) for row in rows.tolist()]),
    ]
    columns += [
        Column(heading, found.columns[name][rows].tolist())
        for name, heading in HEADINGS.items()
        if name in found.columns
    ]
    caption = f"Structures, best first{_cut(len(found.target))}"
    return Candidates(caption, columns, list(to_cif(found.crystals[rows])), names[: len(rows)])


def notes(found: Predictions) -> list[str]:
    """Sentences on the results, for the report."""
    marked = [one for one in found.asked if one.condition is None]
    sampled = sum(tally.asked for tally in found.tallies)
    lost = sum(tally.lost.total() for tally in found.tallies)
    n_formulas = len(np.unique(found.target))
    said = [
        f"{len(found.target)} different structures of {n_formulas} formulas, from {sampled}"
        f" samples; {lost} samples have no structure of their formula or no energy."
        f" Energies: {found.label}."
    ]
    if found.dead_ends:
        said.append(f"{found.dead_ends} candidates ended without meeting their formula.")
    if marked:
        names = ", ".join(one.name or "an empty one" for one in marked[:N_NAMED])
        more = ", ..." if len(marked) > N_NAMED else ""
        said.append(
            f"{len(marked)} of {len(found.asked)} formulas could not be predicted ({names}{more}):"
            f" the reasons are in {FORMULAS}."
        )
    said += [f"{one.name}: {one.remark}." for one in found.asked if one.remark][:N_LISTED]
    if "e_above_hull" in found.columns:
        said.append(
            "An energy above hull means little where the hull knows few compounds: hull entries are"
            " those of the formula's elements."
        )
    return said


def formula_table(found: Predictions) -> list[list[str]]:
    """A header, then a row for each formula that was given: with its results."""
    header = ["formula", "formula units", "samples", "structures", "lost", "reasons", "remark"]
    header.append("best: space group")
    energies = [name for name in ("energy_per_atom", "e_above_hull") if name in found.columns]
    table = [header + [f"best: {HEADINGS[name]}" for name in energies]]
    first = {int(found.target[row]): row for row in np.flatnonzero(found.rank == 1).tolist()}
    for i, (one, tally) in enumerate(zip(found.asked, found.tallies, strict=True)):
        row = [one.name, one.units, str(tally.asked), str(tally.distinct), str(tally.lost.total())]
        row += [one.reason or in_words(tally.lost), one.remark]
        best = first.get(i)
        row.append("" if best is None else _group(found, best))
        for name in energies:
            row.append("" if best is None else _number(found.columns[name][best]))
        table.append(row)
    return table


def structure_table(found: Predictions, n: int) -> list[list[str]]:
    """A header, then a row for each of the first n structures."""
    shown = [name for name in found.columns if name != "log_prob" or len(found.columns) == 3]
    table = [["formula", "rank", "space group", *(name.replace("_", " ") for name in shown)]]
    for row in range(min(n, len(found.target))):
        values = [_number(found.columns[name][row]) for name in shown]
        table.append([_formula(found, row), str(found.rank[row]), _group(found, row), *values])
    return table


def _shown(table: list[list[str]]) -> list[list[str]]:
    """A table without its columns that are empty."""
    kept = [i for i, cells in enumerate(zip(*table[1:], strict=True)) if any(cells)]
    return [[row[i] for i in kept] for row in table]


def _columns(found: Predictions) -> dict[str, Any]:
    names = [_formula(found, row) for row in range(len(found.target))]
    return {"asked": names, "rank": found.rank, "attempt": found.attempt, **found.columns}


def _names(found: Predictions) -> list[str]:
    """FORMULA_ATTEMPT of each structure, safe as the name of a file."""
    reduced = [found.asked[i].formula for i in found.target.tolist()]
    kinds = list(dict.fromkeys(reduced))
    safe = dict(zip(kinds, file_names(kinds), strict=True))
    pairs = zip(reduced, found.attempt.tolist(), strict=True)
    return [f"{safe[name]}_{number}" for name, number in pairs]


def _formula(found: Predictions, row: int) -> str:
    return found.asked[int(found.target[row])].name


def _group(found: Predictions, row: int) -> str:
    group = int(found.crystals.space_group[row])
    return f"{group} {tables().symbol[group - 1]}"


def _caption(found: Predictions, row: int) -> str:
    for name, unit in (("e_above_hull", "eV/atom above hull"), ("energy_per_atom", "eV/atom")):
        if name in found.columns and np.isfinite(found.columns[name][row]):
            return f"{found.columns[name][row]:.3f} {unit}"
    return f"ln p = {found.columns['log_prob'][row]:.1f}"


def _number(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(value)
    return f"{value:.3f}" if np.isfinite(value) else "–"


def _cut(n: int) -> str:
    return f" (the first {N_LISTED} of {n})" if n > N_LISTED else ""
