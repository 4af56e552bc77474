"""Sampled texts with rewards as `AlloyReward.judge_texts` gives them, shared by tests."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crystaljax.alloys.composition import Candidate, read_candidate
from crystaljax.alloys.family import BCC_B2
from crystaljax.rewards.base import RewardBatch

TRAINING = [
    Candidate({"Cr": float(x), "Ni": 100.0 - x}, {"Al": 1.0, b: 1.0}, volume)
    for x in (60, 75, 90)
    for b in ("Ni", "Co")
    for volume in (30.0, 45.0)
]


def judged(texts: Sequence[str], kept: Sequence[Sequence[int]], mismatch: float) -> RewardBatch:
    """Rewards of texts by the rules each keeps [4]; unreadable ones have -2000."""
    read = np.array([read_candidate(text)[0] is not None for text in texts])
    rules = np.where(read[:, None], np.array(kept, float), np.nan)
    coexist = rules[:, 0] > 0
    value = -(1 - np.nan_to_num(rules)) @ [rule.cost for rule in BCC_B2.rules.values()]
    value = np.where(read, value - np.where(coexist, mismatch, 0.0), -2000.0)
    info = dict(zip(BCC_B2.rules, rules.T, strict=True))
    info |= {"mismatch": np.where(coexist, mismatch, np.nan), "read": read}
    reasons = [None if good else "no <BCC>...</BCC>" for good in read]
    return replace(RewardBatch.from_values(value, info, reasons), value=value)
