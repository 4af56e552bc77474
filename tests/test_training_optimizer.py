"""The optimiser against PyTorch's, and the averaged weights against their definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crystaljax.training.optimizer import OptimizerConfig, TrainState

N_STEPS = 30
SHAPES = {"matrix": (4, 3), "vector": (5,)}


def gradients() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [
        {name: rng.normal(size=shape, scale=2.0) for name, shape in SHAPES.items()}
        for _ in range(N_STEPS)
    ]


def start() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def run(config: OptimizerConfig) -> list[TrainState]:
    optimizer = config.build(N_STEPS)
    state = TrainState.create(jax.tree.map(jnp.float32, start()), optimizer)
    states = [state]
    for gradient in gradients():
        state = state.apply(jax.tree.map(jnp.float32, gradient), optimizer, config.ema_decay)
        states.append(state)
    return states


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_agrees_with_pytorch(schedule: str) -> None:
    """Warm-up, schedule, clipping, AdamW with decay of matrices only."""
    torch = pytest.importorskip("torch")
    config = OptimizerConfig(
        learning_rate=0.05, schedule=schedule, warmup_steps=10, weight_decay=0.1, clip_norm=3.0
    )

    def rate(step: int) -> float:
        if step < 10:
            return step / 10
        done = (step - 10) / (N_STEPS - 10)
        final = config.final_fraction
        return {
            "constant": 1.0,
            "cosine": final + (1 - final) * (1 + np.cos(np.pi * done)) / 2,
            "linear": 1 + (final - 1) * done,
        }[schedule]

    params = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in start().items()}
    theirs = torch.optim.AdamW(
        [
            {"params": [params["matrix"]], "weight_decay": config.weight_decay},
            {"params": [params["vector"]], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, config.b2),
        eps=1e-8,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(theirs, rate)
    for gradient in gradients():
        for name, x in gradient.items():
            params[name].grad = torch.tensor(x)
        torch.nn.utils.clip_grad_norm_(list(params.values()), config.clip_norm)
        theirs.step()
        scheduler.step()
    ours = run(config)[-1].params
    for name, x in params.items():
        np.testing.assert_allclose(ours[name], x.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_averaged_weights() -> None:
    states = run(OptimizerConfig(warmup_steps=0, ema_decay=0.9))
    average = states[0].params["matrix"]
    for step, state in enumerate(states[1:]):
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * state.params["matrix"]
    np.testing.assert_allclose(states[-1].ema["matrix"], average, rtol=1e-5)
    assert int(states[-1].step) == N_STEPS


def test_no_average() -> None:
    last = run(OptimizerConfig(ema_decay=0.0))[-1]
    np.testing.assert_array_equal(last.ema["matrix"], last.params["matrix"])


def test_small_steps_of_bfloat16_weights_add_up() -> None:
    """Neighbours of 1 are 0.008 away in bfloat16, and a step is 1e-5."""
    config = OptimizerConfig(learning_rate=1e-5, schedule="constant", warmup_steps=0, clip_norm=9.0)
    optimizer = config.build(N_STEPS)
    start = {"w": jnp.ones(3, jnp.bfloat16)}
    state = TrainState.create(start, optimizer)
    for _ in range(N_STEPS):
        state = state.apply({"w": jnp.ones(3)}, optimizer, config.ema_decay)
    assert {x.dtype for x in jax.tree.leaves((state.params, state.ema))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(state.params["w"], 1 - N_STEPS * 1e-5, rtol=1e-6)


def test_a_state_has_arrays_of_its_own() -> None:
    start = {"w": jnp.ones(3)}
    state = TrainState.create(start, OptimizerConfig().build(1))
    for x in jax.tree.leaves((state.params, state.ema)):
        assert x.unsafe_buffer_pointer() != start["w"].unsafe_buffer_pointer()
