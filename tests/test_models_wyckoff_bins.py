"""Probabilities of bins under mixtures, against numeric integration and closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import i0e, logsumexp

from crystaljax.models.wyckoff.distributions import (
    Mixture,
    gaussian_bin_logp,
    von_mises_bin_logp,
    von_mises_logp,
)

WIDTH = 2 * np.pi * 1e-3


def von_mises_reference(angle: float, width: float, mu: float, kappa: float) -> float:
    """ln of the integral of exp(κ (cos θ - 1)) / (2π i0e(κ)) over the bin."""

    def exponent(theta: float) -> float:
        return -2 * kappa * np.sin((theta - mu) / 2) ** 2

    low, high = angle - width / 2, angle + width / 2
    nearest = np.clip(angle + (mu - angle + np.pi) % (2 * np.pi) - np.pi, low, high)
    top = exponent(nearest)
    value, _ = quad(
        lambda theta: np.exp(exponent(theta) - top),
        *(low, high),
        points=[nearest] if low < nearest < high else None,
        epsabs=0,
        epsrel=1e-10,
        limit=400,
    )
    return float(np.log(value) + top - np.log(2 * np.pi * i0e(kappa)))


@pytest.mark.parametrize("kappa", [1e-3, 1.0, 50.0, 1e3, 2e4, 3e4, 1e6, 1e8])
@pytest.mark.parametrize("sigmas", [0.0, 0.3, 1.0, 4.0])
def test_von_mises_bins_are_integrals_of_the_density(kappa: float, sigmas: float) -> None:
    mu = 3.1  # near the cut, so that offsets wrap
    angle = mu + min(sigmas / np.sqrt(kappa), 3.0)
    mixture = Mixture(*(jnp.array([x], jnp.float32) for x in (0.0, mu, kappa)))
    found = float(von_mises_bin_logp(jnp.float32(angle), WIDTH, mixture))
    mu32, angle32 = float(np.float32(mu)), float(np.float32(angle))
    expected = von_mises_reference(angle32, WIDTH, mu32, kappa)
    # float32 knows an angle to 2e-7, which moves a sharp component
    slack = 2e-3 + 4e-7 * np.sqrt(kappa) * max(sigmas, 1) * (1 + WIDTH * np.sqrt(kappa) / 10)
    assert found == pytest.approx(expected, abs=slack)


def test_bins_of_a_circle_make_up_one() -> None:
    mixture = Mixture(
        jnp.array([0.3, -0.2, 1.0]), jnp.array([0.1, 2.0, -3.1]), jnp.array([0.5, 300.0, 3e5])
    )
    centres = jnp.linspace(-jnp.pi, jnp.pi, 1001)[:-1]
    logp = np.asarray(von_mises_bin_logp(centres, 2 * np.pi / 1000, mixture), np.float64)
    assert np.exp(logsumexp(logp)) == pytest.approx(1, abs=2e-4)


def test_narrow_bins_are_densities_times_width() -> None:
    mixture = Mixture(jnp.array([0.0, 1.0]), jnp.array([0.4, -1.0]), jnp.array([2.0, 40.0]))
    angle = jnp.linspace(-3, 3, 13)
    density = np.asarray(von_mises_logp(angle, mixture))
    found = np.asarray(von_mises_bin_logp(angle, 1e-3, mixture))
    np.testing.assert_allclose(found, density + np.log(1e-3), atol=1e-4)


@pytest.mark.parametrize("sigma", [1e-3, 4e-3, 1e-2, 0.1, 2.0])
def test_gaussian_bins_are_differences_of_the_distribution_function(sigma: float) -> None:
    width = 5e-3
    x = np.float32(1.25) + np.linspace(-4, 4, 9) * sigma
    weights, means = np.array([0.7, 0.3]), np.array([1.25, 1.25 + 2 * sigma], np.float32)
    mixture = Mixture(
        jnp.log(jnp.array(weights)), jnp.array(means), jnp.full(2, sigma, jnp.float32)
    )
    found = np.asarray(gaussian_bin_logp(jnp.array(x, jnp.float32), width, mixture))
    at = x.astype(np.float32).astype(np.float64)[:, None]
    low, high = (at + side * width / 2 for side in (-1, 1))
    flip = low > means  # the smaller tail, which does not cancel
    norm = stats.norm(means.astype(np.float64), float(np.float32(sigma)))
    mass = np.where(flip, norm.sf(low) - norm.sf(high), norm.cdf(high) - norm.cdf(low))
    expected = np.log(mass @ weights)
    np.testing.assert_allclose(found, expected, atol=4e-3 if sigma < 2e-3 else 1e-3)
