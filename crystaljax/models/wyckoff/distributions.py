"""Mixtures of von Mises and of Gaussian densities: log-densities and samples.

Parameters carry the K components on the last axis and everything broadcasts before it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import i0e, log_ndtr, ndtri

from crystaljax.crystal import Array
from crystaljax.models.rules import exclude

N_PROPOSALS = 16
"""Number of proposals for a von Mises sample. At least 0.65 of them are accepted for any κ, so that
all are rejected in one of 3e7 samples; then the first one is used."""

N_VON_MISES = 1 + 3 * N_PROPOSALS
"""Number of uniform numbers for a von Mises sample."""

NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(8)
"""Gauss-Legendre quadrature on [-1, 1] for bins no wider than a component."""

TINY = 1e-7
"""Smallest uniform number of which the logarithm or quantile is taken."""


class Mixture(NamedTuple):
    """K components on the last axis."""

    logits: Array
    """[..., K]: unnormalised log-weights."""
    loc: Array
    """[..., K]: means (angles in radians for von Mises)."""
    concentration: Array
    """[..., K]: κ of von Mises components, standard deviation of Gaussian ones."""


def von_mises_logp(angle: Array, mixture: Mixture) -> Array:
    """Log-density [...] per radian of angles [...] under a mixture of von Mises densities.

    exp(κ cos(θ − μ)) / (2π I₀(κ)), with I₀(κ) = i0e(κ) exp(κ) so that no large κ overflows.
    """
    kappa = mixture.concentration
    cosine = jnp.cos(angle[..., None] - mixture.loc)
    component = kappa * (cosine - 1) - jnp.log(2 * jnp.pi * i0e(kappa))
    weight = jax.nn.log_softmax(mixture.logits, axis=-1)
    return jax.nn.logsumexp(weight + component, axis=-1)


def gaussian_logp(x: Array, mixture: Mixture) -> Array:
    """Log-density [...] of x [...] under a mixture of Gaussians."""
    sigma = mixture.concentration
    z = (x[..., None] - mixture.loc) / sigma
    component = -0.5 * z**2 - jnp.log(sigma) - 0.5 * jnp.log(2 * jnp.pi)
    weight = jax.nn.log_softmax(mixture.logits, axis=-1)
    return jax.nn.logsumexp(weight + component, axis=-1)


def von_mises_bin_logp(angle: Array, width: Array | float, mixture: Mixture) -> Array:
    """Log-probability [...] of bins of `width` radians around angles [...] under a mixture.

    Bins no wider than a component are integrated by quadrature. For narrower components, the
    density is, with z = 2 √κ sin(θ/2), a Gaussian in z divided by cos(θ/2), which is nearly
    constant where such a component has weight.
    """
    kappa = mixture.concentration
    offset = (angle[..., None] - mixture.loc + jnp.pi) % (2 * jnp.pi) - jnp.pi
    half = jnp.broadcast_to(jnp.asarray(width)[..., None] / 2, offset.shape)
    theta = offset[..., None] + half[..., None] * jnp.asarray(NODES, offset.dtype)
    # 1 - cos θ without cancellation
    exponent = -2 * kappa[..., None] * jnp.sin(theta / 2) ** 2
    smooth = _log_quadrature(exponent, half) - jnp.log(2 * jnp.pi * i0e(kappa))

    root = 2 * jnp.sqrt(kappa)
    low, high = (root * jnp.sin((offset + side * half) / 2) for side in (-1, 1))
    norm = jnp.log(2 * jnp.pi * i0e(kappa)) + jnp.log(kappa) / 2 - jnp.log(2 * jnp.pi) / 2
    cosine = jnp.maximum(jnp.cos(offset / 2), TINY)
    sharp = _log_gaussian_interval(low, high) - norm - jnp.log(cosine)

    is_sharp = kappa * (2 * half) ** 2 > 1
    component = jnp.where(is_sharp, sharp, smooth)
    return jax.nn.logsumexp(jax.nn.log_softmax(mixture.logits, axis=-1) + component, axis=-1)


def gaussian_bin_logp(x: Array, width: Array | float, mixture: Mixture) -> Array:
    """Log-probability [...] of bins of `width` around x [...] under a mixture of Gaussians."""
    sigma = mixture.concentration
    z = (x[..., None] - mixture.loc) / sigma
    half = jnp.asarray(width)[..., None] / 2 / sigma
    nodes = z[..., None] + half[..., None] * jnp.asarray(NODES, z.dtype)
    smooth = _log_quadrature(-0.5 * nodes**2, half) - 0.5 * jnp.log(2 * jnp.pi)
    component = jnp.where(2 * half > 1, _log_gaussian_interval(z - half, z + half), smooth)
    return jax.nn.logsumexp(jax.nn.log_softmax(mixture.logits, axis=-1) + component, axis=-1)


def _log_quadrature(log_density: Array, half: Array) -> Array:
    """ln of the integral of exp(log_density) [..., nodes] over an interval of half-width [...]."""
    weights = jnp.asarray(NODE_WEIGHTS, log_density.dtype)
    return jax.nn.logsumexp(log_density, axis=-1, b=weights) + jnp.log(half)


def _log_gaussian_interval(low: Array, high: Array) -> Array:
    """ln of the probability of [low, high] under a standard Gaussian, in the tails too."""
    flip = low > 0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    above, below = log_ndtr(high), log_ndtr(low)
    return above + jnp.log1p(-jnp.exp(jnp.minimum(below - above, -TINY)))


def temper_von_mises(mixture: Mixture, temperature: Array) -> Mixture:
    """Component weights and densities raised to 1/T and normalised again: κ/T (CrystalFormer)."""
    return Mixture(mixture.logits / temperature, mixture.loc, mixture.concentration / temperature)


def temper_gaussian(mixture: Mixture, temperature: Array) -> Mixture:
    """Component weights and densities raised to 1/T and normalised again: σ √T (CrystalFormer)."""
    return Mixture(
        mixture.logits / temperature,
        mixture.loc,
        mixture.concentration * jnp.sqrt(temperature),
    )


def sample_categorical(uniform: Array, logits: Array) -> Array:
    """int32 [...]: choices from logits [..., n] by uniform numbers [...] in [0, 1).

    By inversion of the cumulative distribution; choices of probability zero are never made.
    """
    cumulative = jnp.cumsum(jax.nn.softmax(logits, axis=-1), axis=-1)
    passed = cumulative <= uniform[..., None] * cumulative[..., -1:]
    return passed.sum(axis=-1, dtype=jnp.int32)


def sample_among(uniform: Array, logits: Array, allowed: Array) -> Array:
    """int32 [...]: as `sample_categorical`, restricted to allowed choices, bool [..., n].

    If the choice from all `logits` is allowed, it is taken, so that masks change few samples of a
    seed. Otherwise the position within the refused choice's interval is a uniform number, which
    chooses among the allowed ones.
    """
    probability = jax.nn.softmax(logits, axis=-1)
    cumulative = jnp.cumsum(probability, axis=-1)
    first = sample_categorical(uniform, logits)[..., None]
    width = jnp.take_along_axis(probability, first, axis=-1)[..., 0]
    end = jnp.take_along_axis(cumulative, first, axis=-1)[..., 0]
    place = 1 - (end - uniform * cumulative[..., -1]) / jnp.maximum(width, TINY)
    second = sample_categorical(jnp.clip(place, 0, 1 - TINY), exclude(logits, allowed))
    is_allowed = jnp.take_along_axis(allowed, first, axis=-1)[..., 0]
    return jnp.where(is_allowed, first[..., 0], second)


def sample_gaussian(uniform: Array, mixture: Mixture) -> Array:
    """Numbers [...] from Gaussian mixtures; uniform numbers [..., 2] in [0, 1)."""
    loc, sigma = _component(uniform[..., 0], mixture)
    return loc + sigma * ndtri(jnp.maximum(uniform[..., 1], TINY))


def sample_von_mises(uniform: Array, mixture: Mixture) -> Array:
    """Angles [...] in [−π, π] from von Mises mixtures; uniform numbers [..., `N_VON_MISES`].

    One number chooses the component, three make each proposal.
    """
    loc, kappa = _component(uniform[..., 0], mixture)
    proposals = uniform[..., 1:].reshape(*uniform.shape[:-1], N_PROPOSALS, 3)
    angle = loc + _von_mises(proposals, kappa)
    return (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi


def _component(uniform: Array, mixture: Mixture) -> tuple[Array, Array]:
    """Mean and concentration [...] of a component that is drawn by its weight."""
    k = sample_categorical(uniform, mixture.logits)[..., None]
    loc, concentration = (
        jnp.take_along_axis(x, k, axis=-1)[..., 0] for x in (mixture.loc, mixture.concentration)
    )
    return loc, concentration


def _von_mises(uniform: Array, kappa: Array) -> Array:
    """Angles [...] around zero, by rejection from a wrapped Cauchy density.

    D. J. Best and N. I. Fisher, Applied Statistics 28, 152 (1979), with their ρ and
    r = (1 + ρ²)/2ρ rearranged so that float32 is accurate from κ = 0 (uniform angles) to above 1e6.
    All proposals, from uniform numbers [..., proposals, 3], are computed at once, and the first
    accepted one is taken, without a loop.
    """
    kappa = jnp.maximum(kappa, 1e-4)[..., None]
    root = jnp.sqrt(1 + 4 * kappa**2)
    denominator = 1 + root + jnp.sqrt(2 * (1 + root))
    rho = 2 * kappa / denominator
    one_minus_rho = (1 + 1 / (root + 2 * kappa) + jnp.sqrt(2 * (1 + root))) / denominator
    excess = one_minus_rho**2 / (2 * rho)  # r - 1

    u = jnp.moveaxis(jnp.maximum(uniform, TINY), -1, 0)
    # 1 - f of the proposal f = cos θ, without cancellation near f = 1.
    sine2, cosine2 = jnp.sin(jnp.pi * u[0] / 2) ** 2, jnp.cos(jnp.pi * u[0] / 2) ** 2
    one_minus_f = 2 * sine2 * excess / (excess + 2 * cosine2)
    c = kappa * (excess + one_minus_f)
    accepted = (c * (2 - c) > u[1]) | (jnp.log(c / u[1]) + 1 >= c)
    half = jnp.arcsin(jnp.sqrt(jnp.clip(one_minus_f / 2, 0, 1)))
    angle = jnp.where(u[2] > 0.5, 2 * half, -2 * half)
    return jnp.take_along_axis(angle, accepted.argmax(-1)[..., None], axis=-1)[..., 0]
