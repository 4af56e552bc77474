"""All metrics of a set of generated crystals, each with its denominator and its reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from crystaljax.composition import formulas
from crystaljax.crystal import AtomicCell, Crystals
from crystaljax.evaluation.charge_balance import (
    OxidationTable,
    composition_valid,
    smact_description,
)
from crystaljax.evaluation.distribution import Distributions, distribution_metrics
from crystaljax.evaluation.matching import (
    StructureSet,
    clusters,
    novel_mask,
    once,
    rms_to_relaxed,
)
from crystaljax.evaluation.rates import Measure, Metric, MetricSet, Rate
from crystaljax.evaluation.stability import (
    EnergiesAboveHull,
    Thresholds,
    keeps_space_group,
    relaxation_metrics,
    stability_metrics,
)
from crystaljax.evaluation.user_metrics import load_metrics, measured
from crystaljax.progress import tracked
from crystaljax.reasons import in_words
from crystaljax.rewards.believable import believable
from crystaljax.rewards.potentials.base import Relaxed
from crystaljax.structures import structures_of, to_cells, to_structure
from crystaljax.validity import MIN_DISTANCE, MIN_VOLUME, is_crystal, structure_valid


@dataclass(frozen=True)
class EvaluationConfig:
    """Definitions of the metrics; every value is printed with the results."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    """Energies above hull that count as stable and metastable."""
    oxidation_table: OxidationTable = "smact14"
    """Oxidation states of the compositional test: smact14 (as published) or icsd24 (newer)."""
    min_distance: float = MIN_DISTANCE
    """Å: closer atoms make a structure invalid."""
    min_volume: float = MIN_VOLUME
    """Å³: a smaller cell makes a structure invalid."""
    symprec: float = 0.01
    """Å: tolerance with which space groups are found again."""
    seconds: float = 10.0
    """Time for one comparison of structures, after which that crystal counts as failed."""
    progress: bool = True
    """Show a progress bar."""
    metrics: tuple[str, ...] = ()
    """Further metrics of your own, each as FILE.py:FUNCTION; see `user_metrics.UserMetric`."""

    def __post_init__(self) -> None:
        load_metrics(self.metrics)  # mistakes are told before anything is sampled


@dataclass(frozen=True)
class Reference:
    """The training set: what is not new, and the distributions to come near to.

    Make one with `of` and keep it: what one evaluation prepares, the next ones use again.
    """

    name: str
    """Name in reports, like "mp20_bt/train"."""
    crystals: Crystals
    structures: StructureSet

    @staticmethod
    def of(crystals: Crystals, name: str) -> Reference:
        """A reference set of the crystals."""
        return Reference(name, crystals, StructureSet.from_crystals(crystals, name))

    @cached_property
    def distributions(self) -> Distributions:
        """Distributions of the set's crystals."""
        return Distributions.of(self.crystals)

    def __str__(self) -> str:
        return f"{self.name} ({len(self.structures)} crystals)"


@dataclass(frozen=True)
class Evaluation(MetricSet):
    """The metrics of N generated crystals; per sample formula, space_group, e_above_hull, ..."""

    distributions: Distributions
    """Distributions of the samples."""


def evaluate(
    crystals: Crystals,
    reference: Reference | None = None,
    *,
    e_above_hull: np.ndarray | None = None,
    hull: str = "unnamed hull",
    n_known: np.ndarray | None = None,
    second: EnergiesAboveHull | None = None,
    relaxed: Relaxed | None = None,
    relaxation: str = "unnamed potential",
    config: EvaluationConfig | None = None,
) -> Evaluation:
    """Judge N generated crystals.

    Args:
      crystals: all samples asked of the model; rows that failed to decode are zero.
      reference: training set, for novelty and for distances between distributions.
      e_above_hull: [N] eV/atom, nan where unknown; without it nothing is said of stability.
      hull: names the hull and the potential, like "mp20_bt hull, CHGNet 0.3.0, unrelaxed".
      n_known: int [N], entries of that hull in the sample's chemical system and its subsystems
        (`Hull.n_known`), for rates of believable energies (`believable.believable`).
      second: what another potential says of the same samples, for metrics named after it.
      relaxed: the N samples relaxed, for match rate, RMSD, energy drop and steps.
      relaxation: names the potential and the optimiser they were relaxed with.
      config: thresholds, tables and metrics of a user's own.

    A crystal that fails in one of the tests fails that test alone. ValueError if the lengths of
    the inputs differ.
    """
    config = config or EvaluationConfig()
    own = load_metrics(config.metrics)
    crystals = crystals.to_numpy()
    second_energies = None if second is None else second.e_above_hull
    _check_lengths(
        len(crystals),
        {
            "e_above_hull": e_above_hull,
            "n_known": n_known,
            "second": second_energies,
            "relaxed": None if relaxed is None else relaxed.cells,
        },
    )
    task = _Task(crystals, reference, config, {}, [], [])
    context = [
        f"{len(crystals)} generated samples; every rate is of these unless it says otherwise"
    ]
    if reference is not None:
        context.append(f"reference set: {reference}")
    steps = [
        task.validity,
        task.composition,
        task.uniqueness,
        task.novelty,
        task.symmetry,
    ]
    for step in tracked(steps, "evaluating") if config.progress else steps:
        step()
    columns, metrics = task.columns, task.metrics
    if e_above_hull is not None:
        energy = np.asarray(e_above_hull, np.float64)
        columns["e_above_hull"] = energy
        if n_known is not None:
            columns["believable"] = believable(energy, n_known)
        metrics += task.stability(energy, hull, n_known)
        limits = config.thresholds
        context += [
            f"energies above hull: {hull}",
            f"stable ≤ {limits.stable:g} eV/atom, metastable ≤ {limits.metastable:g} eV/atom",
        ]
    if second is not None:
        columns[f"e_above_hull_{second.potential}".replace(" ", "_")] = second.e_above_hull
        for metric in task.stability(second.e_above_hull, second.hull, second.n_known):
            metrics.append(replace(metric, name=f"{metric.name} ({second.potential})"))
        context.append(f"energies above hull by {second.potential}: {second.hull}")
    if relaxed is not None:
        before = structures_of(task.cells)
        after = [None if cell is None else to_structure(cell) for cell in relaxed.cells]
        displacement, failed = rms_to_relaxed(before, after, config.seconds)
        columns["rmsd_to_relaxed"] = displacement
        columns["relaxation_steps"] = relaxed.steps
        columns["energy_drop"] = relaxed.initial_energy - relaxed.energy
        metrics += relaxation_metrics(displacement, relaxed, relaxation)
        context.append(f"relaxation: {relaxation}")
        if failed:
            context.append(
                "not compared with their relaxed forms, and counted as no match:"
                f" {in_words(failed.values())}"
            )
    distributions = Distributions.of(crystals)
    if reference is not None:
        metrics += distribution_metrics(distributions, reference.distributions, reference.name)
    more, failures = measured(own, crystals, {metric.name for metric in metrics})
    metrics += more
    context += task.notes + failures
    return Evaluation(len(crystals), tuple(metrics), tuple(context), columns, distributions)


@dataclass(frozen=True)
class _Task:
    """One evaluation under way: each step adds columns, metrics and notes."""

    crystals: Crystals
    reference: Reference | None
    config: EvaluationConfig
    columns: dict[str, np.ndarray]
    metrics: list[Metric]
    notes: list[str]

    def validity(self) -> None:
        config = self.config
        self.columns["formula"] = np.array(formulas(self.crystals))
        self.columns["space_group"] = self.crystals.space_group
        self._add("decoded", is_crystal(self.crystals), "the sample describes a crystal at all")
        self._add(
            "valid structure",
            structure_valid(self.crystals, config.min_distance, config.min_volume, self.cells),
            f"no atoms (or periodic images) closer than {config.min_distance:g} Å, and a primitive"
            f" cell of at least {config.min_volume:g} Å³",
        )

    def composition(self) -> None:
        table = smact_description(self.config.oxidation_table)
        self.notes.append(f"compositional validity: {table}")
        valid = composition_valid(self.crystals, self.config.oxidation_table)
        valid &= self.columns["decoded"]
        description = "charge-balanced with agreeable electronegativities, or an alloy of metals"
        self._add("valid composition", valid, description, table)
        both = valid & self.columns["valid_structure"]
        self._add("valid", both, "valid structure and valid composition", table)

    @cached_property
    def cells(self) -> list[AtomicCell]:
        """Primitive cells of the samples [N], which all tests share."""
        return list(to_cells(self.crystals, primitive=True))

    @cached_property
    def _samples(self) -> StructureSet:
        return StructureSet.from_crystals(self.crystals, "samples", self.config.seconds, self.cells)

    def uniqueness(self) -> None:
        cluster = np.where(self.columns["decoded"], clusters(self._samples), -1)
        self.columns["cluster"] = cluster
        self.notes.append(
            "unique and novel: pymatgen StructureMatcher, default tolerances; of samples that "
            "match each other, one counts"
        )
        everyone = np.ones(len(cluster), bool)
        self._add("unique", once(everyone, cluster), "the first of the samples that it matches")

    def novelty(self) -> None:
        if self.reference is not None:
            novel = novel_mask(self._samples, self.reference.structures)
            novel &= self.columns["decoded"]
            name = str(self.reference)
            self._add("novel", novel, "matches nothing in the reference set", name)
            both = once(novel, self.columns["cluster"])
            self._add("unique and novel", both, "novel, the first of such that it matches", name)
        failed = np.zeros(len(self.crystals), bool)
        failed[list(self._samples.failures)] = True
        failed &= self.columns["decoded"]
        if failed.any():
            self.notes.append(
                f"{failed.sum()} samples could not be compared: not unique, not novel"
            )

    def symmetry(self) -> None:
        symprec = self.config.symprec
        self._add(
            "keeps space group",
            keeps_space_group(self.crystals, symprec, self.cells),
            f"the full cell has the sample's space group at symprec {symprec:g} Å",
        )

    def stability(
        self, e_above_hull: np.ndarray, hull: str, n_known: np.ndarray | None
    ) -> list[Rate | Measure]:
        """Metrics of energies above hull [N], once uniqueness and novelty are known."""
        return stability_metrics(
            e_above_hull,
            hull,
            cluster=self.columns["cluster"],
            novel=self.columns.get("novel"),
            correct_group=self.columns["keeps_space_group"],
            n_known=n_known,
            reference="" if self.reference is None else str(self.reference),
            thresholds=self.config.thresholds,
        )

    def _add(self, name: str, mask: np.ndarray, description: str, reference: str = "") -> None:
        self.columns[name.replace(" ", "_")] = mask
        self.metrics.append(Rate.of(name, mask, description, reference=reference))


def _check_lengths(n: int, inputs: Mapping[str, Any]) -> None:
    for name, values in inputs.items():
        if values is not None and len(values) != n:
            raise ValueError(f"{n} crystals, but {name} has {len(values)} entries")
