"""The reward of BCC/B2 superalloys (arXiv 2511.12036, Eq. 1), from texts to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from crystaljax.alloys.composition import (
    CompositionError,
    master,
    read_candidate,
)
from crystaljax.alloys.engines.table import Table, composition_key, read_key
from crystaljax.alloys.engines.thermodynamics import TEMPERATURES, Equilibria, Thermodynamics
from crystaljax.alloys.rules import RULES, smallest_mismatch
from crystaljax.rewards.answers import Answer
from crystaljax.rewards.base import Reasons, RewardBatch
from crystaljax.rewards.items import Items
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.served import Served

AT_ONCE = 64
"""Compositions after which results are kept: each takes a second or so."""


@dataclass(frozen=True)
class RulesConfig:
    """Where the rules look, and what they leave undecided."""

    coexist_from: float = 0.0
    """K: BCC and B2 must coexist at some temperature at or above this one."""
    bcc_first_from: float = 0.0
    """K: BCC must form first on cooling, at or above this temperature."""
    b2_from: float = 0.0
    """K: the temperature at which there must be B2; by default the lowest of all."""
    others_from: float = 0.0
    """K: other phases must be few at and above this temperature."""
    mismatch_from: float = 0.0
    """K: the mismatch is looked for at and above this temperature."""
    max_failed: int = 2
    """Temperatures that may fail; with more the candidate counts as failed."""


def rule_rewards(equilibria: Equilibria, config: RulesConfig = RulesConfig()) -> RewardBatch:
    """Eq. 1: minus the cost of each broken rule, minus the smallest lattice mismatch in Å.

    `info` has each rule (1 kept, 0 broken), "mismatch" (Å; nan, and nothing taken off, where BCC
    and B2 never coexist) and "failed_points". A candidate with too many failed temperatures is
    not ok.
    """
    lowest = {
        "coexist": config.coexist_from,
        "bcc_first": config.bcc_first_from,
        "b2_at_room_temperature": config.b2_from,
        "few_other_phases": config.others_from,
    }
    kept = {name: rule(equilibria, lowest[name]) for name, (rule, _) in RULES.items()}
    mismatch = smallest_mismatch(equilibria, config.mismatch_from)
    value = -np.nan_to_num(mismatch)
    for name, (_, cost) in RULES.items():
        value = value - cost * ~kept[name]
    failed = (~equilibria.solved).sum(axis=1)
    allowed = min(config.max_failed, len(equilibria.temperatures) - 1)
    reasons: Reasons = [
        f"{n} temperatures failed: {next(r for r in row if r is not None)}" if n > allowed else None
        for n, row in zip(failed, equilibria.reasons, strict=True)
    ]
    info = {name: values.astype(float) for name, values in kept.items()}
    info |= {"mismatch": mismatch, "failed_points": failed.astype(float)}
    return RewardBatch.from_values(value, info, reasons)


@dataclass(frozen=True)
class EngineConfig:
    """What computes equilibria."""

    database: str = "alcocrni.tdb"
    """calphad: a TDB file, or alcocrni.tdb or COST507.tdb, which pycalphad brings; tc-python:
    the name of Thermo-Calc's database, such as TCHEA7; table: a file of equilibria."""
    kind: Literal["calphad", "tc-python", "table"] = "calphad"
    """pycalphad, Thermo-Calc (needs a licence and TC-Python), or equilibria from a file."""
    elements: tuple[str, ...] = ()
    """Elements that candidates may have; by default all that the database has of the paper's."""


def create_engine(config: EngineConfig) -> Thermodynamics:
    """The engine of a configuration; errors as its class."""
    if config.kind == "table":
        return Table.read(config.database)
    if config.kind == "tc-python":
        from crystaljax.alloys.engines.tc_python import ThermoCalc

        return ThermoCalc(config.database, config.elements)
    from crystaljax.alloys.engines.calphad import Calphad

    return Calphad(config.database, config.elements or None)


class MixtureReward:
    """Judges compositions, written as `composition_key` does ("Al:0.25 Cr:0.75")."""

    def __init__(
        self,
        engine: Thermodynamics,
        rules: RulesConfig = RulesConfig(),
        temperatures: np.ndarray = TEMPERATURES,
    ) -> None:
        self.engine = engine
        self._rules = rules
        self._temperatures = temperatures

    def __call__(self, keys: Items, /) -> RewardBatch:
        """Rewards of B compositions, a list of texts."""
        if not len(keys):
            return RewardBatch.from_values(np.zeros(0))
        mixtures = [read_key(key) for key in keys]
        return rule_rewards(self.engine.equilibria(mixtures, self._temperatures), self._rules)


def _create_mixture_reward(
    engine: EngineConfig, rules: RulesConfig, temperatures: tuple[float, ...]
) -> MixtureReward:
    return MixtureReward(create_engine(engine), rules, np.array(temperatures))


@dataclass(frozen=True)
class AlloyConfig:
    """What judges candidates, and where."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    """What computes equilibria."""
    rules: RulesConfig = field(default_factory=RulesConfig)
    """The reward's rules."""
    temperatures: tuple[float, ...] = tuple(TEMPERATURES.tolist())
    """K, ascending."""
    mix_by: Literal["volume", "mole"] = "volume"
    """Whether the B2 percentage is of volume or of moles."""
    invalid: float = -2000.0
    """Value of a text that is no candidate, or has elements outside the set."""
    failed: float = -1500.0
    """Value of a candidate whose equilibria could not be computed."""
    cache: Path | None = None
    """File that keeps rewards by composition for later runs; none is kept if not given."""
    pool: PoolConfig = field(default_factory=PoolConfig)
    """Where equilibria are computed."""


class AlloyReward(Served):
    """Judges texts that should be candidates, <BCC>..</BCC> <B2>..</B2> <B2_Volume>..</B2_Volume>.

    Use it as a context manager, or `close` it, so that workers end. What is not ok has a value
    too (`invalid`, `failed`) and a reason, and `RewardBatch.failures` counts them. Equal mixtures
    are computed once. Errors: see `create_engine`, `Pool`.
    """

    def __init__(self, config: AlloyConfig = AlloyConfig()) -> None:
        self.config = config
        # Also this process needs the engine: for its elements and for what caches depend on.
        self.engine = create_engine(config.engine)
        temperatures = np.array(config.temperatures)
        super().__init__(
            lambda: MixtureReward(self.engine, config.rules, temperatures),
            partial(_create_mixture_reward, config.engine, config.rules, config.temperatures),
            config.pool,
            config.cache,
            self._identity,
            AT_ONCE,
        )

    def __call__(self, answers: Sequence[Answer], /) -> RewardBatch:
        """Rewards of B answers; `info` has "read" and what `rule_rewards` tells."""
        return self.judge_texts([answer.text for answer in answers])

    def judge_texts(self, texts: Sequence[str]) -> RewardBatch:
        """Rewards of B texts, as of answers."""
        read = [self._read(text) for text in texts]
        keys = list(dict.fromkeys(key for key, reason in read if reason is None))
        judged = self.served(keys)  # type: ignore[arg-type]  # mixtures, not crystals
        places = {key: n for n, key in enumerate(keys)}
        value = np.full(len(texts), self.config.invalid)
        reasons: Reasons = [reason for _, reason in read]
        transient = np.zeros(len(texts), bool)
        columns = _COLUMNS if not keys else tuple(judged.info)
        info = {name: np.full(len(texts), np.nan) for name in columns}
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
        batch = RewardBatch.from_values(value, info, reasons, transient)
        return replace(batch, value=value)

    def _read(self, text: str) -> tuple[str, str | None]:
        """The mixture's key and None, or "" and the reason why there is none."""
        candidate, reason = read_candidate(text, self.engine.elements)
        if candidate is None:
            return "", reason
        try:
            return composition_key(master(candidate, self.config.mix_by)), None
        except CompositionError as error:
            return "", str(error)

    def _identity(self) -> str:
        """All that rewards depend on besides the mixture."""
        config = self.config
        costs = [cost for _, cost in RULES.values()]
        return f"alloy {self.engine.identity} {config.rules} {costs} {config.temperatures}"


_COLUMNS = (*RULES, "mismatch", "failed_points")
