"""Pictures and candidates of one evaluation, for its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crystaljax import plots
from crystaljax.crystal import Crystals
from crystaljax.evaluation.evaluate import Evaluation, Reference
from crystaljax.evaluation.policies import Assessment
from crystaljax.experiment.best import ENERGY, BestStructures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def best_evaluated(found: Evaluation, crystals: Crystals) -> BestStructures:
    """The samples of lowest energy above hull; without energies, the first valid ones.

    crystals: those evaluated; the evaluation may count further samples that are no crystals.
    """
    n = found.n
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
    energies = {
        name.removeprefix(ENERGY).lstrip("_").replace("_", " ") or potential: np.asarray(x, float)
        for name, x in found.columns.items()
        if name.startswith(ENERGY)
    }
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
