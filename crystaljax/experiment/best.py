"""The best structures of an evaluation, for tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from crystaljax import plots
from crystaljax.crystal import Crystals
from crystaljax.data.writers import to_cif
from crystaljax.evaluation.candidates import Candidates, Column
from crystaljax.evaluation.policies import Assessment
from crystaljax.symmetry.tables import tables
from crystaljax.tracking import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_LISTED = 60
"""Structures of the table in a report."""

N_SHOWN = 16
"""Structures of the table in W&B."""

N_DRAWN = 8
"""Structures of the picture in a report."""

ENERGY = "e_above_hull"
"""Columns of evaluations whose names begin so are energies above hull, one a judge."""


@dataclass(frozen=True)
class BestStructures:
    """The best structures, best first."""

    caption: str
    crystals: Crystals
    """[n]."""
    columns: Mapping[str, np.ndarray]
    """[n] each: what an evaluation found of them."""
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    """float64 [n] each: further numbers to show, such as rewards of a user's own."""

    @staticmethod
    def of(
        found: Assessment,
        caption: str,
        score: np.ndarray | None = None,
        scores: Mapping[str, np.ndarray] = MappingProxyType({}),
        n: int = N_LISTED,
    ) -> BestStructures:
        """Those of largest score [N] (nan: none), at most n; by default of lowest energy."""
        score = np.asarray(-found.e_above_hull if score is None else score, float)
        rows = np.argsort(-score)  # nan comes last
        rows = rows[np.isfinite(score[rows])][:n]
        columns = {name: np.asarray(x)[rows] for name, x in found.evaluation.columns.items()}
        shown = {name: np.asarray(x)[rows] for name, x in scores.items()}
        return BestStructures(caption, found.crystals.to_numpy()[rows], columns, shown)

    def figure(self) -> Figure:
        """The first few, with their energies above hull."""
        some = slice(N_DRAWN)
        captions = None
        if ENERGY in self.columns:
            captions = [f"{x:.3f} eV/atom above hull" for x in self.columns[ENERGY][some]]
        if self.scores:
            name, values = next(iter(self.scores.items()))
            captions = [f"{name}: {x:.4g}" for x in values[some]]
        return plots.structure_grid(self.crystals[some], captions)

    def columns_shown(self, some: slice = slice(None)) -> dict[str, list[Any]]:
        """Formula, space group, energies above hull by each judge, flags."""
        groups = [int(group) for group in self.crystals.space_group]
        found: dict[str, list[Any]] = {
            "formula": [str(x) for x in self.columns["formula"]],
            "space group": [f"{group} {tables().symbol[group - 1]}" for group in groups],
        }
        for name, values in self.scores.items():
            found[name] = [float(x) for x in values]
        for name, values in self.columns.items():
            if name.startswith(ENERGY):
                found[f"{name.replace('_', ' ')} (eV/atom)"] = [float(x) for x in values]
        for name in ("unique", "novel", "believable"):
            if name in self.columns:
                found[name] = [bool(x) for x in self.columns[name]]
        return {name: values[some] for name, values in found.items()}

    def candidates(self) -> Candidates | None:
        """For a report; None if there is no structure."""
        if not len(self.crystals):
            return None
        columns = [Column(name, values) for name, values in self.columns_shown().items()]
        return Candidates(self.caption, columns, list(to_cif(self.crystals)))

    def track(self, tracker: Tracker, folder: Path) -> None:
        """Show the table in W&B, with pictures, which are drawn in `folder`."""
        if tracker.mode != "disabled" and len(self.crystals):
            some = slice(N_SHOWN)
            pictures = plots.structure_pictures(self.crystals[some], folder)
            columns = self.columns_shown(some) | {"CIF": list(to_cif(self.crystals[some]))}
            tracker.log_table("best_structures", columns, pictures=pictures)
