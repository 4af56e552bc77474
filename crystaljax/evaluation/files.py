"""Evaluation of crystals that come from a file: their energies, and what a file cannot tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crystaljax.composition import element_counts
from crystaljax.crystal import Crystals
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.rewards.base import Reasons
from crystaljax.rewards.ehull import EnergyAboveHull
from crystaljax.rewards.potentials.base import Relaxed, no_relaxation, put_relaxed
from crystaljax.training.progress import tracked

NOT_FROM_FILES = ("keeps space group", "S.S.U.N.")
"""Metrics of the space group that a sample was generated in, which no file of crystals tells."""

ENERGY_CHUNK = 256
"""Crystals between two steps of the progress bar of energies."""

RELAX_CHUNK = 64
"""Crystals relaxed together."""


@dataclass(frozen=True)
class FileEnergies:
    """Energies of B crystals."""

    e_above_hull: np.ndarray
    """float64 [B]: eV/atom, nan where there is none."""
    reasons: Reasons
    """[B]: why there is none."""
    state: str
    """Description of the relaxation, if there was one."""
    relaxed: Relaxed | None = None
    """The relaxed crystals, if they were relaxed."""


def evaluate_file(
    crystals: Crystals,
    n: int,
    reference: Reference | None = None,
    energy: EnergyAboveHull | None = None,
    relax: bool = False,
    config: EvaluationConfig | None = None,
) -> Evaluation:
    """Evaluate B crystals as those of n samples that are crystals; the others count as failed.

    Args:
      reference: training set, for novelty.
      energy: what gives energies above hull; without it nothing is said of stability.
      relax: relax the crystals before their energies are taken.
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
        found = unrelaxed(energy, crystals)
        if relax:
            found = relaxed(energy, crystals, found.reasons)
            assert found.relaxed is not None
            known["relaxed"] = no_relaxation(["no crystal"] * n)
            put_relaxed(known["relaxed"], np.arange(len(crystals)), found.relaxed)
            known["relaxation"] = f"{energy.potential.name}, {found.state}"
        known["e_above_hull"] = np.pad(found.e_above_hull, (0, missing), constant_values=np.nan)
        known["hull"] = f"{energy.label}, {found.state}"
        if any(found.reasons):
            notes.append(f"without an energy above hull: {in_words(found.reasons)}")
    result = evaluate(crystals.padded(n), reference, **known, config=config)
    return replace(
        result,
        metrics=tuple(m for m in result.metrics if m.name not in NOT_FROM_FILES),
        columns={k: v for k, v in result.columns.items() if k != "keeps_space_group"},
        context=(*result.context, *notes),
    )


def unrelaxed(energy: EnergyAboveHull, crystals: Crystals) -> FileEnergies:
    """Energies above hull of B crystals as they stand, with a progress bar."""
    starts = range(0, len(crystals), ENERGY_CHUNK)
    chunks = [crystals[start : start + ENERGY_CHUNK] for start in starts]
    batches = [energy(chunk) for chunk in tracked(chunks, "energies")]
    return FileEnergies(
        np.concatenate([np.zeros(0), *(batch.info["e_above_hull"] for batch in batches)]),
        [reason for batch in batches for reason in batch.reasons],
        "unrelaxed",
    )


def relaxed(energy: EnergyAboveHull, crystals: Crystals, reasons: Reasons) -> FileEnergies:
    """Energies above hull of B crystals after relaxation, with a progress bar.

    Crystals with a reason against it are left alone. FIRE in a Fréchet cell filter to forces
    below 0.02 eV/Å, the default of `Potential.relax`.
    """
    result = no_relaxation(reasons)
    rows = np.flatnonzero([reason is None for reason in reasons])
    starts = range(0, len(rows), RELAX_CHUNK)
    for part in tracked([rows[start : start + RELAX_CHUNK] for start in starts], "relaxing"):
        put_relaxed(result, part, energy.potential.relax(crystals[part]))
    above = energy.above(element_counts(crystals), result.energy, result.cells).e_above_hull
    state = f"relaxed by FIRE to 0.02 eV/Å ({result.converged.sum()} of {len(rows)} converged)"
    return FileEnergies(above, result.reasons, state, result)


def in_words(reasons: Iterable[str | None]) -> str:
    """The reasons there are and how often, the most frequent first."""
    counted = Counter(reason for reason in reasons if reason).most_common()
    return "; ".join(f"{count} × {reason}" for reason, count in counted)
