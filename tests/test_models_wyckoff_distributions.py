"""Mixtures against scipy: densities, and samples by Kolmogorov-Smirnov tests."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from crystaljax.models.wyckoff import distributions as dist


def mixture(seed: int, k: int = 5, scale: float = 3.0) -> dist.Mixture:
    rng = np.random.default_rng(seed)
    return dist.Mixture(
        rng.normal(size=k).astype(np.float32),
        rng.uniform(-3, 3, k).astype(np.float32),
        np.exp(rng.normal(size=k) * scale / 3).astype(np.float32),
    )


def weights(m: dist.Mixture) -> np.ndarray:
    return np.exp(m.logits) / np.exp(m.logits).sum()


@pytest.mark.parametrize("seed", range(3))
def test_densities_are_scipys(seed: int) -> None:
    m = mixture(seed)
    x = np.linspace(-np.pi, np.pi, 101)
    parts = zip(weights(m), m.loc, m.concentration, strict=True)
    von_mises, normal = np.zeros(len(x)), np.zeros(len(x))
    for w, loc, c in parts:
        von_mises += w * stats.vonmises.pdf(x, c, loc=loc)
        normal += w * stats.norm.pdf(x, loc, c)
    np.testing.assert_allclose(np.exp(dist.von_mises_logp(x, m)), von_mises, rtol=1e-4)
    np.testing.assert_allclose(np.exp(dist.gaussian_logp(x, m)), normal, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tempered_densities_integrate_to_one(temperature: float) -> None:
    angle = np.linspace(-np.pi, np.pi, 20001)
    logp = dist.von_mises_logp(angle, dist.temper_von_mises(mixture(0), temperature))
    assert np.trapezoid(np.exp(logp), angle) == pytest.approx(1, abs=1e-4)
    x = np.linspace(-60, 60, 200001)
    logp = dist.gaussian_logp(x, dist.temper_gaussian(mixture(0), temperature))
    assert np.trapezoid(np.exp(logp), x) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kappa", [0.0, 1e-3, 0.3, 1.0, 10.0, 1e3, 1e5])
def test_von_mises_samples(kappa: float) -> None:
    n = 20_000
    one = dist.Mixture(jnp.zeros((n, 1)), jnp.zeros((n, 1)), jnp.full((n, 1), kappa))
    uniform = jax.random.uniform(jax.random.key(int(kappa * 10)), (n, dist.N_VON_MISES))
    angle = np.asarray(dist.sample_von_mises(uniform, one), np.float64)
    law = stats.uniform(-np.pi, 2 * np.pi) if kappa == 0 else stats.vonmises(kappa)
    assert stats.kstest(angle, law.cdf).pvalue > 1e-3


def test_mixture_samples() -> None:
    n, m = 40_000, mixture(4, scale=1.0)
    many = dist.Mixture(*(jnp.broadcast_to(x, (n, len(x))) for x in m))
    uniform = jax.random.uniform(jax.random.key(0), (n, dist.N_VON_MISES))
    grid = np.linspace(-np.pi, np.pi, 4001)
    cdf = np.cumsum(np.exp(np.asarray(dist.von_mises_logp(grid, m), np.float64)))
    angle = np.asarray(dist.sample_von_mises(uniform, many), np.float64)
    assert stats.kstest(angle, lambda x: np.interp(x, grid, cdf / cdf[-1])).pvalue > 1e-3

    x = np.asarray(dist.sample_gaussian(uniform[:, :2], many), np.float64)

    def normal_cdf(x: np.ndarray) -> np.ndarray:
        parts = zip(weights(m), m.loc, m.concentration, strict=True)
        return sum(w * stats.norm.cdf(x, loc, c) for w, loc, c in parts)

    assert stats.kstest(x, normal_cdf).pvalue > 1e-3


def test_categorical_never_makes_the_impossible() -> None:
    logits = jnp.array([-1e10, 0.0, -1e10, 1.0, -1e10])
    edge = jnp.array([0.0, 0.5, 1 - 2**-24, 1 - 2**-23])
    uniform = jnp.concatenate([edge, jax.random.uniform(jax.random.key(0), (50_000,))])
    choice = np.asarray(dist.sample_categorical(uniform, jnp.broadcast_to(logits, (50_004, 5))))
    assert set(choice) == {1, 3}
    assert (choice[4:] == 3).mean() == pytest.approx(1 / (1 + np.exp(-1)), abs=0.01)


@pytest.mark.parametrize("kappa", [1e-30, 1e-6, 1.0, 1e4, 1e8])
def test_gradients_are_finite(kappa: float) -> None:
    def logp(kappa: jax.Array) -> jax.Array:
        one = dist.Mixture(jnp.zeros(1), jnp.zeros(1), kappa[None])
        return dist.von_mises_logp(jnp.float32(0.3), one)

    value, gradient = jax.value_and_grad(logp)(jnp.float32(kappa))
    assert np.isfinite(value)
    assert np.isfinite(gradient)
