"""What a policy's samples are worth: sampled, decoded, given energies, evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.models.wyckoff_decoder import Rollout
from crystaljax.policies import Params, WyckoffPolicy
from crystaljax.rewards.ehull import EnergyAboveHull
from crystaljax.sampling import SamplingConfig
from crystaljax.training.reinforce import judge


@dataclass(frozen=True)
class Assessment:
    """N samples of a policy and what was found."""

    rollout: Rollout
    crystals: Crystals
    """[N], zero where a sequence is no crystal."""
    e_above_hull: np.ndarray
    """float64 [N]: eV/atom, as sampled (not relaxed); nan where unknown."""
    evaluation: Evaluation


def assess(
    policy: WyckoffPolicy,
    params: Params,
    energy: EnergyAboveHull,
    reference: Reference,
    *,
    n: int,
    seed: int,
    potential: str,
    sampling: SamplingConfig | None = None,
    config: EvaluationConfig | None = None,
) -> Assessment:
    """Draw n fresh samples and evaluate them, unrelaxed.

    `potential` names what gives the energies, for the report.
    """
    rollout = policy.sample(params, n, seed, sampling)
    decoded = policy.tokenization.decode(rollout.tokens)
    judged = judge(energy, decoded.crystals, decoded.ok)
    above: Any = judged.info.get("e_above_hull", np.full(n, np.nan))
    above = np.where(judged.ok, above, np.nan)
    evaluation = evaluate(
        decoded.crystals,
        reference,
        e_above_hull=above,
        hull=f"{energy.hull.name} ({energy.hull.n_entries} entries), {potential}, unrelaxed",
        config=config,
    )
    return Assessment(rollout, decoded.crystals, above, evaluation)
