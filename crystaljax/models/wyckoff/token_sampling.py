"""Draws tokens from the network's predictions, with log-probabilities.

Each draw gives two log-probabilities: under the sampling distribution (with temperature, top-p and
constraints), and under the model itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from crystaljax.crystal import Array
from crystaljax.models.rules import NEVER, exclude
from crystaljax.models.wyckoff import distributions as dist
from crystaljax.symmetry.orbits import lattice_free


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tempering:
    """Changes of the model's distributions for sampling."""

    temperature: Array
    """[]: logits are divided by it, and continuous densities are narrowed accordingly."""
    top_p: Array | None
    """[]: only the most likely letters and elements with this total probability are drawn."""


class Uniforms(NamedTuple):
    """Uniform numbers for one step of B sequences."""

    letter: Array
    """[B]"""
    species: Array
    """[B]"""
    lattice: Array
    """[B, 6, 2]"""
    coordinate: Array
    """[B, 3, `N_VON_MISES`]"""


@jax.jit
def draw_uniforms(key: Array, site: Array) -> Uniforms:
    """All numbers of a step by one call per sample: faster, and faster to compile."""
    n_lattice, n_coordinate = 6 * 2, 3 * dist.N_VON_MISES

    def draw(key: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, site), (2 + n_lattice + n_coordinate,))

    u = jax.vmap(draw)(key)
    return Uniforms(
        u[:, 0],
        u[:, 1],
        u[:, 2 : 2 + n_lattice].reshape(-1, 6, 2),
        u[:, 2 + n_lattice :].reshape(-1, 3, dist.N_VON_MISES),
    )


class Choice(NamedTuple):
    """Choices of B sequences, with their log-probabilities and log importance weights."""

    index: Array
    """int32 [B]"""
    logp: Array
    """[B]: ln p under the sampling distribution."""
    logp_model: Array
    """[B]: ln p under the model."""
    log_weight: Array
    """[B]: ln of the ratio of its probabilities without constraints and in sampling."""


def draw_choice(
    uniform: Array,
    logits: Array,
    possible: Array,
    known: Array,
    wanted: Array,
    tempering: Tempering,
    favour: Array | float = 0.0,
) -> Choice:
    """Choices from logits [B, n] by uniform numbers [B].

    `possible`: choices that the model's own rules allow. `known`: those of them that are sampled
    without constraints. `wanted`: those that the constraints allow, to which top-p applies.
    `favour` [B, n] is added to the logits.
    """
    own = exclude(logits, possible)
    tempered = own / tempering.temperature
    free = exclude(tempered, known)
    left = exclude(free, wanted)
    log_share = jax.nn.logsumexp(left, axis=-1) - jax.nn.logsumexp(free, axis=-1)
    if tempering.top_p is not None:
        left = _top_p(left, tempering.top_p)
    index = dist.sample_among(uniform, tempered + favour, left > NEVER / 2)

    def of_choice(logits: Array) -> Array:
        logp = jax.nn.log_softmax(logits, axis=-1)
        return jnp.take_along_axis(logp, index[:, None], axis=-1)[:, 0]

    logp = of_choice(left + favour)
    return Choice(index, logp, of_choice(own), of_choice(left) + log_share - logp)


def _top_p(logits: Array, top_p: Array) -> Array:
    """Logits [B, n] with all but the likeliest choices, of total probability `top_p`, excluded."""
    order = jnp.argsort(-logits, axis=-1)
    probability = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    kept = jnp.take_along_axis(before < top_p, jnp.argsort(order, axis=-1), axis=-1)
    return exclude(logits, kept)


def draw_coordinate(
    uniform: Array, mixture: dist.Mixture, tempering: Tempering
) -> tuple[Array, Array, Array]:
    """Coordinates [B] in [0, 1), and their log-densities: as sampled, the model's."""
    tempered = dist.temper_von_mises(mixture, tempering.temperature)
    x = dist.sample_von_mises(uniform, tempered) / (2 * jnp.pi) + 0.5
    x = jnp.where((x < 0) | (x >= 1), 0.0, x)  # the same angle, if rounding left the interval
    angle = 2 * jnp.pi * (x - 0.5)
    return x, dist.von_mises_logp(angle, tempered), dist.von_mises_logp(angle, mixture)


def draw_lattice(
    uniform: Array, mixture: dist.Mixture, group: Array, tempering: Tempering
) -> tuple[Array, Array, Array]:
    """Scaled lattices [B, 6], and log-densities [B] of what is free: as sampled, the model's."""
    tempered = dist.temper_gaussian(mixture, tempering.temperature)
    lattice = dist.sample_gaussian(uniform, tempered)
    free = lattice_free(group)
    sampled, own = (
        jnp.where(free, dist.gaussian_logp(lattice, m), 0).sum(-1) for m in (tempered, mixture)
    )
    return lattice, sampled, own
