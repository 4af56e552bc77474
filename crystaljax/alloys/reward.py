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
    Thermodynamics,
    ascending,
)
from crystaljax.alloys.family import (
    BCC_B2,
    DEFAULT,
    AlloyFamily,
    family_identity,
    load_family,
)
from crystaljax.alloys.rule_rewards import RulesConfig, check_raised, lowest_of, rule_rewards
from crystaljax.alloys.rules import NO_MISMATCH, VERSION
from crystaljax.rewards.base import Reasons, RewardBatch
from crystaljax.rewards.completions import Completion
from crystaljax.rewards.inputs import Items
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.serving import ServedReward

AT_ONCE = 64
"""Number of compositions after which results are saved; each takes about a second."""


class MixtureReward:
    """Reward of compositions, written as by `composition_key` ("Al:0.25 Cr:0.75")."""

    def __init__(
        self,
        engine: Thermodynamics,
        rules: RulesConfig | None = None,
        temperatures: np.ndarray = TEMPERATURES,
        family: AlloyFamily = BCC_B2,
    ) -> None:
        """Errors: see `ascending`, `RulesConfig.check`."""
        rules = rules or RulesConfig()
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
            lowest = lowest_of(rule, config.rules)
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
        check_raised(judged, self.family)
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
