"""Selects compositions on a grid that an engine finds single-phase (A.2, arXiv 2511.12036)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystaljax.alloys.composition import write_formula
from crystaljax.alloys.engines.choice import EngineConfig, create_engine
from crystaljax.alloys.engines.table import composition_key, read_key
from crystaljax.alloys.engines.thermodynamics import TEMPERATURES, Thermodynamics, ascending
from crystaljax.alloys.family import DEFAULT, family_identity, load_family
from crystaljax.alloys.grid import GridConfig, b2_candidates, bcc_candidates
from crystaljax.alloys.reward import AT_ONCE
from crystaljax.alloys.rules import BCC_AND_B2, Parts
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.inputs import Items
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.serving import ServedReward

log = logging.getLogger(__name__)

PURITY = 0.99
"""Smallest mole fraction of a single phase, at any of the temperatures."""

Judge = Callable[[Items], RewardBatch]
"""From compositions, written as by `composition_key`, to the results of `PhasePurity`."""


class PhasePurity:
    """Purity of compositions: the largest fraction of BCC and of B2 at any temperature."""

    def __init__(
        self,
        engine: Thermodynamics,
        temperatures: np.ndarray = TEMPERATURES,
        parts: Parts = BCC_AND_B2,
    ) -> None:
        self._engine = engine
        self._parts = parts
        self._temperatures = ascending(temperatures)

    def __call__(self, keys: Items, /) -> RewardBatch:
        """Fractions in `info`, "bcc" and "b2", and the larger one as the value.

        `keys`: B texts such as "Al:0.25 Cr:0.75". An item is not ok if no temperature could be
        computed; "failed_points" counts the temperatures that could not.
        """
        if not len(keys):
            return RewardBatch.from_values(np.zeros(0))
        table = self._engine.equilibria([read_key(key) for key in keys], self._temperatures)
        lost = np.asarray(~table.solved.any(axis=1))
        purest = {
            name: np.where(table.solved, part.amount(table), 0.0).max(axis=1)
            for name, part in zip(("bcc", "b2"), self._parts, strict=True)
        }
        info = purest | {"failed_points": (~table.solved).sum(axis=1).astype(float)}
        reasons = [
            str(row[0]) if bad else None for bad, row in zip(lost, table.reasons, strict=True)
        ]
        return RewardBatch.from_values(np.maximum(purest["bcc"], purest["b2"]), info, reasons)


@dataclass(frozen=True)
class PurityConfig:
    """Engine, temperatures and workers of the curation. ValueError: see `ascending`."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    """Engine that computes equilibria."""
    temperatures: tuple[float, ...] = tuple(TEMPERATURES.tolist())
    """K, in any order."""
    cache: Path | None = None
    """File of results, so that an interrupted run can be continued. Not given: none."""
    pool: PoolConfig = field(default_factory=PoolConfig)
    """Workers that compute equilibria."""
    family: str = DEFAULT
    """Family of the phases: "bcc" and "b2" stand for its matrix and precipitate; see
    `AlloyConfig.family`."""

    def __post_init__(self) -> None:
        ascending(self.temperatures)


class ServedPurity(ServedReward):
    """`PhasePurity` in this process or in workers, with or without a cache.

    Call its attribute `served`. Use it as a context manager, or `close` it, so that workers end.
    Errors: see `create_engine`, `Pool`.
    """

    def __init__(self, config: PurityConfig = PurityConfig()) -> None:
        self.config = config
        family = load_family(config.family)
        # This process needs the engine, too: for its elements and its identity in caches.
        self.engine, parts = create_engine(config.engine, family.lattice), family.parts
        super().__init__(
            lambda: PhasePurity(self.engine, np.array(config.temperatures), parts),
            partial(_create_purity, config.engine, config.temperatures, config.family),
            config.pool,
            config.cache,
            lambda: (
                f"purity {self.engine.identity} {ascending(config.temperatures).tolist()}"
                f"{family_identity(config.family)}"
            ),
            AT_ONCE,
        )


def _create_purity(
    engine: EngineConfig, temperatures: tuple[float, ...], family: str
) -> PhasePurity:
    made = load_family(family)
    used = create_engine(engine, made.lattice)
    return PhasePurity(used, np.array(temperatures), made.parts)


class Curated(NamedTuple):
    """Results of a curation."""

    bcc: list[dict[str, float]]
    """BCC compositions (amounts) that are single-phase."""
    b2: list[dict[str, float]]
    """B2 compositions that are single-phase."""
    n_tried: dict[str, int]
    """Number of candidates for "bcc" and for "b2" that were tried."""
    failed: dict[str, str]
    """Reason by formula, for candidates that may be single-phase where an equilibrium failed."""


def curate(judge: Judge, config: GridConfig, purity: float = PURITY) -> Curated:
    """The candidates for both phases that are single-phase at some temperature.

    `judge`: a `PhasePurity`, or `ServedPurity(...).served`; `purity`: the fraction above which a
    phase counts as single.
    """
    tried = {"bcc": bcc_candidates(config), "b2": b2_candidates(config)}
    judged = _judged(judge, {composition_key(one) for ones in tried.values() for one in ones})
    kept: dict[str, list[dict[str, float]]] = {phase: [] for phase in tried}
    failed: dict[str, str] = {}
    for phase, ones in tried.items():
        for one in ones:
            result = judged[composition_key(one)]
            if isinstance(result, str):
                failed[write_formula(one)] = result
            elif result[phase] > purity:
                kept[phase].append(one)
            elif result["failed_points"]:
                failed[write_formula(one)] = f"{result['failed_points']:g} temperatures failed"
    n_tried = {phase: len(ones) for phase, ones in tried.items()}
    return Curated(kept["bcc"], kept["b2"], n_tried, failed)


def _judged(judge: Judge, keys: Iterable[str]) -> dict[str, Mapping[str, float] | str]:
    """Result of each composition, or the reason that there is none."""
    # Sorted by set of elements, as its phases take seconds to compile.
    ordered = sorted(keys, key=lambda key: (sorted(read_key(key)), key))
    found: dict[str, Mapping[str, float] | str] = {}
    for start in range(0, len(ordered), AT_ONCE):
        part = ordered[start : start + AT_ONCE]
        batch = judge(part)
        for n, key in enumerate(part):
            reason = batch.reasons[n]
            found[key] = reason or {name: float(column[n]) for name, column in batch.info.items()}
        log.info("%d of %d compositions", start + len(part), len(ordered))
    return found
