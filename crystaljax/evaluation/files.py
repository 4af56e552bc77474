"""Crystals in files: their energies, duplicates, and their evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from crystaljax.composition import element_counts
from crystaljax.crystal import Crystals
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.evaluation.matching import StructureSet, clusters
from crystaljax.evaluation.stability import EnergiesAboveHull
from crystaljax.progress import tracked_batches
from crystaljax.reasons import in_words
from crystaljax.rewards.base import Reasons, RewardBatch
from crystaljax.rewards.cell_energies import relaxation_of
from crystaljax.rewards.ehull import EnergyAboveHull, relaxation_state
from crystaljax.rewards.potentials.base import no_relaxation, put_relaxed
from crystaljax.rewards.stability import StabilityReward

NOT_FROM_FILES = ("keeps space group", "S.S.U.N.", "believable S.S.U.N.")
"""Metrics of the space group that a sample was generated in, which files of crystals lack."""

ENERGY_CHUNK = 256
"""Crystals between two steps of the progress bar of energies."""

RELAX_CHUNK = 64
"""Crystals relaxed together."""


Judge = EnergyAboveHull | StabilityReward
"""A reward that computes energies above hull, with or without workers and a cache."""


def evaluate_file(
    crystals: Crystals,
    n: int,
    reference: Reference | None = None,
    energy: Judge | None = None,
    config: EvaluationConfig | None = None,
    other: Judge | None = None,
) -> Evaluation:
    """Evaluate B crystals as those of n samples that are crystals; the others count as failed.

    Args:
      reference: training set, for novelty.
      energy: computes energies above hull, after relaxation if it is configured so. Without it
        the result says nothing about stability.
      config: settings of the evaluation.
      other: a second potential, whose results stand beside the first one's.

    The metrics of `NOT_FROM_FILES` are left out. ValueError if n < B.
    """
    if n < len(crystals):
        raise ValueError(
            f"{len(crystals)} crystals cannot come from {n} samples: give the number asked for"
        )
    notes = [f"{len(crystals)} of {n} samples are crystals"]
    known: dict[str, Any] = {}
    if energy is not None:
        first = _judged(energy, crystals, n, notes)
        known = {
            "e_above_hull": first.e_above_hull,
            "hull": first.hull,
            "n_known": first.n_known,
            "relaxed": first.relaxed,
            "relaxation": first.hull,
        }
    if other is not None:
        known["second"] = _judged(other, crystals, n, notes)
    result = evaluate(crystals.padded(n), reference, **known, config=config)
    return replace(
        result,
        metrics=tuple(m for m in result.metrics if m.name not in NOT_FROM_FILES),
        columns={k: v for k, v in result.columns.items() if k != "keeps_space_group"},
        context=(*result.context, *notes),
    )


def _judged(judge: Judge, crystals: Crystals, n: int, notes: list[str]) -> EnergiesAboveHull:
    """Energies of B crystals as those of n samples; `notes` gets the reasons of those without."""
    energy = judge.energy if isinstance(judge, StabilityReward) else judge
    found, steps, name = energies(judge, crystals), energy.relax_steps, energy.potential.name
    relaxed = None
    if steps:
        relaxed = no_relaxation(["no crystal"] * n)
        put_relaxed(relaxed, np.arange(len(crystals)), relaxation_of(found))
    if any(found.reasons):
        notes.append(f"without an energy above hull by {name}: {in_words(found.reasons)}")
    above = found.info.get("e_above_hull", np.full(len(crystals), np.nan))
    return EnergiesAboveHull(
        np.pad(above, (0, n - len(crystals)), constant_values=np.nan),
        f"{energy.label}, {relaxation_state(relaxed, steps)}",
        name,
        energy.hull.n_known(element_counts(crystals.padded(n))),
        relaxed,
    )


def energies(judge: Judge, crystals: Crystals) -> RewardBatch:
    """Energies above hull of B crystals, relaxed if `judge` does so, with a progress bar."""
    energy = judge.energy if isinstance(judge, StabilityReward) else judge
    size, what = (RELAX_CHUNK, "relaxing") if energy.relax_steps else (ENERGY_CHUNK, "energies")
    chunks = tracked_batches(crystals, size, f"{what} by {energy.potential.name}")
    return RewardBatch.concatenate([judge(chunk) for chunk in chunks])


def ranked(judge: Judge, crystals: Crystals) -> tuple[np.ndarray, dict[str, np.ndarray], Reasons]:
    """Rows of B crystals by energy above hull, the lowest first, and those without one at the end.

    Returns the rows (int [B]), the energies in their order (eV/atom; nan where there is none), and
    the reasons [B] for none.
    """
    found = energies(judge, crystals)
    order = np.argsort(np.where(found.ok, -found.value, np.inf), kind="stable")
    none = np.full(len(crystals), np.nan)
    columns = {
        name: np.where(found.ok, found.info.get(name, none), np.nan)[order]
        for name in ("energy_per_atom", "formation_energy", "e_above_hull")
    }
    return order, columns, found.reasons


def without_duplicates(crystals: Crystals, score: np.ndarray) -> np.ndarray:
    """Rows (int [n], ascending) of B crystals without duplicates: the highest score is kept.

    Crystals that cannot be compared count as no duplicates.
    """
    cluster = clusters(StructureSet.from_crystals(crystals, "samples"))
    order = np.argsort(-score, kind="stable")
    _, first = np.unique(cluster[order], return_index=True)
    kept = order[first]
    return np.union1d(kept[cluster[kept] >= 0], np.flatnonzero(cluster < 0))
