"""Pictures and candidates of one evaluation, for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from crystaljax import plots
from crystaljax.crystal import Crystals
from crystaljax.evaluation.csp import SEEN, CSPEvaluation
from crystaljax.evaluation.evaluate import Evaluation, Reference
from crystaljax.evaluation.policies import Assessment
from crystaljax.experiment.best import ENERGY, BestStructures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def best_evaluated(
    found: Evaluation, crystals: Crystals, log_prob: np.ndarray | None = None
) -> BestStructures:
    """The samples of lowest energy above hull; without energies, the first valid ones.

    Args:
      crystals: those evaluated; the evaluation may count further samples that are no crystals.
      log_prob: log-probability (nats) of each crystal, to show it in the table.
    """
    n = found.n
    if log_prob is not None:
        padded = np.pad(log_prob, (0, n - len(log_prob)), constant_values=np.nan)
        found = replace(found, columns={**found.columns, "log_prob": padded})
    if ENERGY in found.columns:
        energy = np.asarray(found.columns[ENERGY], float)
        caption, score = "Samples of lowest energy above hull", -energy
    else:
        energy = np.full(n, np.nan)
        valid = found.columns["valid_structure"]
        caption, score = (
            "The first valid samples",
            np.where(valid, -np.arange(n, dtype=float), np.nan),
        )
    return BestStructures.of(Assessment(crystals.padded(n), energy, found), caption, score)


def evaluation_figures(
    found: Evaluation, best: BestStructures, potential: str, reference: Reference | None
) -> dict[str, tuple[Figure, str]]:
    """Energies above hull by every judge, space groups, elements, the best: figure, caption.

    potential: the first judge's name, if there is one.
    """
    figures: dict[str, tuple[Figure, str]] = {}
    energies = by_judge(found.columns, ENERGY, potential)
    if energies:
        figure = plots.e_above_hull_histogram(energies)
        figures["energies"] = figure, "Energy above hull of the samples"
    distributions = {"samples": found.distributions}
    if reference is not None:
        distributions = {reference.name: reference.distributions, **distributions}
    if found.distributions.n:
        groups = {label: x.space_group for label, x in distributions.items()}
        elements = {label: x.element for label, x in distributions.items()}
        figures["space_groups"] = plots.space_group_bars(groups), "Space groups of the crystals"
        figures["elements"] = plots.element_bars(elements), "Elements of the crystals"
    if len(best.crystals):
        figures["structures"] = best.figure(), best.caption
    return figures


def by_judge(
    columns: Mapping[str, np.ndarray], start: str, potential: str
) -> dict[str, np.ndarray]:
    """The columns whose names begin so by their judges' names, the first being `potential`."""
    return {
        name.removeprefix(start).lstrip("_").replace("_", " ") or potential: np.asarray(x, float)
        for name, x in columns.items()
        if name.startswith(start)
    }


def attempt_figures(found: CSPEvaluation, potential: str) -> dict[str, tuple[Figure, str]]:
    """Match rates by k, displacements, energies by every judge: figure, caption.

    potential: the first judge's name, if there is one.
    """
    figures = {
        "match_rates": (_match_rates(found), "Match rate by number of attempts; bands of one σ"),
        "displacements": (_displacements(found), "RMS displacement from the true structure"),
    }
    if above := by_judge(found.columns, ENERGY, potential):
        figure = plots.e_above_hull_histogram(above)
        figures["energies"] = figure, "Energy above hull of the attempts"
        figures["relative_energies"] = (
            _relative_energies(found, potential),
            "Energy relative to the true structure by the same potential, of attempts of the"
            " formula asked; and the least of each test crystal",
        )
    return figures


def _match_rates(found: CSPEvaluation) -> Figure:
    """Curves of all test crystals and of the formula-disjoint ones, before and after relaxation."""
    targets = found.targets
    sets = {"all": np.ones(len(targets["attempts"]), bool)}
    if SEEN in targets:
        sets["formula-disjoint"] = ~targets[SEEN]
    first = {
        f"{which}{state}": targets[name][mask]
        for state, name in (("", "first_match"), (", relaxed", "relaxed_first_match"))
        if name in targets
        for which, mask in sets.items()
    }
    return plots.rates_at_k(first, int(targets["attempts"].max(initial=1)))


def _displacements(found: CSPEvaluation) -> Figure:
    """Histograms of the first attempts' displacements, and of the least ones of more attempts."""
    targets = found.targets
    numbers = sorted(int(name[4:]) for name in targets if name.startswith("rms_"))
    values = {
        f"{state}@{k}": targets[f"{key}rms_{k}"]
        for state, key in (("", ""), ("relaxed ", "relaxed_"))
        for k in dict.fromkeys((numbers[0], numbers[-1]))
        if f"{key}rms_{k}" in targets
    }
    label = "smallest RMS displacement of matches, (V/N)^(1/3)"
    return plots.histogram(values, label, of="test crystals", known_as="matched")


def _relative_energies(found: CSPEvaluation, potential: str) -> Figure:
    """Histograms of attempts, and of the lowest one at each test crystal."""
    kinds = {"attempts": found.columns, "lowest": found.targets}
    starts = {"attempts": "relative_energy", "lowest": "lowest_relative_energy"}
    values = {
        f"{kind}, {judge}": energies
        for kind, columns in kinds.items()
        for judge, energies in by_judge(columns, starts[kind], potential).items()
    }
    label = "energy less that of the true structure (eV/atom)"
    return plots.histogram(values, label, of="attempts, or test crystals")
