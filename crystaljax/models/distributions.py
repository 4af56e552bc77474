"""Mixtures of von Mises and of Gaussian densities: log-densities and samples.

Parameters carry the K components on the last axis and everything broadcasts before it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import i0e

from crystaljax.crystal import Array

MAX_REJECTIONS = 100
"""Proposals for a von Mises sample; at least 0.65 of them are accepted whatever κ."""


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


def sample_von_mises(key: Array, mixture: Mixture) -> Array:
    """One angle in [−π, π) from one mixture, whose arrays are [K]; vmap over keys for more."""
    key_component, key_angle = jax.random.split(key)
    k = jax.random.categorical(key_component, mixture.logits)
    angle = mixture.loc[k] + _von_mises(key_angle, mixture.concentration[k])
    return (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi


def sample_gaussian(key: Array, mixture: Mixture) -> Array:
    """One number from one mixture, whose arrays are [K]; vmap over keys for more."""
    key_component, key_value = jax.random.split(key)
    k = jax.random.categorical(key_component, mixture.logits)
    return mixture.loc[k] + mixture.concentration[k] * jax.random.normal(key_value)


def _von_mises(key: Array, kappa: Array) -> Array:
    """An angle around zero by rejection from a wrapped Cauchy density.

    D. J. Best and N. I. Fisher, Applied Statistics 28, 152 (1979), with their ρ and r = (1 + ρ²)/2ρ
    rearranged so that float32 is accurate from κ = 0 (uniform angles) to 1e6 and beyond.
    """
    kappa = jnp.maximum(kappa, 1e-4)
    root = jnp.sqrt(1 + 4 * kappa**2)
    denominator = 1 + root + jnp.sqrt(2 * (1 + root))
    rho = 2 * kappa / denominator
    one_minus_rho = (1 + 1 / (root + 2 * kappa) + jnp.sqrt(2 * (1 + root))) / denominator
    excess = one_minus_rho**2 / (2 * rho)  # r - 1

    def propose(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, _, _ = state
        u = jax.random.uniform(jax.random.fold_in(key, i), (3,), minval=1e-7)
        # 1 − f of the proposal f = cos θ, again without cancellation near f = 1.
        sine2, cosine2 = jnp.sin(jnp.pi * u[0] / 2) ** 2, jnp.cos(jnp.pi * u[0] / 2) ** 2
        one_minus_f = 2 * sine2 * excess / (excess + 2 * cosine2)
        c = kappa * (excess + one_minus_f)
        accepted = (c * (2 - c) > u[1]) | (jnp.log(c / u[1]) + 1 >= c)
        half = jnp.arcsin(jnp.sqrt(jnp.clip(one_minus_f / 2, 0, 1)))
        return i + 1, accepted, jnp.where(u[2] > 0.5, 2 * half, -2 * half)

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        return ~state[1] & (state[0] < MAX_REJECTIONS)

    start = jnp.int32(0), jnp.bool_(False), jnp.zeros_like(kappa)
    return jax.lax.while_loop(unfinished, propose, start)[2]
