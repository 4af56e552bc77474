"""Doubts about rewards: interactions that a database lacks, other databases, the lattice model."""

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
"""Interactions without which a database is not trusted: of pairs, or of triples, too."""

_LACKING = ((2, "pairs", "mix ideally"), (3, "triples", "mix as their pairs tell"))
_N_NAMED = 6  # of what is missing, in a sentence


def with_bound(
    judged: RewardBatch,
    keys: Sequence[str],
    missing: Collection[frozenset[str]],
    family: AlloyFamily,
    lack: Lack,
) -> RewardBatch:
    """Rewards of B mixtures with what is not known of them in `info`.

    "missing" and "extrapolated" count the pairs and the triples of a mixture's elements in
    `missing`. "bound" is what the reward is at least: the mismatch is larger by the error of the
    lattice model, and all rules are broken where a pair is missing, or a triple by `lack`.
    """
    elements = [read_key(key).keys() for key in keys]
    pairs, triples = (
        np.array([sum(one <= each for one in sets) for each in elements], float)
        for sets in ([one for one in missing if len(one) == n] for n in (2, 3))
    )
    kept = [np.nan_to_num(judged.info[name]) * rule.cost for name, rule in family.rules.items()]
    error = np.where(np.isfinite(judged.info["mismatch"]), family.lattice.error, 0.0)
    thin = pairs + (triples if lack == "triples" else 0) > 0
    bound = judged.value - error - np.where(thin, np.sum(kept, axis=0), 0.0)
    told = {"missing": pairs, "extrapolated": triples, "bound": bound}
    return replace(judged, info={**judged.info, **told})


def knows(engine: Thermodynamics, key: str) -> bool:
    """Whether an engine has all elements of a mixture and all interactions of their pairs."""
    elements = read_key(key).keys()
    pairs = (one for one in engine.missing if len(one) == 2)
    return elements <= set(engine.elements) and not any(pair <= elements for pair in pairs)


def with_others(
    judged: RewardBatch, others: Sequence[tuple[np.ndarray, RewardBatch]]
) -> RewardBatch:
    """Rewards of B mixtures with those by other databases in `info`: for each rows and rewards.

    "databases" counts those that could judge, "spread" is the largest of their rewards less the
    least (nan of a single one), and "bound" the least of their bounds.
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
    """Sentences on what rewards by some databases, the first and others, do not know.

    `engines`: by the databases' names or files.
    """
    sentences = []
    for path, engine in engines.items():
        name = Path(path).name
        for n, kind, says in _LACKING:
            named = sorted("-".join(sorted(one)) for one in engine.missing if len(one) == n)
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
        sentences.append(f"Candidates of elements that they know are judged by {names}, too.")
    lacking = "a pair" if lack == "pairs" else "a pair or a triple"
    sentences.append(
        f"The cautious reward has the error of the lattice model, {family.lattice.error:g} Å, taken"
        f" off, and all rules count as broken in it where {first} lacks {lacking} of the elements."
    )
    return sentences
