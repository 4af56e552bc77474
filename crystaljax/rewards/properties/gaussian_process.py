"""Gaussian-process regression on groups of features (Rasmussen & Williams 2006, chapters 2 and 5).

Far from the training data its predictions return to their mean, and its uncertainty grows. So a
policy that it rewards gains nothing from crystals far from the training data.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from crystaljax.crystal import Array


class Hyperparameters(NamedTuple):
    """Natural logarithms of a kernel's scales."""

    lengths: Array
    """float32 [G]: length scale of each group of features."""
    amplitude: Array
    """float32 []: standard deviation of the function."""
    noise: Array
    """float32 []: standard deviation of the noise."""


class GaussianProcess(NamedTuple):
    """A fitted process: N data with F features."""

    x: Array
    """float32 [N, F]: features, standardised."""
    shift: Array
    """float32 [F]"""
    scale: Array
    """float32 [F]: standardised features are (features − shift) / scale."""
    group: Array
    """int32 [F]: group of each feature."""
    hyperparameters: Hyperparameters
    mean: Array
    """float32 []: of the data."""
    weights: Array
    """float32 [N]: of the kernel with each datum in the prediction."""


def squared_distances(x: Array, other: Array, group: Array, n_groups: int) -> Array:
    """Mean squared differences float32 [G, N, M] of features [N, F] and [M, F], group by group."""

    def of_group(g: int) -> Array:
        member = group == g
        a, b = x * member, other * member
        square = (a**2).sum(-1)[:, None] + (b**2).sum(-1) - 2 * a @ b.T
        return jnp.maximum(square, 0) / member.sum()

    with jax.default_matmul_precision("highest"):
        return jnp.stack([of_group(g) for g in range(n_groups)])


def kernel(squared: Array, at: Hyperparameters) -> Array:
    """The Matérn kernel of smoothness 5/2 [N, M] from squared distances [G, N, M]."""
    square = (squared * jnp.exp(-2 * at.lengths)[:, None, None]).sum(0)
    distance = jnp.sqrt(5 * square + 1e-12)  # its slope at 0 is finite
    shape = (1 + distance + distance**2 / 3) * jnp.exp(-distance)
    return jnp.exp(2 * at.amplitude) * shape


def fit(features: np.ndarray, values: np.ndarray, group: np.ndarray) -> GaussianProcess:
    """The process of values [N] at features [N, F] in groups int [F] (numbered from 0).

    Its scales are those of the largest marginal likelihood, found by L-BFGS. ValueError for
    numbers that are not finite.
    """
    if not (np.isfinite(features).all() and np.isfinite(values).all()):
        raise ValueError("features and values must be finite")
    n_groups = int(group.max()) + 1
    shift, scale = features.mean(0), np.maximum(features.std(0), 1e-6)
    x = jnp.asarray((features - shift) / scale, jnp.float32)
    mean = values.mean()
    y = jnp.asarray(values - mean, jnp.float32)
    squared = squared_distances(x, x, group, n_groups)

    @jax.jit
    def loss(flat: Array) -> tuple[Array, Array]:
        return jax.value_and_grad(lambda z: -log_likelihood(squared, y, _unpack(z)))(flat)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(jnp.asarray(flat, jnp.float32))
        return float(value), np.asarray(slope, np.float64)

    start = np.concatenate([np.ones(n_groups), [0.0, np.log(0.2)]])
    bounds = [(-3, 5)] * n_groups + [(-4, 4), (np.log(0.05), 2)]
    found = scipy.optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30}
    )
    at = _unpack(jnp.asarray(found.x, jnp.float32))
    weights = jax.scipy.linalg.cho_solve((_factor(squared, at), True), y)
    return GaussianProcess(
        x, jnp.float32(shift), jnp.float32(scale), jnp.int32(group), at, jnp.float32(mean), weights
    )


def predict(process: GaussianProcess, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation float64 [M] of the function at features [M, F]."""
    n = len(features)
    padding = (1 << max(4, (n - 1).bit_length())) - n  # few shapes to compile for
    mean, variance = _posterior(process, np.pad(features, [(0, padding), (0, 0)]))
    deviation = np.sqrt(np.maximum(np.asarray(variance[:n], np.float64), 0))
    return np.asarray(mean[:n], np.float64), deviation


@jax.jit
def _posterior(process: GaussianProcess, features: Array) -> tuple[Array, Array]:
    """Mean and variance float32 [M] of the function (Rasmussen & Williams, eqs 2.25 and 2.26)."""
    at, group = process.hyperparameters, process.group
    n_groups = len(at.lengths)
    x = (features - process.shift) / process.scale
    with jax.default_matmul_precision("highest"):
        between = kernel(squared_distances(x, process.x, group, n_groups), at)
        factor = _factor(squared_distances(process.x, process.x, group, n_groups), at)
        explained = jax.scipy.linalg.solve_triangular(factor, between.T, lower=True)
        mean = process.mean + between @ process.weights
    return mean, jnp.exp(2 * at.amplitude) - (explained**2).sum(0)


def log_likelihood(squared: Array, y: Array, at: Hyperparameters) -> Array:
    """The log marginal likelihood of centred values [N] (Rasmussen & Williams, eq. 2.30)."""
    factor = _factor(squared, at)
    fitted = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
    constant = len(y) / 2 * jnp.log(2 * jnp.pi)
    return -(fitted**2).sum() / 2 - jnp.log(jnp.diagonal(factor)).sum() - constant


def _factor(squared: Array, at: Hyperparameters) -> Array:
    """The Cholesky factor of the covariance of the data."""
    noise = jnp.exp(2 * at.noise) * jnp.eye(squared.shape[-1])
    return jnp.linalg.cholesky(kernel(squared, at) + noise)


def _unpack(flat: Array) -> Hyperparameters:
    return Hyperparameters(flat[:-2], flat[-2], flat[-1])
