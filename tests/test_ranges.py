"""Settings that cannot be are refused where a configuration is made."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from crystaljax.mcmc import MCMCConfig, Moves
from crystaljax.objectives import dpo, group_advantages, ppo, update_baseline
from crystaljax.ranges import DECAY, FINITE, POSITIVE, SHARE, at_least
from crystaljax.rewards.pool import PoolConfig
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.preference import DpoConfig, PreferenceConfig
from crystaljax.training.pretrain import PretrainConfig
from crystaljax.training.reinforce import ReinforceConfig
from crystaljax.training.rlip import RlipConfig
from crystaljax.training.sft import SftConfig
from crystaljax.training.text_preference import TextPreferenceConfig
from crystaljax.training.tiers import KINDS, PairConfig

FIT = {
    "n_epochs": 0,
    "n_steps": -1,
    "batch_size": 0,
    "log_every": 0,
    "save_every": -1,
    "validate_every": -1,
    "patience": -1,
}
DPO = {"beta": 0.0, "label_smoothing": 0.5, "anchor": -0.1}
REFUSED: dict[type, dict[str, float]] = {
    ReinforceConfig: {
        "n_steps": 0,
        "batch_size": 0,
        "tau": -0.1,
        "baseline_decay": 1.0,
        "group_size": 1,
        "std_floor": 0.0,
        "clip": -0.2,
        "inner_steps": 0,
        "n_minibatches": 0,
        "save_every": 0,
    },
    DpoConfig: DPO,
    PreferenceConfig: DPO
    | {"n_iterations": 0, "n_samples": 1, "group_size": 1, "min_gap": -1.0, "epochs": 0}
    | {"batch_size": 0, "temperature_step": np.inf},
    RlipConfig: DPO
    | {"n_iterations": 0, "epochs": 0, "batch_size": 0, "n_unconditional": -1, "n_per_group": -1}
    | {"group_size": 0, "symprec": 0.0, "temperature_step": np.inf, "temperature_every": 0},
    PairConfig: dict.fromkeys(KINDS, -1),
    TextPreferenceConfig: DPO | FIT | {"n_parts": 0},
    PretrainConfig: FIT,
    SftConfig: FIT | {"n_parts": 0},
    OptimizerConfig: {
        "learning_rate": 0.0,
        "warmup_steps": -1,
        "final_fraction": 1.5,
        "weight_decay": -0.1,
        "b2": 1.0,
        "clip_norm": 0.0,
        "ema_decay": 1.0,
    },
    MCMCConfig: {"n_chains": 0, "n_steps": 0, "tau": 0.0, "save_every": 0},
    Moves: {"coordinate": -0.1, "length": -1.0, "angle": -1.0},
    PoolConfig: {"n_workers": 0, "chunk": 0, "attempts": 0, "threads": 0, "gpus": -1, "timeout": 0},
}


@pytest.mark.parametrize("config", REFUSED, ids=lambda config: config.__name__)
def test_what_cannot_be_is_refused_by_name(config: Any) -> None:
    config()  # the defaults are in their ranges
    for name, value in REFUSED[config].items():
        for refused in (value, np.nan):
            with pytest.raises(ValueError, match=f"{config.__name__}: {name} must be .*{refused}"):
                config(**{name: refused})


@pytest.mark.parametrize("config", REFUSED, ids=lambda config: config.__name__)
def test_every_number_is_checked(config: Any) -> None:
    numbers = {field.name for field in dataclasses.fields(config) if field.type in ("int", "float")}
    assert numbers - set(REFUSED[config]) <= {"seed", "start_timeout"}


def test_what_ranges_hold_and_say() -> None:
    assert at_least(1).holds(1) and not at_least(1).holds(0.5) and not at_least(1).holds(np.inf)
    assert POSITIVE.holds(1e-9) and not POSITIVE.holds(0) and not POSITIVE.holds(np.nan)
    assert FINITE.holds(-1e9) and not FINITE.holds(-np.inf)
    assert SHARE.holds(1) and not DECAY.holds(1)
    assert [str(x) for x in (POSITIVE, FINITE, SHARE, DECAY)] == [
        "above 0 and finite",
        "finite",
        "at least 0 and at most 1",
        "at least 0 and below 1",
    ]


def test_objectives_refuse_the_same() -> None:
    x = np.zeros((4, 1))
    with pytest.raises(ValueError, match="PPO: clip must be above 0"):
        ppo(x, x, x[:, 0], x, -0.2)
    with pytest.raises(ValueError, match="GRPO: group_size must be at least 2"):
        group_advantages(x[:, 0], 1, 0.1)
    with pytest.raises(ValueError, match="DPO: beta must be above 0"):
        dpo(*(x[:, 0],) * 4, beta=float("nan"))
    with pytest.raises(ValueError, match="decay must be"):
        update_baseline(x[0, 0], x[:, 0], 1.0, False)
