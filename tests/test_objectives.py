"""Losses and advantages against their definitions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.objectives import kl_regularized, negative_log_likelihood, ppo, update_baseline

SAMPLES = st.lists(
    st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-2, 2)), min_size=1, max_size=8
)


def test_the_optimum_has_the_same_return_everywhere() -> None:
    """At p = p_base exp(r/τ)/Z the return of every choice is τ ln Z: no gradient is left."""
    rng = np.random.default_rng(0)
    tau, reward = 0.3, rng.normal(size=7)
    base = np.log(rng.dirichlet(np.ones(7)))
    log_z = np.logaddexp.reduce(base + reward / tau)
    returns = kl_regularized(reward, base + reward / tau - log_z, base, tau)
    np.testing.assert_allclose(returns, tau * log_z, rtol=1e-5)


@given(SAMPLES, st.floats(0.05, 0.5))
def test_ppo_is_the_clipped_surrogate(
    samples: list[tuple[float, float, float]], clip: float
) -> None:
    new, old, advantage = np.array(samples).T
    ratio = np.exp(new - old)
    expected = [
        min(r * a, (1 + clip) * a) if a >= 0 else min(r * a, (1 - clip) * a)
        for r, a in zip(ratio, advantage, strict=True)
    ]
    loss, metrics = ppo(jnp.array(new), jnp.array(old), jnp.array(advantage), clip)
    scale = 1 + np.abs(ratio * advantage).max()
    assert float(loss) == pytest.approx(-np.mean(expected), abs=1e-5 * scale)
    assert float(metrics["kl_old"]) >= -1e-5 * scale
    assert float(metrics["ratio"]) == pytest.approx(ratio.mean(), rel=1e-5)


def test_only_clipped_gains_have_no_gradient() -> None:
    ratio = np.array([1.5, 1.5, 0.5, 0.5, 1.1, 0.9])
    advantage = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    gradient = jax.grad(lambda logp: ppo(logp, jnp.zeros(6), jnp.array(advantage), 0.2)[0])(
        jnp.log(ratio)
    )
    expected = -ratio * advantage / 6 * np.array([0, 1, 1, 0, 1, 1])
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    clipped = ppo(jnp.log(ratio), jnp.zeros(6), jnp.array(advantage), 0.2)[1]["clip_fraction"]
    assert float(clipped) == pytest.approx(4 / 6)


def test_before_the_first_update_it_is_the_policy_gradient() -> None:
    logp, advantage = jnp.array([-1.0, -2.0]), jnp.array([0.5, -3.0])
    gradient = jax.grad(lambda x: ppo(x, logp, advantage, 0.2)[0])(logp)
    np.testing.assert_allclose(gradient, -advantage / 2)


def test_the_baseline_is_a_moving_average() -> None:
    baseline = jnp.float32(0)
    for step, mean in enumerate([2.0, 4.0, 0.0]):
        rewards = jnp.array([mean - 1, mean + 1])
        baseline = update_baseline(baseline, rewards, 0.9, step == 0)
    assert float(baseline) == pytest.approx((2 * 0.9 + 4 * 0.1) * 0.9)


def test_likelihood() -> None:
    assert float(negative_log_likelihood(jnp.array([-1.0, -3.0]))) == 2
