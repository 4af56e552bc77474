"""Policies from the folders of released models."""

from __future__ import annotations

from pathlib import Path

from crystaljax.policies.base import Params, Policy
from crystaljax.policies.wyckoff import load_wyckoff


def load_policy(folder: str | Path) -> tuple[Policy, Params]:
    """A policy and its parameters from the folder of a released model.

    Errors: see `checkpoints.load_metadata` and `load_weights`.
    """
    return load_wyckoff(folder)
