"""The best structures of an evaluation, for tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystaljax import plots
from crystaljax.composition import formulas
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


JUDGE_ENERGY = "e_above_hull_judge"
"""Name for that of the second judge, whatever potential it is."""

DEFAULT = ("formula", "space_group", "log_prob", "unique", "novel", "believable")
"""Columns shown by default; scores and energies come after the second."""

ALWAYS = (
    *("formula", "space_group", "log_prob", "e_above_hull", "believable", "unique", "novel"),
    *("unique_and_novel", "valid_structure", "valid_composition", "valid", "keeps_space_group"),
    *("decoded", "cluster"),
)
"""Columns that every evaluation of a policy with a hull and a reference set has."""

RELAXED = ("rmsd_to_relaxed", "relaxation_steps", "energy_drop")
"""Columns that relaxation adds."""

HEADINGS = {
    "log_prob": "log-probability (nats)",
    "rmsd_to_relaxed": "RMSD to relaxed (Å)",
    "energy_drop": "energy drop (eV/atom)",
}
"""Headings of columns that are not just their names."""


@dataclass(frozen=True)
class ReportConfig:
    """Contents of a report."""

    columns: tuple[str, ...] = ()
    """Columns of the table of candidates, in order, such as formula reward e_above_hull novel. The
    error for an unknown name lists the known ones. Not given: formula, space group, reward,
    energies, log-probability, and whether it is unique, novel and believable."""

    def check(self, known: Sequence[str]) -> None:
        """ValueError for a column that is not known, and for one that is named twice."""
        for i, name in enumerate(self.columns):
            if name not in known:
                raise ValueError(
                    f"--report.columns: there is no column {name!r}: choose from {', '.join(known)}"
                )
            if name in self.columns[:i]:
                raise ValueError(f"--report.columns: {name} is named twice")


class Score(NamedTuple):
    """A number of each sample beside what evaluations find."""

    heading: str
    """Its name with its unit."""
    values: np.ndarray
    """float64 [N]: nan where it is not known."""


@dataclass(frozen=True)
class BestStructures:
    """The best structures, best first."""

    caption: str
    crystals: Crystals
    """[n]."""
    columns: Mapping[str, np.ndarray]
    """[n] each: what an evaluation found of them, and their scores."""
    scores: Mapping[str, str] = field(default_factory=dict)
    """Headings of the scores, such as rewards of a user's own, by the names of their columns."""
    chosen: tuple[str, ...] = ()
    """Columns to show, in order; a choice of ours if empty."""

    @staticmethod
    def of(
        found: Assessment,
        caption: str,
        score: np.ndarray | None = None,
        scores: Mapping[str, Score] = MappingProxyType({}),
        chosen: tuple[str, ...] = (),
        n: int = N_LISTED,
    ) -> BestStructures:
        """At most n structures of largest score [N] (nan: none); by default of lowest energy."""
        score = np.asarray(-found.e_above_hull if score is None else score, float)
        rows = np.argsort(-score)  # nan comes last
        rows = rows[np.isfinite(score[rows])][:n]
        every = {**found.evaluation.columns, **{name: x.values for name, x in scores.items()}}
        columns = {name: np.asarray(x)[rows] for name, x in every.items()}
        headings = {name: x.heading for name, x in scores.items()}
        return BestStructures(
            caption, found.crystals.to_numpy()[rows], columns, headings, tuple(chosen)
        )

    def figure(self) -> Figure:
        """The first few, with their energies above hull."""
        some = slice(N_DRAWN)
        captions = None
        if ENERGY in self.columns:
            captions = [f"{x:.3f} eV/atom above hull" for x in self.columns[ENERGY][some]]
        if self.scores:
            name, heading = next(iter(self.scores.items()))
            captions = [f"{heading}: {x:.4g}" for x in self.columns[name][some]]
        return plots.structure_grid(self.crystals[some], captions)

    def columns_shown(self, some: slice = slice(None)) -> dict[str, list[Any]]:
        """The columns to show, by their headings."""
        return {self._heading(name): self._values(name, some) for name in self._shown()}

    def _shown(self) -> Sequence[str]:
        if self.chosen:
            return [self._found(name) for name in self.chosen]
        energies = [name for name in self.columns if name.startswith(ENERGY)]
        names = [*DEFAULT[:2], *self.scores, *energies, *DEFAULT[2:]]
        return [name for name in names if name in self.columns]

    def _found(self, name: str) -> str:
        """The name that the evaluation gave to a column."""
        if name != JUDGE_ENERGY:
            return name
        return next(x for x in self.columns if x.startswith(f"{ENERGY}_"))

    def _heading(self, name: str) -> str:
        heading = self.scores.get(name) or HEADINGS.get(name) or name.replace("_", " ")
        return f"{heading} (eV/atom)" if name.startswith(ENERGY) else heading

    def _values(self, name: str, some: slice) -> list[Any]:
        """Plain texts, numbers or truth values."""
        values: list[Any] = self.columns[name][some].tolist()
        if name == "space_group":
            return [f"{group} {tables().symbol[group - 1]}" for group in values]
        return values

    def candidates(self) -> Candidates | None:
        """Candidates for a report; None if there is no structure."""
        if not len(self.crystals):
            return None
        columns = [Column(name, values) for name, values in self.columns_shown().items()]
        cifs = list(to_cif(self.crystals))
        return Candidates(self.caption, columns, cifs, formulas(self.crystals))

    def track(self, tracker: Tracker, folder: Path) -> None:
        """Show the table in W&B, with pictures, which are drawn in `folder`."""
        if tracker.mode != "disabled" and len(self.crystals):
            some = slice(N_SHOWN)
            pictures = plots.structure_pictures(self.crystals[some], folder)
            columns = self.columns_shown(some) | {"CIF": list(to_cif(self.crystals[some]))}
            tracker.log_table("best_structures", columns, pictures=pictures)
