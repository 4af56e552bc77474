"""Policies from the folders of released models."""

from __future__ import annotations

import logging
from pathlib import Path

from crystaljax.checkpoints import load_metadata, load_weights
from crystaljax.policies.base import Params, Policy
from crystaljax.policies.wyckoff import WyckoffPolicy

log = logging.getLogger(__name__)


def load_policy(folder: str | Path) -> tuple[Policy, Params]:
    """A policy and its parameters from the folder of a released model.

    Errors: see `checkpoints.load_metadata` and `load_weights`.
    """
    return load_wyckoff(folder)


def load_wyckoff(folder: str | Path) -> tuple[WyckoffPolicy, Params]:
    """`load_policy` of a Wyckoff transformer."""
    metadata = load_metadata(folder)
    if metadata.element_counts is None:
        log.warning(
            "%s does not say which elements it was trained on: samples may have any", folder
        )
    policy = WyckoffPolicy(metadata.model, metadata.space_group_counts, metadata.element_counts)
    return policy, load_weights(folder, policy.param_shapes)
