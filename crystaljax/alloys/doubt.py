"""Uncertainty of rewards: missing interactions, other databases, error of the lattice model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from crystaljax.alloys.engines.table import read_key
from crystaljax.alloys.engines.thermodynamics import Thermodynamics
from crystaljax.alloys.family import AlloyFamily
from crystaljax.rewards.base import RewardBatch

Lack = Literal["pairs", "triples"]
"""Interactions that a database must have: of pairs, or also of triples."""

_LACKING = ((2, "pairs", "mix ideally"), (3, "triples", "mix as their pairs tell"))
_N_NAMED = 6  # number of missing interactions that a sentence names


def with_bound(
    judged: RewardBatch,
    keys: Sequence[str],
    engine: Thermodynamics,
    family: AlloyFamily,
    lack: Lack,
) -> RewardBatch:
    """Rewards of B mixtures, with measures of their uncertainty in `info`.

    "missing" and "extrapolated" count the pairs and the triples of a mixture's elements whose
    interaction the engine lacks; nan if that is unknown. "bound" is a lower bound of the reward:
    the mismatch is increased by the error of the lattice model if the engine uses it, and all rules
    count as broken if a pair (with `lack`, or a triple) is missing.
    """
    elements = [read_key(key).keys() for key in keys]
    pairs, triples = (_lacking(engine, elements, n) for n in (2, 3))
    kept = [np.nan_to_num(judged.info[name]) * rule.cost for name, rule in family.rules.items()]
    model = family.lattice.error if engine.modelled else 0.0
    error = np.where(np.isfinite(judged.info["mismatch"]), model, 0.0)
    thin = pairs + (triples if lack == "triples" else 0) > 0
    bound = judged.value - error - np.where(thin, np.sum(kept, axis=0), 0.0)
    told = {"missing": pairs, "extrapolated": triples, "bound": bound}
    return replace(judged, info={**judged.info, **told})


def _lacking(engine: Thermodynamics, elements: Sequence[Collection[str]], n: int) -> np.ndarray:
    """float64 [B]: sets of n of each mixture's elements that are missing; nan if unknown."""
    if engine.missing is None:
        return np.full(len(elements), np.nan)
    sets = [one for one in engine.missing if len(one) == n]
    return np.array([sum(one <= {*each} for one in sets) for each in elements], float)


def knows(engine: Thermodynamics, key: str) -> bool:
    """Whether an engine has all elements of a mixture, and lacks no interaction of their pairs.

    As far as that is known.
    """
    elements = read_key(key).keys()
    pairs = (one for one in engine.missing or () if len(one) == 2)
    return elements <= set(engine.elements) and not any(pair <= elements for pair in pairs)


def with_others(
    judged: RewardBatch, others: Sequence[tuple[np.ndarray, RewardBatch]]
) -> RewardBatch:
    """Rewards of B mixtures, with results of other databases (rows and rewards of each) in `info`.

    "databases" is the number of databases that could judge, "spread" the range of their rewards
    (nan for a single one), and "bound" the smallest of their bounds.
    """
    values, bounds = (np.full((1 + len(others), len(judged)), np.nan) for _ in range(2))
    values[0], bounds[0] = judged.value, judged.info["bound"]
    for n, (rows, found) in enumerate(others, 1):
        values[n, rows], bounds[n, rows] = found.value, found.info["bound"]
    told = np.isfinite(values)
    number = told.sum(axis=0)
    least, most = np.where(told, values, np.inf), np.where(told, values, -np.inf)
    several = np.where(number[None] > 1, np.array([most.max(axis=0), least.min(axis=0)]), np.nan)
    info = {
        "databases": number.astype(float),
        "spread": several[0] - several[1],
        "bound": np.where(judged.ok, np.fmin.reduce(bounds), np.nan),
    }
    return replace(judged, info={**judged.info, **info})


def limits(engines: Mapping[str, Thermodynamics], family: AlloyFamily, lack: Lack) -> list[str]:
    """Sentences on the limits of rewards by some databases, for reports.

    `engines`: by name or file of the database, the main one first.
    """
    sentences = []
    for path, engine in engines.items():
        name = Path(path).name
        if engine.missing is None:
            sentences.append(f"It is not known which interactions of elements {name} lacks.")
        for n, kind, says in _LACKING:
            named = sorted("-".join(sorted(one)) for one in engine.missing or () if len(one) == n)
            if named:
                others = len(named) - _N_NAMED
                more = f" and {others} others" if others > 0 else ""
                sentences.append(
                    f"{name} lacks interactions of {kind} of elements, which {says}:"
                    f" {', '.join(named[:_N_NAMED])}{more}."
                )
    first, *further = (Path(path).name for path in engines)
    if further:
        names = ", ".join(further)
        sentences.append(f"Candidates whose elements others know are also judged by: {names}.")
    return [*sentences, _cautious(first, next(iter(engines.values())), family, lack)]


def _cautious(name: str, engine: Thermodynamics, family: AlloyFamily, lack: Lack) -> str:
    """Sentence on the cautious reward."""
    error = f"the error of the lattice model, {family.lattice.error:g} Å,"
    taken = f"{error} taken off" if engine.modelled else "no error of lattice parameters taken off"
    lacking = "a pair" if lack == "pairs" else "a pair or a triple"
    broken = f"all rules count as broken in it where {name} lacks {lacking} of the elements"
    if engine.missing is None:
        broken = f"no rule is in doubt in it, whatever {name} lacks"
    return f"The cautious reward has {taken}, and {broken}."
