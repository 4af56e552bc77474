"""Rewards of mixtures by the rules of a family (arXiv 2511.12036, Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from crystaljax.alloys.engines.thermodynamics import Equilibria
from crystaljax.alloys.family import BCC_B2, AlloyFamily, AlloyRule
from crystaljax.alloys.rules import LOWEST, NO_MISMATCH, coexist, smallest_mismatch
from crystaljax.rewards.base import Reasons, RewardBatch, RewardError
from crystaljax.rewards.compose import failure


@dataclass(frozen=True)
class RulesConfig:
    """Temperatures of the rules, and limits of failures."""

    coexist_from: float = 0.0
    """K: BCC and B2 must coexist at some temperature at or above this one."""
    bcc_first_from: float = 0.0
    """K: BCC must form first on cooling, at or above this temperature."""
    b2_from: float = 0.0
    """K: B2 must exist at this temperature. By default the lowest one."""
    others_from: float = 0.0
    """K: there must be few other phases at and above this temperature."""
    mismatch_from: float = 0.0
    """K: the mismatch is computed at and above this temperature."""
    max_failed: int = 2
    """Number of temperatures that may fail. With more, the candidate counts as failed."""
    # Not in the repr, so that caches and journals from before it was an option remain valid.
    crossing: bool = field(default=True, repr=False)
    """The mismatch is zero where the lattices cross between two temperatures; if not, it is the
    least at the temperatures themselves, as in the paper."""

    def __post_init__(self) -> None:
        for name in LOWEST:
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be a temperature in K, not {getattr(self, name)}")
        if self.max_failed < 0:
            raise ValueError(f"max_failed must not be negative, and is {self.max_failed}")

    def check(self, temperatures: np.ndarray) -> None:
        """ValueError if a rule's lowest temperature is above all temperatures (K)."""
        for name in LOWEST:
            if getattr(self, name) > temperatures[-1]:
                raise ValueError(
                    f"{name} is {getattr(self, name):g} K, and the highest temperature"
                    f" {temperatures[-1]:g} K: no alloy could keep the rule"
                )


class RuleError(RewardError, ValueError):
    """Error: a rule of a family cannot judge at all, so that no reward is known."""


def rule_rewards(
    equilibria: Equilibria,
    config: RulesConfig = RulesConfig(),
    family: AlloyFamily = BCC_B2,
) -> RewardBatch:
    """Eq. 1: minus the cost of each broken rule, minus the smallest lattice mismatch in Å.

    `info` has each rule (1 kept, 0 broken, nan unknown), "mismatch" (Å; nan where there is none)
    and "failed_points". Nothing is subtracted for the mismatch if the phases never coexist, and
    `rules.NO_MISMATCH` if they coexist only below `mismatch_from`. A candidate is not ok with too
    many failed temperatures, an unknown rule, a rule that raises for it, or an unknown lattice
    parameter that its mismatch needs. RuleError if a rule does not return 1, 0 or nan for each
    candidate.
    """
    kept, raised = {}, [""] * len(equilibria)
    for name, rule in family.rules.items():
        kept[name], errors = _kept(name, rule, equilibria, config, family)
        raised = [first or error for first, error in zip(raised, errors, strict=True)]
    parts, mismatch_from = family.parts, config.mismatch_from
    mismatch = smallest_mismatch(equilibria, mismatch_from, parts, crossing=config.crossing)
    ever, where_looked = (coexist(equilibria, t, parts) for t in (0.0, mismatch_from))
    known = np.select([ever == 0, where_looked == 0], [0.0, NO_MISMATCH], mismatch)
    value = 0.0 - known
    for name, rule in family.rules.items():
        value = value - rule.cost * (1 - kept[name])
    failed = (~equilibria.solved).sum(axis=1)
    allowed = min(config.max_failed, len(equilibria.temperatures) - 1)
    reasons: Reasons = []
    for n, points in enumerate(equilibria.reasons):
        first = next((reason for reason in points if reason is not None), "")
        told = {name: values[n] for name, values in kept.items()} | {"mismatch": where_looked[n]}
        unknown = [name for name, value in told.items() if np.isnan(value)]
        reason = None
        if failed[n] > allowed:
            reason = f"{failed[n]} temperatures failed: {first}"
        elif raised[n]:
            reason = raised[n]
        elif unknown and failed[n]:
            reason = f"unknown, for temperatures failed: {', '.join(unknown)} ({first})"
        elif unknown:
            reason = f"unknown: {', '.join(unknown)}"
        elif np.isnan(known[n]):
            tags = f"{family.tags.matrix} or {family.tags.precipitate}"
            reason = f"a lattice parameter of {tags} is unknown, and so is their mismatch"
        reasons.append(reason)
    info = dict(kept)
    info |= {"mismatch": mismatch, "failed_points": failed.astype(float)}
    # A rule that raises may be mended: what it cost is not kept in caches.
    transient = np.array([bool(error) for error in raised], bool)
    return RewardBatch.from_values(value, info, reasons, transient)


def _kept(
    name: str, rule: AlloyRule, equilibria: Equilibria, config: RulesConfig, family: AlloyFamily
) -> tuple[np.ndarray, list[str]]:
    """float64 [C]: results of a rule, nan where it raises; and what it raised there, else ""."""
    n = len(equilibria)
    try:
        kept = np.asarray(rule.check(equilibria, lowest_of(rule, config), family.parts), float)
    except Exception as error:  # noqa: BLE001 (a user's function)
        if n == 1:
            return np.full(1, np.nan), [f"{_raises(name)} {failure(error)[0]}"]
        each = [_kept(name, rule, equilibria[[row]], config, family) for row in range(n)]
        return np.concatenate([one for one, _ in each]), [told for _, [told] in each]
    if kept.shape != (n,) or not np.isin(kept[~np.isnan(kept)], (0, 1)).all():
        raise RuleError(
            f"the rule {name} must tell 1, 0 or nan of each of {n} compositions, not"
            f" an array of shape {kept.shape}: {kept.ravel()[:5]}"
        )
    return kept, [""] * n


def lowest_of(rule: AlloyRule, config: RulesConfig) -> float:
    """K: lowest temperature of a rule."""
    lowest = rule.lowest
    return float(getattr(config, lowest)) if isinstance(lowest, str) else lowest


def _raises(name: str) -> str:
    """Beginning of the reason of candidates for which a rule raises."""
    return f"the rule {name} raises"


def check_raised(judged: RewardBatch, family: AlloyFamily) -> None:
    """RuleError if a rule raises for several mixtures and judges none."""
    for name in family.rules:
        raised = [one for one in judged.reasons if one and one.startswith(_raises(name))]
        if len(raised) > 1 and np.isnan(judged.info[name]).all():
            raise RuleError(
                f"{raised[0]}, and judges none of {len(judged)} mixtures: mend it, or let it"
                " return nan where it cannot tell"
            )
