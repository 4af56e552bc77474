"""Conditions of structure prediction, and the attempts of policies."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystaljax.baselines.base import Proposals
from crystaljax.composition import element_counts, formula
from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.data.files import replacing
from crystaljax.data.writers import to_cif
from crystaljax.evaluation.attempts import Known
from crystaljax.evaluation.prediction_files import read_known
from crystaljax.policies.base import Params, Policy, SamplingConfig
from crystaljax.rewards.base import Reasons
from crystaljax.symmetry.analysis import symmetrize
from crystaljax.symmetry.orbits import n_atoms
from crystaljax.validity import is_crystal


class Questions(NamedTuple):
    """T test crystals, and what is asked for each."""

    truth: Known
    conditions: list[Condition]
    """[T]"""
    max_atoms: int
    """Atoms of the largest primitive cell of the test crystals."""


def read_questions(source: str, n: int = 0, seed: int = 0, fixed_units: bool = True) -> Questions:
    """The formulas of n test crystals, drawn by the seed; of all if n is 0.

    fixed_units: the number of formula units in the primitive cell is given, too.

    Errors: see `read_known`.
    """
    truth = read_known(source)
    rows = np.random.default_rng(seed).permutation(len(truth))[: n or None]
    truth = Known(truth.name, [truth.ids[i] for i in rows], [truth.cells[i] for i in rows])
    crystals = symmetrize(truth.cells)[0]
    conditions = _conditions(truth.counts, crystals, fixed_units)
    return Questions(truth, conditions, int(np.max(n_atoms(crystals, primitive=True))))


def formulas_asked(
    crystals: Crystals, n: int = 0, seed: int = 0, fixed_units: bool = True, max_atoms: int = 20
) -> list[Condition]:
    """The formulas of crystals, each once: n of them, drawn by the seed, or all if n is 0.

    Those of crystals of more than `max_atoms` in the primitive cell are left out. ValueError if
    that leaves none.
    """
    atoms = np.asarray(n_atoms(crystals, primitive=True))
    some = crystals[np.flatnonzero((atoms > 0) & (atoms <= max_atoms))]
    found = list(dict.fromkeys(_conditions(element_counts(some), some, fixed_units)))
    if not found:
        raise ValueError(
            f"none of {len(crystals)} crystals has at most {max_atoms} atoms: give others, or a"
            " larger limit"
        )
    order = np.random.default_rng(seed).permutation(len(found))[: n or None]
    return [found[i] for i in order]


def _conditions(counts: np.ndarray, crystals: Crystals, fixed_units: bool) -> list[Condition]:
    """Condition for each of B crystals, of atoms `counts` [B, 119]."""
    atoms = np.asarray(n_atoms(crystals, primitive=True))
    found = []
    for row, n in zip(np.asarray(counts), atoms.tolist(), strict=True):
        units = int(n // (row.sum() // np.gcd.reduce(row))) if fixed_units else 0
        found.append(Condition(formula=formula(row), formula_units=units or None))
    return found


def refused(policy: Policy, conditions: Sequence[Condition], sampling: SamplingConfig) -> Reasons:
    """Reason that the policy does not support each condition, or None."""
    try:
        policy.check(conditions, sampling)
    except ValueError:
        return [_refused(policy, condition, sampling) for condition in conditions]
    return [None] * len(conditions)


def _refused(policy: Policy, condition: Condition, sampling: SamplingConfig) -> str | None:
    try:
        policy.check([condition], sampling)
    except ValueError as error:
        return str(error)
    return None


def propose(
    policy: Policy,
    params: Params,
    conditions: Sequence[Condition],
    k: int,
    seed: int,
    sampling: SamplingConfig,
) -> Proposals:
    """k attempts of a policy at each condition; none, with the reason, where it cannot be asked.

    ValueError if it can be asked for none of them, or there are none.
    """
    if not conditions:
        raise ValueError("no formula is asked for: give one at least")
    why = refused(policy, conditions, sampling)
    asked = [i for i, reason in enumerate(why) if reason is None]
    if not asked:
        raise ValueError(
            f"the model can be asked for none of {len(conditions)} formulas; of the first: {why[0]}"
        )
    # Each attempt has a prompt of its own: what is open in it, as the space group, is drawn anew.
    attempts = [conditions[i] for i in asked for _ in range(k)]
    samples = policy.sample(params, attempts, seed, sampling)
    table = np.full((len(conditions), k), -1)
    table[asked] = np.arange(len(asked) * k).reshape(-1, k)
    rows = table.ravel()
    reasons: Reasons = [
        why[i // k] if row < 0 else None if samples.ok[row] else samples.reasons[row]
        for i, row in enumerate(rows.tolist())
    ]
    padded = samples.crystals.padded(len(samples) + 1)  # a row of zeros, for what has no attempt
    not_asked = len(conditions) - len(asked)
    return Proposals(padded[rows], reasons, not_asked, samples.dead_ends)


def write_predictions(path: Path, proposals: Proposals, truth: Known, k: int) -> None:
    """A table of k attempts at each test crystal, for `crystaljax evaluate --protocol csp`.

    The formula is the one asked for. Attempts that are no crystal have a reason in place of a CIF.
    """
    good = is_crystal(proposals.crystals)
    crystals = proposals.crystals[np.flatnonzero(good)]
    found = zip(crystals.space_group.tolist(), to_cif(crystals), strict=True)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        columns = "material_id", "formula", "attempt", "reason", "spacegroup.number", "cif"
        writer.writerow(columns)
        for row, (ok, reason) in enumerate(zip(good, proposals.reasons, strict=True)):
            at = row // k
            about = ("", *next(found)) if ok else (reason or "no crystal", "", "")
            writer.writerow((truth.ids[at], truth.formulas[at], row % k, *about))
