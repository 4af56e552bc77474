"""What a policy's samples are worth: sampled, decoded, given energies, evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.evaluation.stability import Judged
from crystaljax.models.wyckoff_decoder import Rollout
from crystaljax.policies import Params, WyckoffPolicy
from crystaljax.rewards.ehull import EnergyAboveHull
from crystaljax.sampling import SamplingConfig
from crystaljax.tokenizations.base import Decoded
from crystaljax.training.rollouts import judge


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
    other: EnergyAboveHull | None = None,
    sampling: SamplingConfig | None = None,
    config: EvaluationConfig | None = None,
) -> Assessment:
    """Draw n fresh samples and evaluate them, unrelaxed.

    `energy` is that of the reward; `other` is by another potential, whose verdict the
    evaluation then has as well: a model should not be marked by its own teacher alone.
    """
    rollout = policy.sample(params, n, seed, sampling)
    decoded = policy.tokenization.decode(rollout.tokens)
    by_teacher = _judged(energy, decoded)
    evaluation = evaluate(
        decoded.crystals,
        reference,
        e_above_hull=by_teacher.e_above_hull,
        hull=by_teacher.hull,
        second=None if other is None else _judged(other, decoded),
        config=config,
    )
    return Assessment(rollout, decoded.crystals, by_teacher.e_above_hull, evaluation)


def _judged(energy: EnergyAboveHull, decoded: Decoded) -> Judged:
    found = judge(energy, decoded.crystals, decoded.ok)
    above: Any = found.info.get("e_above_hull", np.full(len(found), np.nan))
    above = np.where(found.ok, above, np.nan)
    return Judged(above, f"{energy.label}, unrelaxed", energy.potential.name)
