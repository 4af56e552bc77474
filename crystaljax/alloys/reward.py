"""The reward of superalloys, BCC/B2 or others (arXiv 2511.12036, Eq. 1), for texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Literal

import numpy as np

from crystaljax.alloys.composition import (
    CompositionError,
    master,
    read_candidate,
)
from crystaljax.alloys.doubt import Lack, knows, limits, with_bound, with_others
from crystaljax.alloys.engines.choice import EngineConfig, create_engine, other_engine
from crystaljax.alloys.engines.table import composition_key, read_key
from crystaljax.alloys.engines.thermodynamics import (
    TEMPERATURES,
    Equilibria,
    Thermodynamics,
    ascending,
)
from crystaljax.alloys.family import (
    BCC_B2,
    DEFAULT,
    AlloyFamily,
    AlloyRule,
    family_identity,
    load_family,
)
from crystaljax.alloys.rules import LOWEST, NO_MISMATCH, VERSION, coexist, smallest_mismatch
from crystaljax.rewards.base import Reasons, RewardBatch, RewardError
from crystaljax.rewards.completions import Completion
from crystaljax.rewards.compose import failure
from crystaljax.rewards.inputs import Items
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.serving import ServedReward

AT_ONCE = 64
"""Number of compositions after which results are saved; each takes about a second."""


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
        kept = np.asarray(rule.check(equilibria, _lowest(rule, config), family.parts), float)
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


def _lowest(rule: AlloyRule, config: RulesConfig) -> float:
    """K: lowest temperature of a rule."""
    lowest = rule.lowest
    return float(getattr(config, lowest)) if isinstance(lowest, str) else lowest


def _raises(name: str) -> str:
    """Beginning of the reason of candidates for which a rule raises."""
    return f"the rule {name} raises"


def _check_raised(judged: RewardBatch, family: AlloyFamily) -> None:
    """RuleError if a rule raises for several mixtures and judges none."""
    for name in family.rules:
        raised = [one for one in judged.reasons if one and one.startswith(_raises(name))]
        if len(raised) > 1 and np.isnan(judged.info[name]).all():
            raise RuleError(
                f"{raised[0]}, and judges none of {len(judged)} mixtures: mend it, or let it"
                " return nan where it cannot tell"
            )


class MixtureReward:
    """Reward of compositions, written as by `composition_key` ("Al:0.25 Cr:0.75")."""

    def __init__(
        self,
        engine: Thermodynamics,
        rules: RulesConfig = RulesConfig(),
        temperatures: np.ndarray = TEMPERATURES,
        family: AlloyFamily = BCC_B2,
    ) -> None:
        """Errors: see `ascending`, `RulesConfig.check`."""
        self.engine = engine
        self._rules, self._family = rules, family
        self._temperatures = ascending(temperatures)
        rules.check(self._temperatures)

    def __call__(self, keys: Items, /) -> RewardBatch:
        """Rewards of B compositions, a list of texts."""
        if not len(keys):
            return RewardBatch.from_values(np.zeros(0))
        mixtures = [read_key(key) for key in keys]
        equilibria = self.engine.equilibria(mixtures, self._temperatures)
        return rule_rewards(equilibria, self._rules, self._family)


def _create_mixture_reward(
    engine: EngineConfig, rules: RulesConfig, temperatures: tuple[float, ...], family: str
) -> MixtureReward:
    made = load_family(family)
    used = create_engine(engine, made.lattice)
    return MixtureReward(used, rules, np.array(temperatures), made)


@dataclass(frozen=True)
class AlloyConfig:
    """Engine, rules and workers that judge candidates."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    """Engine that computes equilibria."""
    rules: RulesConfig = field(default_factory=RulesConfig)
    """The reward's rules."""
    temperatures: tuple[float, ...] = tuple(TEMPERATURES.tolist())
    """K, in any order."""
    mix_by: Literal["volume", "mole"] = "volume"
    """Whether the B2 percentage is of volume or of moles."""
    invalid: float = -2000.0
    """Reward of a text that is no candidate, or has elements outside the set."""
    failed: float = -1500.0
    """Reward of a candidate whose equilibria could not be computed."""
    cache: Path | None = None
    """File that keeps rewards by composition for later runs. Not given: none."""
    pool: PoolConfig = field(default_factory=PoolConfig)
    """Workers that compute equilibria."""
    cautious: bool = field(default=False, repr=False)
    """Use the lower bound ("bound" in `info`) as the reward; see `AlloyReward`."""
    lack: Lack = field(default="pairs", repr=False)
    """Interactions of elements without which a database's rules count as broken in the bound."""
    others: tuple[str, ...] = field(default=(), repr=False)
    """Other databases that judge, too, what they know: names or files as the engine's `database`,
    or tables of equilibria (.npz, .csv). Each has workers of its own."""
    family: str = DEFAULT
    """Phases, rules, tags and prompts: bcc-b2, fcc-l12, or FILE.py:FUNCTION of your own, such as
    one with another rule; see `alloys.family`."""

    def __post_init__(self) -> None:
        self.rules.check(ascending(self.temperatures))
        for name in ("invalid", "failed"):
            if not isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be a finite reward, not {getattr(self, name)}")


class AlloyReward(ServedReward):
    """Reward of texts of candidates, <BCC>..</BCC> <B2>..</B2> <B2_Volume>..</B2_Volume>.

    Or candidates of another family. Use it as a context manager, or `close` it, so that workers
    end. Items that are not ok have a value (`invalid`, `failed`) and a reason, and
    `RewardBatch.failures` counts them. Equal mixtures are computed once.

    The reward's uncertainty is in `info` (see `doubt`). "missing" and "extrapolated" count the
    pairs and the triples of a candidate's elements without interaction parameters, nan where that
    is unknown. "bound" is a lower bound of the reward: with the error of the lattice model if it is
    used, all rules broken where the database is known to lack interactions (`AlloyConfig.lack`),
    and the smallest one of all databases.
    "databases" is the number of databases that judge, and "spread" the range of their rewards.

    Errors: see `create_engine`, `load_family`, `Pool`; ValueError for mixing another family by
    volume, for a rule from a temperature above all others, and for rules that cost more than
    failures do. RuleError when a rule raises for all of several candidates, or returns anything
    but 1, 0 and nan.
    """

    def __init__(self, config: AlloyConfig = AlloyConfig()) -> None:
        self.config = config
        self.family = family = load_family(config.family)
        kind = family.lattice.kind
        if {part.kind for part in family.parts} != {kind} and config.mix_by == "volume":
            raise ValueError(f"volumes are known of {kind} alone: mix other families by mole")
        temperatures = ascending(config.temperatures)
        self._check_rules(temperatures)
        # This process needs the engine, too: for its elements and its identity in caches.
        self.engine = create_engine(config.engine, family.lattice)
        settings = config.engine, config.rules, config.temperatures, config.family
        super().__init__(
            lambda: MixtureReward(self.engine, config.rules, temperatures, family),
            partial(_create_mixture_reward, *settings),
            config.pool,
            config.cache,
            self._identity,
            AT_ONCE,
        )
        self._others = [
            AlloyReward(replace(config, engine=other_engine(name, config.engine), others=()))
            for name in config.others
        ]

    def _check_rules(self, temperatures: np.ndarray) -> None:
        """ValueError for rules that no alloy can keep, or that cost more than failures do."""
        config, rules = self.config, self.family.rules
        for name, rule in rules.items():
            lowest = _lowest(rule, config.rules)
            if lowest > temperatures[-1]:
                raise ValueError(
                    f"the rule {name} is from {lowest:g} K, and the highest temperature"
                    f" {temperatures[-1]:g} K: no alloy could keep it"
                )
        most = sum(rule.cost for rule in rules.values()) + NO_MISMATCH
        if most > -max(config.invalid, config.failed):
            raise ValueError(
                f"an alloy that breaks all rules has {-most:g}, less than a text that is no alloy"
                f" (invalid = {config.invalid:g}) or one that fails (failed = {config.failed:g}):"
                " lower these, or the costs of the rules"
            )

    def close(self) -> None:
        """End the workers and close the cache, including those of other databases."""
        super().close()
        for other in self._others:
            other.close()

    def __call__(self, answers: Sequence[Completion], /) -> RewardBatch:
        """Rewards of B answers; `info` has "read" and the columns of `rule_rewards`."""
        return self.judge_texts([answer.text for answer in answers])

    def judge_texts(self, texts: Sequence[str]) -> RewardBatch:
        """Rewards of B texts."""
        read = [self._read(text) for text in texts]
        keys = list(dict.fromkeys(key for key, reason in read if reason is None))
        judged = self._judge(keys)
        places = {key: n for n, key in enumerate(keys)}
        value = np.full(len(texts), self.config.invalid)
        reasons: Reasons = [reason for _, reason in read]
        transient = np.zeros(len(texts), bool)
        info = {name: np.full(len(texts), np.nan) for name in judged.info}
        for n, (key, reason) in enumerate(read):
            if reason is not None:
                continue
            place = places[key]
            value[n] = judged.value[place] if judged.ok[place] else self.config.failed
            reasons[n] = judged.reasons[place]
            transient[n] = judged.transient[place]
            for name, column in info.items():
                column[n] = judged.info[name][place]
        info["read"] = np.array([reason is None for _, reason in read])
        # The bound of a failure is its value.
        info["bound"] = np.where(np.isnan(info["bound"]), value, info["bound"])
        if self.config.cautious:
            value = info["bound"]
        batch = RewardBatch.from_values(value, info, reasons, transient)
        return replace(batch, value=value)

    def _judge(self, keys: Sequence[str]) -> RewardBatch:
        """Rewards of different mixtures, with their uncertainty."""
        judged = self.served(keys)  # type: ignore[arg-type]  # mixtures, not crystals
        # An empty batch, or one of failures only, has no columns.
        names = *self.family.rules, "mismatch", "failed_points"
        unknown = {name: np.full(len(keys), np.nan) for name in names}
        judged = replace(judged, info=unknown | dict(judged.info))
        _check_raised(judged, self.family)
        judged = with_bound(judged, keys, self.engine, self.family, self.config.lack)
        if not self._others:
            return judged
        rows = [
            np.flatnonzero([knows(other.engine, key) for key in keys]) for other in self._others
        ]
        found = [
            other._judge([keys[row] for row in of_it.tolist()])
            for other, of_it in zip(self._others, rows, strict=True)
        ]
        return with_others(judged, [*zip(rows, found, strict=True)])

    @property
    def limits(self) -> list[str]:
        """Sentences on the limits of the reward, for reports."""
        engines = {one.config.engine.database: one.engine for one in (self, *self._others)}
        return limits(engines, self.family, self.config.lack)

    def _read(self, text: str) -> tuple[str, str | None]:
        """The mixture's key and None, or "" and the reason that there is none."""
        candidate, reason = read_candidate(text, self.engine.elements, self.family.tags)
        if candidate is None:
            return "", reason
        try:
            mixture = master(candidate, self.config.mix_by, self.family.lattice)
            return composition_key(mixture), None
        except CompositionError as error:
            return "", str(error)

    @property
    def identity(self) -> str:
        """Everything that rewards depend on besides the text, for journals."""
        config = self.config
        cautious = " cautious" if config.cautious else ""
        cautious += "" if self.engine.modelled or not config.cautious else " without an error"
        cautious += " of triples" if config.lack == "triples" else ""
        others = "".join(f" and {other._identity()}" for other in self._others)
        settings = f"{config.mix_by} {config.invalid} {config.failed}"
        return f"{self._identity()} {settings}{cautious}{others}"

    def _identity(self) -> str:
        """Everything that rewards depend on besides the mixture."""
        config = self.config
        costs = [rule.cost for rule in self.family.rules.values()]
        temperatures = ascending(config.temperatures).tolist()
        rules = f"{config.rules}{'' if config.rules.crossing else ' without crossing'}"
        family = family_identity(self.config.family)
        return f"alloy {VERSION} {self.engine.identity} {rules} {costs} {temperatures}{family}"
