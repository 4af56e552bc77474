"""Evaluation of crystals that come from a file: their energies, and what a file cannot tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from crystaljax.composition import element_counts
from crystaljax.crystal import Crystals
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.ehull import EnergyAboveHull, relaxation_of, relaxation_state
from crystaljax.rewards.potentials.base import no_relaxation, put_relaxed
from crystaljax.training.progress import tracked

NOT_FROM_FILES = ("keeps space group", "S.S.U.N.", "believable S.S.U.N.")
"""Metrics of the space group that a sample was generated in, which no file of crystals tells."""

ENERGY_CHUNK = 256
"""Crystals between two steps of the progress bar of energies."""

RELAX_CHUNK = 64
"""Crystals relaxed together."""


def evaluate_file(
    crystals: Crystals,
    n: int,
    reference: Reference | None = None,
    energy: EnergyAboveHull | None = None,
    config: EvaluationConfig | None = None,
) -> Evaluation:
    """Evaluate B crystals as those of n samples that are crystals; the others count as failed.

    Args:
      reference: training set, for novelty.
      energy: what gives energies above hull, and relaxes the crystals before if it is made so;
        without it nothing is said of stability.
      config: of the evaluation.

    The metrics of `NOT_FROM_FILES` are left out. ValueError if n < B.
    """
    missing = n - len(crystals)
    if missing < 0:
        raise ValueError(
            f"{len(crystals)} crystals cannot come of {n} samples: give the number asked"
        )
    notes = [f"{len(crystals)} of {n} samples are crystals"]
    known: dict[str, Any] = {}
    if energy is not None:
        found = energies(energy, crystals)
        relaxed = relaxation_of(found) if energy.relax_steps else None
        state = relaxation_state(relaxed, energy.relax_steps)
        if relaxed is not None:
            known["relaxed"] = no_relaxation(["no crystal"] * n)
            put_relaxed(known["relaxed"], np.arange(len(crystals)), relaxed)
            known["relaxation"] = f"{energy.potential.name}, {state}"
        above = found.info["e_above_hull"]
        known["e_above_hull"] = np.pad(above, (0, missing), constant_values=np.nan)
        known["n_known"] = energy.hull.n_known(element_counts(crystals.padded(n)))
        known["hull"] = f"{energy.label}, {state}"
        if any(found.reasons):
            notes.append(f"without an energy above hull: {in_words(found.reasons)}")
    result = evaluate(crystals.padded(n), reference, **known, config=config)
    return replace(
        result,
        metrics=tuple(m for m in result.metrics if m.name not in NOT_FROM_FILES),
        columns={k: v for k, v in result.columns.items() if k != "keeps_space_group"},
        context=(*result.context, *notes),
    )


def energies(energy: EnergyAboveHull, crystals: Crystals) -> RewardBatch:
    """Energies above hull of B crystals, relaxed if `energy` does so, with a progress bar."""
    size, what = (RELAX_CHUNK, "relaxing") if energy.relax_steps else (ENERGY_CHUNK, "energies")
    chunks = [crystals[start : start + size] for start in range(0, max(1, len(crystals)), size)]
    return RewardBatch.concatenate([energy(chunk) for chunk in tracked(chunks, what)])


def in_words(reasons: Iterable[str | None]) -> str:
    """The reasons there are and how often, the most frequent first."""
    counted = Counter(reason for reason in reasons if reason).most_common()
    return "; ".join(f"{count} × {reason}" for reason, count in counted)
