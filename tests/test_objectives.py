"""Losses and advantages against their definitions."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystaljax.objectives import (
    action_weights,
    dpo,
    group_advantages,
    grpo,
    kl_regularized,
    low_variance_kl,
    negative_log_likelihood,
    ppo,
    update_baseline,
)

SAMPLES = st.lists(
    st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-2, 2)), min_size=1, max_size=8
)


def columns(*values: Sequence[float] | np.ndarray) -> list[jax.Array]:
    """Log-probabilities [B, 1] of sequences that are one action each."""
    return [jnp.array(x)[:, None] for x in values]


def equal(n: int) -> jax.Array:
    """The shares of n such sequences."""
    return action_weights(jnp.ones((n, 1), bool))


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
    loss, metrics = ppo(*columns(new, old), jnp.array(advantage), equal(len(new)), clip)
    scale = 1 + np.abs(ratio * advantage).max()
    assert float(loss) == pytest.approx(-np.mean(expected), abs=1e-5 * scale)
    assert float(metrics["kl_old"]) >= -1e-5 * scale
    assert float(metrics["ratio"]) == pytest.approx(ratio.mean(), rel=1e-5)


def test_only_clipped_gains_have_no_gradient() -> None:
    ratio = np.array([1.5, 1.5, 0.5, 0.5, 1.1, 0.9])
    advantage = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    gain, zeros = jnp.array(advantage), jnp.zeros((6, 1))
    logp = jnp.log(ratio)[:, None]
    gradient = jax.grad(lambda logp: ppo(logp, zeros, gain, equal(6), 0.2)[0])(logp)[:, 0]
    expected = -ratio * advantage / 6 * np.array([0, 1, 1, 0, 1, 1])
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    clipped = ppo(logp, zeros, gain, equal(6), 0.2)[1]["clip_fraction"]
    assert float(clipped) == pytest.approx(4 / 6)


def test_before_the_first_update_it_is_the_policy_gradient() -> None:
    logp, advantage = jnp.array([[-1.0], [-2.0]]), jnp.array([0.5, -3.0])
    gradient = jax.grad(lambda x: ppo(x, logp, advantage, equal(2), 0.2)[0])(logp)
    np.testing.assert_allclose(gradient[:, 0], -advantage / 2)


def test_every_sequence_counts_the_same() -> None:
    """GRPO's equation 3: the mean over a sequence's tokens, then over sequences."""
    mask = np.array([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
    expected = np.array([[1, 1, 1, 0], [0, 3, 0, 0], [0, 0, 0, 0]]) / 3 / 3
    np.testing.assert_allclose(action_weights(jnp.array(mask)), expected, rtol=1e-6)
    rng = np.random.default_rng(0)
    new, old = rng.normal(size=(2, 3, 4))
    advantage = np.array([0.7, -0.2, 5.0])
    loss, metrics = ppo(
        jnp.array(new), jnp.array(old), jnp.array(advantage), action_weights(jnp.array(mask)), 0.2
    )
    ratio = np.exp(new - old)
    terms = np.minimum(ratio * advantage[:, None], np.clip(ratio, 0.8, 1.2) * advantage[:, None])
    assert float(loss) == pytest.approx(-(terms[0, :3].mean() + terms[1, 1]) / 3, rel=1e-5)
    assert float(metrics["ratio"]) == pytest.approx(
        (ratio[0, :3].mean() + ratio[1, 1]) / 3, rel=1e-5
    )


def test_the_baseline_is_a_moving_average() -> None:
    baseline = jnp.float32(0)
    for step, mean in enumerate([2.0, 4.0, 0.0]):
        rewards = jnp.array([mean - 1, mean + 1])
        baseline = update_baseline(baseline, rewards, 0.9, step == 0)
    assert float(baseline) == pytest.approx((2 * 0.9 + 4 * 0.1) * 0.9)


def test_likelihood() -> None:
    assert float(negative_log_likelihood(jnp.array([-1.0, -3.0]))) == 2


def test_group_advantages_are_relative_to_their_group() -> None:
    reward = jnp.array([1.0, 3.0, 5.0, 5.0, -1.0, -1.01])
    advantage, metrics = group_advantages(reward, 2, 0.5)
    np.testing.assert_allclose(advantage, [-1, 1, 0, 0, 0.01, -0.01], atol=1e-5)
    assert float(metrics["zero_variance"]) == pytest.approx(1 / 3)
    assert float(metrics["group_std"]) == pytest.approx((1 + 0 + 0.005) / 3, abs=1e-6)


def test_low_variance_kl_has_the_divergence_as_its_mean() -> None:
    rng = np.random.default_rng(0)
    p, base = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    estimates = low_variance_kl(jnp.log(p), jnp.log(base))
    assert float(p @ np.asarray(estimates)) == pytest.approx(p @ np.log(p / base), abs=1e-5)
    assert (np.asarray(estimates) >= -1e-6).all()


def test_grpo_adds_the_divergence_to_the_surrogate() -> None:
    logp, old, base = columns([-1.0, -2.0], [-1.1, -2.3], [-1.5, -1.0])
    advantage, weight = jnp.array([1.0, -1.0]), equal(2)
    loss, metrics = grpo(logp, old, base, advantage, weight, 0.2, 0.3)
    expected = ppo(logp, old, advantage, weight, 0.2)[0] + 0.3 * low_variance_kl(logp, base).mean()
    assert float(loss) == pytest.approx(float(expected))
    assert float(metrics["kl_low_variance"]) > 0


@given(SAMPLES, st.floats(0.05, 2), st.floats(0, 0.4))
def test_dpo_is_logistic_regression_on_implicit_rewards(
    samples: list[tuple[float, float, float]], beta: float, smoothing: float
) -> None:
    chosen, rejected, reference = np.array(samples).T
    margin = beta * ((chosen - reference) - (rejected + reference))
    likelihood = (1 - smoothing) * np.log1p(np.exp(-margin)) + smoothing * np.log1p(np.exp(margin))
    inputs = (jnp.array(x) for x in (chosen, rejected, reference, -reference))
    loss, metrics = dpo(*inputs, beta, smoothing)
    assert float(loss) == pytest.approx(likelihood.mean(), abs=1e-5)
    assert float(metrics["margin"]) == pytest.approx(margin.mean(), abs=1e-5)


def test_dpo_at_the_reference_is_a_coin_toss() -> None:
    logp = jnp.array([-3.0, -1.0])
    loss, _ = dpo(logp, logp[::-1], logp, logp[::-1], 0.5)
    assert float(loss) == pytest.approx(np.log(2))
    gradient = jax.grad(lambda x: dpo(x, logp, logp, logp, 0.5)[0])(logp)
    np.testing.assert_allclose(gradient, -0.5 / 2 / 2)
