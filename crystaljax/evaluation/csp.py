"""Crystal structure prediction: k attempts for each test crystal, judged by the true structure.

The protocol of the field (Jiao et al., NeurIPS 2023, and later work): an attempt matches if
`StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10).get_rms_dist` finds a displacement, and a test
crystal counts as found @k if one of its first k attempts matches, with the least displacement of
these. Some published numbers also ask that attempts pass CDVAE's tests of validity; here these are
rates of their own. Structures are compared as primitive cells, however they are given. The mean
share of a test crystal's attempts that match estimates the rate @1 with less noise where attempts
are independent samples, such as a model's.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax.composition import formula
from crystaljax.crystal import AtomicCell
from crystaljax.evaluation.attempt_energies import CSPEnergies
from crystaljax.evaluation.attempts import (
    CSP_TOLERANCES,
    Attempts,
    Known,
    displacements,
    element_counts_of,
)
from crystaljax.evaluation.charge_balance import OxidationTable, formula_valid, smact_description
from crystaljax.evaluation.features import diversity, novelty
from crystaljax.evaluation.matching import rms_to_relaxed
from crystaljax.evaluation.rates import Measure, Metric, MetricSet, Rate
from crystaljax.evaluation.stability import Thresholds, relaxation_metrics, stability_metrics
from crystaljax.progress import tracked
from crystaljax.reasons import in_words
from crystaljax.rewards.potentials.base import Relaxed
from crystaljax.structures import structures_of
from crystaljax.validity import apart_by_radii

ATTEMPTS = "attempts"
TARGETS = "test crystals"

SEEN = "formula_in_training_set"
"""Column of test crystals."""

NO_HIGHER = 0.001
"""eV/atom up to which an attempt counts as no higher in energy than the true structure."""


@dataclass(frozen=True)
class CSPConfig:
    """Definitions of the metrics; every value is printed with the results."""

    at: tuple[int, ...] = ()
    """Numbers of attempts k of the rates @k; 1 and the most that a test crystal has if empty."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    """Energies above hull that count as stable and metastable."""
    oxidation_table: OxidationTable = "smact14"
    """Oxidation states of the compositional test: smact14 (as published) or icsd24 (newer)."""
    seconds: float = 10.0
    """Time for one comparison of structures, after which they do not match."""
    progress: bool = True
    """Show a progress bar."""


@dataclass(frozen=True)
class CSPEvaluation(MetricSet):
    """Metrics of a prediction; `columns` are of its attempts."""

    targets: Mapping[str, np.ndarray]
    """Per test crystal [T]: id, formula, attempts, the first of them that matches (0 if none
    does), the least displacement of the first k, the share of the attempts that match."""

    def write_tables(self, folder: Path, name: str = "") -> None:
        """Write attempts.csv and targets.csv, with NAME- in front if there is one."""
        for kind, columns in (("attempts", self.columns), ("targets", self.targets)):
            path = folder / (f"{name}-{kind}.csv" if name else f"{kind}.csv")
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                rows = zip(*(column.tolist() for column in columns.values()), strict=True)
                writer.writerows(rows)


def evaluate_csp(
    truth: Known,
    attempts: Attempts,
    train: Known | None = None,
    energies: CSPEnergies | None = None,
    config: CSPConfig | None = None,
    second: CSPEnergies | None = None,
) -> CSPEvaluation:
    """Judge attempts at the structures of test crystals.

    Args:
      train: training set, for rates of the test crystals whose formula is not in it, and novelty.
      energies: of attempts and true structures, for stability and, if there was a relaxation,
        for the same rates after it.
      second: those by another potential, for stability alone, in metrics named after it.

    An attempt that fails in one of the tests fails that test alone.
    """
    task = _Task(truth, attempts, train, config or CSPConfig())
    steps: list[Callable[[], None]] = [task.matches, task.validity, task.variety]
    if energies is not None:
        steps.append(partial(task.stability, energies))
    if second is not None:
        steps.append(partial(task.stability, second, second.potential))
    if energies is not None and energies.relaxed is not None:
        steps.append(partial(task.relaxation, energies.relaxed, energies.label))
    for step in tracked(steps, "evaluating") if task.config.progress else steps:
        step()
    context = (*task.context, *task.notes, *attempts.notes)
    return CSPEvaluation(
        len(attempts), tuple(task.metrics), context, task.columns, task.target_columns
    )


class _Task:
    """One evaluation under way: each step adds columns, metrics and notes."""

    def __init__(
        self,
        truth: Known,
        attempts: Attempts,
        train: Known | None,
        config: CSPConfig,
    ) -> None:
        self.truth, self.attempts, self.train, self.config = truth, attempts, train, config
        self.metrics: list[Metric] = []
        self.notes: list[str] = []
        self.counts = element_counts_of(attempts.cells)
        n_attempts = np.bincount(attempts.target, minlength=len(truth))
        self.at = config.at or tuple(sorted({1, int(n_attempts.max(initial=1))}))
        asked = np.full(len(attempts), "", object)
        for attempt, target in zip(attempts.attempt, attempts.target, strict=True):
            asked[attempt] = truth.formulas[target]
        found = np.array([formula(row) for row in self.counts], object)
        crystal = np.array([cell is not None for cell in attempts.cells], bool)
        self.as_asked = crystal & (asked == found)
        self.columns: dict[str, np.ndarray] = {
            "asked": asked.astype(str),
            "formula": found.astype(str),
            "crystal": crystal,
            "as_asked": self.as_asked,
        }
        seen = set(train.formulas) if train is not None else set()
        self.unseen = np.array([name not in seen for name in truth.formulas], bool)
        self.target_columns: dict[str, np.ndarray] = {
            "material_id": np.array(truth.ids),
            "formula": np.array(truth.formulas),
            "attempts": n_attempts,
        }
        if train is not None:
            self.target_columns[SEEN] = ~self.unseen
        self.context = self._context(n_attempts)

    def _context(self, n_attempts: np.ndarray) -> list[str]:
        most = int(n_attempts.max(initial=0))
        lines = [
            f"{len(self.attempts)} attempts at {(n_attempts > 0).sum()} of the test crystals of"
            f" {self.truth}; those that are no crystal count as attempts, and a test crystal"
            " without attempts as not found",
            f"match: pymatgen StructureMatcher({CSP_TOLERANCES}), primitive cells",
        ]
        if (fewer := int((n_attempts < most).sum())) and most > 1:
            lines.append(
                f"{fewer} of {len(self.truth)} test crystals have fewer than {most} attempts"
            )
        if self.train is not None:
            lines.append(f"training set: {self.train}")
        return lines

    def matches(self) -> None:
        """Match rates and displacements of the attempts as they stand."""
        self._matches(self.attempts.cells, "", "")

    def _matches(self, cells: Sequence[AtomicCell | None], prefix: str, state: str) -> None:
        """Matches of cells [A], under names with a prefix; `state`: relaxed or not, in words."""
        truth, attempts = self.truth, self.attempts
        rms, failures = displacements(truth, attempts, cells, self.config.seconds)
        key = prefix.replace(" ", "_")
        self._not_compared(f"{key}not_compared", failures, f"{prefix}attempts")
        best = np.full(len(attempts), np.inf)
        np.fmin.at(best, attempts.attempt, rms)
        self.columns[f"{key}rms"] = np.where(np.isfinite(best), best, np.nan)
        matched = np.isfinite(rms)
        first = np.full(len(truth), len(attempts) + 1)
        np.minimum.at(first, attempts.target[matched], attempts.rank[matched] + 1)
        self.target_columns[f"{key}first_match"] = np.where(first > len(attempts), 0, first)
        for k in self.at:
            least = np.full(len(truth), np.nan)
            pairs = matched & (attempts.rank < k)
            np.fmin.at(least, attempts.target[pairs], rms[pairs])
            self.target_columns[f"{key}rms_{k}"] = least
        n_pairs, n_matched = (
            np.bincount(attempts.target[rows], minlength=len(truth))
            for rows in (slice(None), matched)
        )
        share = n_matched / np.maximum(n_pairs, 1)
        self.target_columns[f"{key}matching_attempts"] = share
        for title, of, mask in self._parts():
            for k in self.at:
                self._match_metrics(k, mask, prefix, title, of, state)
            self.metrics.append(
                Measure.mean(
                    f"{prefix}matching attempts{title}",
                    100 * share[mask],
                    "%",
                    f"share of the attempts at a test crystal that match it{state}",
                    denominator=of,
                    reference=f"{truth.name}; {CSP_TOLERANCES}",
                )
            )

    def _not_compared(self, column: str, failures: Mapping[int, str], what: str) -> None:
        """A column of the reasons that attempts could not be compared, and a note of them."""
        reasons = [failures.get(row, "") for row in range(len(self.attempts))]
        self.columns[column] = np.array(reasons, str)
        if failures:
            self.notes.append(
                f"{len(failures)} {what} could not be compared, and count as no match:"
                f" {in_words(failures.values())}"
            )

    def _parts(self) -> list[tuple[str, str, np.ndarray]]:
        """Endings of names, denominators and masks [T] of sets of test crystals."""
        parts = [("", TARGETS, np.ones(len(self.truth), bool))]
        if self.train is not None:
            of = f"{TARGETS} of formulas that are not in the training set"
            parts.append((" (formula-disjoint)", of, self.unseen))
        return parts

    def _match_metrics(
        self, k: int, mask: np.ndarray, prefix: str, title: str, of: str, state: str
    ) -> None:
        rms = self.target_columns[f"{prefix.replace(' ', '_')}rms_{k}"][mask]
        attempts = f"the first {k} attempts" if k > 1 else "the first attempt"
        about = f"{attempts}{state}"
        reference = f"{self.truth.name}; {CSP_TOLERANCES}"
        unit = "(V/N)^(1/3)"
        self.metrics += [
            Rate.of(
                f"{prefix}match rate @{k}{title}",
                np.isfinite(rms),
                f"{'one of ' if k > 1 else ''}{about} matches the true structure",
                of,
                reference,
            ),
            Measure.mean(
                f"{prefix}RMSE @{k}{title}",
                rms,
                unit,
                f"smallest RMS displacement of {about} that match"
                if k > 1
                else f"RMS displacement of {about}, if it matches",
                denominator=f"{of} that are matched",
                reference=reference,
            ),
            Measure.mean(
                f"{prefix}cRMSE @{k}{title}",
                np.where(np.isfinite(rms), rms, CSP_TOLERANCES.stol),
                unit,
                f"the same, {CSP_TOLERANCES.stol:g} where none matches",
                denominator=of,
                reference=reference,
            ),
        ]

    def validity(self) -> None:
        """Rates of attempts that are crystals, of the right composition, valid, charge-balanced."""
        table = smact_description(self.config.oxidation_table)
        self._rate("crystal", self.columns["crystal"], "the attempt describes a crystal at all")
        self._rate("as asked", self.as_asked, "a crystal of the reduced formula that was asked")
        apart = apart_by_radii(self.attempts.cells)
        self._rate(
            "valid structure",
            apart,
            "no two atoms (or periodic images) closer than half the sum of their covalent radii"
            " (Cordero 2008)",
        )
        neutral = np.array(
            [
                bool(name) and formula_valid(name, self.config.oxidation_table)
                for name in self.columns["formula"].tolist()
            ],
            bool,
        )
        neutral &= self.columns["crystal"]
        self._rate(
            "valid composition",
            neutral,
            "charge-balanced with agreeable electronegativities, or an alloy of metals",
            table,
        )
        self._rate("valid", apart & neutral, "valid structure and valid composition", table)

    def _rate(self, name: str, mask: np.ndarray, description: str, reference: str = "") -> None:
        self.columns[name.replace(" ", "_")] = mask
        self.metrics.append(Rate.of(name, mask, description, ATTEMPTS, reference))

    def variety(self) -> None:
        """Diversity of the valid attempts, and their distance from the training set."""
        scale = self.train if self.train is not None else self.truth
        space = scale.features
        good = self.columns["valid_structure"]
        cells = [c if ok else None for c, ok in zip(self.attempts.cells, good, strict=True)]
        features = {
            "composition": (space.compositions(self.counts * good[:, None]), space.composition),
            "structure": (space.structures(cells), space.structure),
        }
        said: dict[str, Any] = {"denominator": f"valid structures among the {ATTEMPTS}"}
        unit = f"σ of {scale.name}"
        for kind, (mine, known) in features.items():
            about = f"distance from other attempts in the space of {kind} features"
            name = f"{kind} diversity"
            self.metrics.append(Measure.mean(name, diversity(mine), unit, about, **said))
            if self.train is not None:
                away = novelty(mine, known)
                self.columns[f"{kind}_novelty"] = away
                about = f"distance from the nearest training crystal's {kind} features"
                said_of = said | {"reference": self.train.name}
                self.metrics.append(Measure.mean(f"{kind} novelty", away, unit, about, **said_of))

    def stability(self, energies: CSPEnergies, judge: str = "") -> None:
        """Stability, and energy relative to the true structure.

        judge: another potential than the first one's name, which names and columns end with.
        """
        end, key = (f" ({judge})", f"_{judge}".replace(" ", "_")) if judge else ("", "")
        by = f" by {judge}" if judge else ""
        self.context.append(f"energies above hull{by}: {energies.hull}")
        self.columns[f"e_above_hull{key}"] = energies.e_above_hull
        limits = self.config.thresholds
        for metric in stability_metrics(energies.e_above_hull, energies.hull, thresholds=limits):
            of = ATTEMPTS if isinstance(metric, Rate) else f"{ATTEMPTS} with an energy"
            self.metrics.append(replace(metric, name=f"{metric.name}{end}", denominator=of))
        with np.errstate(invalid="ignore"):
            metastable = energies.e_above_hull <= limits.metastable
        self.columns[f"metastable_as_asked{key}"] = metastable & self.as_asked
        self.metrics += [
            Rate.of(
                f"metastable as asked{end}",
                metastable & self.as_asked,
                f"energy above hull ≤ {limits.metastable:g} eV/atom, and of the reduced formula"
                " that was asked",
                ATTEMPTS,
                energies.hull,
            ),
            *self._relative_energies(energies, end, key),
        ]

    def _relative_energies(self, energies: CSPEnergies, end: str, key: str) -> list[Metric]:
        """Metrics of energies relative to those of the true structures, and their columns.

        An attempt at several test crystals is, in its column, relative to the lowest of these.
        """
        attempts = self.attempts
        pairs = self.as_asked[attempts.attempt]
        relative = energies.energy[attempts.attempt] - energies.true_energy[attempts.target]
        relative = np.where(pairs, relative, np.nan)
        lowest, column = np.full(len(self.truth), np.nan), np.full(len(attempts), np.nan)
        np.fmin.at(lowest, attempts.target, relative)
        np.fmax.at(column, attempts.attempt, relative)
        self.target_columns[f"lowest_relative_energy{key}"] = lowest
        self.columns[f"relative_energy{key}"] = column
        said: dict[str, Any] = {"reference": energies.label}
        of = f"{ATTEMPTS} of the formula asked, with an energy"
        about = "energy less that of the true structure by the same potential"
        least = f"{about}, of the attempt with the least"
        unit, found = "eV/atom", f"{TARGETS} with such an attempt"
        name = "relative energy"
        with np.errstate(invalid="ignore"):
            no_higher = lowest <= NO_HIGHER
        return [
            Measure.mean(f"{name}{end}", relative, unit, about, denominator=of, **said),
            Measure.median(f"median {name}{end}", relative, unit, about, denominator=of, **said),
            Measure.median(
                f"median lowest {name}{end}", lowest, unit, least, denominator=found, **said
            ),
            Rate.of(
                f"no higher than the truth{end}",
                no_higher,
                f"an attempt has an energy at most {NO_HIGHER:g} eV/atom above that of the true"
                " structure",
                TARGETS,
                energies.label,
            ),
        ]

    def relaxation(self, relaxed: Relaxed, label: str) -> None:
        """Match rates after relaxation, and how far it moved the attempts."""
        self.context.append(f"relaxation: {label}")
        self._matches(relaxed.cells, "relaxed ", " after relaxation")
        before = [None if c is None else structures_of([c])[0] for c in self.attempts.cells]
        after = [None if c is None else structures_of([c])[0] for c in relaxed.cells]
        away, failures = rms_to_relaxed(before, after, self.config.seconds)
        what = "attempts and their relaxed forms"
        self._not_compared("not_compared_to_relaxed", failures, what)
        self.columns["rmsd_to_relaxed"] = away
        self.columns["relaxation_steps"] = relaxed.steps
        for metric in relaxation_metrics(away, relaxed, label):
            of = ATTEMPTS if isinstance(metric, Rate) else metric.denominator
            self.metrics.append(replace(metric, denominator=of.replace("samples", ATTEMPTS)))
