"""What tests ask of samples, by the names of all settings in one."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from crystaljax.conditions import Condition
from crystaljax.models.wyckoff.rollout import TokenRollout
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.wyckoff import Params, WyckoffPolicy

HOW = {field.name for field in fields(SamplingConfig)}


def wish(**settings: Any) -> tuple[Condition, SamplingConfig]:
    """What is asked, and how it is sampled."""
    how = {name: settings.pop(name) for name in HOW & settings.keys()}
    return Condition(**settings), SamplingConfig(**how)


def drawn(
    policy: WyckoffPolicy, params: Params, n: int, seed: int, repeat: int = 1, **settings: Any
) -> TokenRollout:
    """n samples of a Wyckoff transformer under one condition, as sequences."""
    condition, sampling = wish(**settings)
    found: TokenRollout = policy.draw(params, [condition] * -(-n // repeat), seed, sampling, repeat)
    return found[:n]
