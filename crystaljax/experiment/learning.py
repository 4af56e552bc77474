"""Maximum likelihood on crystals: what the scripts and commands that learn from data share."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from crystaljax.data.dataset import load
from crystaljax.data.rows import Dataset
from crystaljax.evaluation.report import Report
from crystaljax.experiment.experiment import Experiment
from crystaljax.experiment.learnt import finish_learning
from crystaljax.policies.base import Params, writable_rows
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.training.fit import best_weights
from crystaljax.training.pretrain import PretrainConfig, pretrain

log = logging.getLogger(__name__)

Result = Literal["last", "best"]
"""Weights of a run that are taken: the last, or those of the lowest validation loss."""

MIXED = 1_000_000
"""Sum of counts of a mixture of two data sets."""


def read_data(train: str, validation: str, seed: int) -> tuple[Dataset, Dataset]:
    """Crystals to learn, and to validate with, which are a source or a share of the first.

    Args:
      train, validation: a file, a folder or a registered data set; or the second a number between
        0 and 1.
      seed: of the choice of that share.

    ValueError if the share leaves nothing to learn or to validate with; errors of `dataset.load`.
    """
    data = load(train, max_sites=None)
    share = _share(validation)
    if share is None:
        return data, load(validation, max_sites=None)
    n_validation = max(1, round(share * len(data)))
    if not 0 < share < 1 or n_validation >= len(data):
        raise ValueError(
            f"--validation {validation} of {len(data)} crystals: give a share between 0 and 1 that"
            " leaves some to learn, or a file"
        )
    order = np.random.default_rng(seed).permutation(len(data))
    return data[np.sort(order[n_validation:])], data[np.sort(order[:n_validation])]


def _share(validation: str) -> float | None:
    """The number that it is; None if it is a source."""
    if Path(validation).exists():
        return None
    try:
        return float(validation)
    except ValueError:
        return None


def learnable(policy: WyckoffPolicy, data: Dataset, name: str) -> Dataset:
    """The crystals that a model can take; those that it cannot are counted and warned of.

    name: what the crystals are for, in messages.

    ValueError if none is left.
    """
    n_sites = np.asarray(data.crystals.n_sites)
    fits = (n_sites > 0) & (n_sites <= policy.max_sites)
    rows = writable_rows(policy, data.crystals, np.flatnonzero(fits))
    left_out = {
        f"have more than {policy.max_sites} sites": int((n_sites > policy.max_sites).sum()),
        "cannot be written": int(fits.sum()) - len(rows),
    }
    if len(rows) < len(data):
        why = ", ".join(f"{n} {reason}" for reason, n in left_out.items() if n)
        said = f"of {len(data)} crystals to {name} the model cannot take {len(data) - len(rows)}"
        if not len(rows):
            raise ValueError(f"{said} ({why}): give others, or another model")
        log.warning("%s, which are left out: %s", said, why)
    return data[rows]


def prompted_as(policy: WyckoffPolicy, new: Dataset, old_share: float) -> WyckoffPolicy:
    """The policy that draws what is not asked as a mixture of its training data and new crystals.

    Space groups, elements and p(space group | formula) of samples follow.

    Args:
      old_share: of the old training data, from 0 (as in the new crystals) to 1 (as before).

    What is not known of the old data is not known of a mixture.
    """
    counts, elements = policy.space_group_counts, policy.element_counts
    groups = policy.formula_groups
    if old_share == 0:
        counts, elements, groups = new.space_group_counts, new.element_counts, new.formula_groups
    elif old_share < 1:
        counts = _mixture(counts, new.space_group_counts, old_share)
        elements = None if elements is None else elements + new.element_counts
        groups = None if groups is None else _joined(groups, new.formula_groups)
    return WyckoffPolicy(policy.config, counts, elements, groups)


def _mixture(old: np.ndarray, new: np.ndarray, share: float) -> np.ndarray:
    """int: counts in the proportions of a mixture; what is in either is in it."""
    mixed = share * old / old.sum() + (1 - share) * new / new.sum()
    return np.ceil(MIXED * mixed).astype(int)


def _joined(
    old: Mapping[str, Sequence[int]], new: Mapping[str, Sequence[int]]
) -> dict[str, list[int]]:
    """Space groups by formula of both."""
    return {name: [*old.get(name, ()), *new.get(name, ())] for name in {**old, **new}}


def learn_crystals(
    experiment: Experiment,
    policy: WyckoffPolicy,
    train: Dataset,
    validation: Dataset,
    config: PretrainConfig,
    result: Result,
    *,
    title: str,
    start: Params | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Train a Wyckoff transformer in an experiment's folder, and report; returns the model's.

    Args:
      start: weights to start from; random ones if not given.
      notes: for the report.

    Errors: those of `training.pretrain`.
    """
    fit = experiment.main
    state = pretrain(
        policy,
        train.crystals,
        validation.crystals,
        config,
        fit.folder,
        fit.log,
        start=start,
        run_id=fit.run_id,
    )
    params, step = state.averaged, int(state.step)
    if result == "best":
        params, step = best_weights(fit.folder, params, policy.identity)
    note = f"The model has the weights of step {step} of {int(state.step)}."
    report = Report(title, {}, notes=[*notes, note])
    return finish_learning(experiment, policy, params, report, "−ln p of a crystal (nats)")
