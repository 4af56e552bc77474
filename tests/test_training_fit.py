"""A run over a dataset ends early when the validation loss does not fall any more."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resuming import killed_and_resumed

from crystaljax.objectives import Metrics
from crystaljax.training.fit import FitConfig, best_weights, fit
from crystaljax.training.optimizer import OptimizerConfig, TrainState

EPOCH = 2
"""Steps of a pass."""


class Numbers:
    """Batches that are the numbers of their steps."""

    batch_size, steps_per_epoch = 1, EPOCH

    def stream(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        return ((step, step) for step in range(first, last))

    def save_batch(self, step: int, folder: Path) -> Path:
        return folder / str(step)


def run(losses: Sequence[float], config: FitConfig, folder: Path, track: Any) -> TrainState:
    """A run whose i-th validation, after i passes, has the i-th loss; the weight counts steps."""

    def update(state: TrainState, _: int) -> tuple[TrainState, Metrics]:
        weights = {"w": state.params["w"] + 1}
        return replace(state, step=state.step + 1, params=weights), {"nll": jnp.float32(1)}

    optimizer = OptimizerConfig(ema_decay=0.0).build(1)
    return fit(
        update,
        TrainState.create({"w": jnp.zeros(1)}, optimizer, averaged=False),
        Numbers(),
        config,
        folder,
        track,
        title="run",
        loss="nll",
        unit="numbers",
        identity={},
        place=lambda tree: tree,
        validate=lambda state: {"nll": losses[int(state.step) // EPOCH]},
    )


CONFIG = FitConfig(n_epochs=6, validate_every=0, validate_start=True, log_every=1, patience=2)
LOSSES = [5.0, 3.0, 4.0, 2.0, 2.5, 2.0, 1.0]
"""The lowest before two in a row are no lower is the one after three passes."""


def best(folder: Path) -> tuple[float, int]:
    weights, step = best_weights(folder, {"w": jnp.zeros(1)}, {})
    return float(weights["w"][0]), step


def test_it_ends_early_with_the_best_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "crystaljax")
    lines: list[tuple[int, dict[str, float]]] = []

    def track(metrics: dict[str, Any], step: int) -> None:
        lines.append((step, metrics))

    state = run(LOSSES, CONFIG, tmp_path, track)
    assert int(state.step) == 5 * EPOCH
    assert best(tmp_path) == (3 * EPOCH, 3 * EPOCH)
    found = [step for step, metrics in lines if "validation/nll" in metrics]
    assert found == [0, 2, 4, 6, 8, 10]
    assert "the lowest loss is that of step 6" in caplog.text
    lines.clear()
    again = run(LOSSES, CONFIG, tmp_path, track)  # it does not go on beyond its early end
    assert int(again.step) == 5 * EPOCH and not lines


def test_weights_that_nothing_betters_are_kept(tmp_path: Path) -> None:
    run([1.0, 2.0, 3.0, 0.0], CONFIG, tmp_path, lambda *_: None)
    assert best(tmp_path) == (0, 0)


@settings(max_examples=4)
@given(losses=st.permutations(LOSSES), stop_after=st.integers(1, 11))
def test_a_run_that_was_killed_ends_where_it_would_have(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float], stop_after: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    config = replace(CONFIG, save_every=3)
    whole, first, rest = killed_and_resumed(
        lambda place, track: run(losses, config, place, track), folder, stop_after
    )
    assert max(whole) == max([*first, *rest])
    assert best(folder / "whole") == best(folder / "killed")


@pytest.mark.parametrize("name", ["patience", "validate_every"])
def test_numbers_below_none(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        FitConfig(**{name: -1})


def test_length_in_words() -> None:
    assert FitConfig(n_epochs=3).length(100, "crystals") == "3 epochs of 100 crystals"
    assert FitConfig(n_epochs=3, n_steps=7).length(100, "texts") == "7 steps on 100 texts"
