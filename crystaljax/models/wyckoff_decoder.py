"""One site after the other: sampling a batch of Wyckoff sequences with a key-value cache.

All sequences of a batch are at the same site. The random numbers of a step come from the sample's
own key and the site, so a sample does not depend on its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from crystaljax.crystal import Array, Batch
from crystaljax.models import distributions as dist
from crystaljax.models.constraints import Constraints, Progress
from crystaljax.models.rules import allowed_letters, exclude
from crystaljax.models.wyckoff_transformer import Cache, WyckoffTransformer
from crystaljax.symmetry.orbits import lattice_free, project
from crystaljax.symmetry.tables import N_LETTERS, tables
from crystaljax.tokenizations.wyckoff import N_SPECIES, TOKENS_PER_SITE


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeState:
    """B sequences after some sites."""

    key: Array
    """key [B]: each sample's own."""
    group: Array
    """int32 [B]: space groups, 1-230."""
    alive: Array
    """bool [B]: not ended yet."""
    letter: Array
    """int32 [B]: letter of the last site."""
    output: Array
    """float32 [B, output size]: the network's output at the last token."""
    progress: Progress
    """What the sites so far mean for the constraints."""
    cache: Cache


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodedSite(Batch):
    """What one step adds to B sequences; zero where a sequence had ended."""

    letter: Array
    """int32 [B]: 0 = the end."""
    species: Array
    """int32 [B]"""
    frac: Array
    """float32 [B, 3]"""
    lattice: Array
    """float32 [B, 6]: the scaled lattice, of sequences that end here."""
    logp: Array
    """float32 [B]: log-probability of the step under the distribution that was sampled."""
    logp_model: Array
    """float32 [B]: the same under the model itself."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sharpness:
    """How the model's distributions are changed for sampling."""

    temperature: Array
    """[]: logits are divided by it, continuous densities narrowed accordingly."""
    top_p: Array
    """[]: only the likeliest letters and elements that make up this probability are drawn."""


def start(model: WyckoffTransformer, key: Array, group: Array, cache_sites: int) -> DecodeState:
    """B empty sequences with room for `cache_sites` sites; key [B], group int [B]."""
    batch = len(group)
    return DecodeState(
        key=key,
        group=group,
        alive=jnp.ones(batch, bool),
        letter=jnp.zeros(batch, jnp.int32),
        output=jnp.zeros((batch, model.config.output_size)),
        progress=Progress.start(batch),
        cache=model.empty_cache(batch, cache_sites * TOKENS_PER_SITE),
    )


def decode_site(
    model: WyckoffTransformer,
    state: DecodeState,
    site: Array,
    sharpness: Sharpness,
    constraints: Constraints,
) -> tuple[DecodeState, DecodedSite]:
    """Sample the `site`-th (int [], from 0) site, or the end, of B sequences."""
    group, cache = state.group, state.cache
    uniform = _uniforms(state.key, site)
    first = jnp.broadcast_to(site == 0, group.shape)

    logits = jnp.where(
        site == 0, model.first_letter_logits(group), model.letter_logits(state.output)
    )
    possible = allowed_letters(group, state.letter, first)
    is_full = site >= model.config.max_sites
    possible = jnp.where(is_full, jnp.arange(N_LETTERS) == 0, possible)
    wanted = constraints.letters(state.progress, group, site, possible)
    letter, logp, logp_model = _choose(uniform.letter, logits, possible, wanted, sharpness)
    output, cache = model.step(model.embed_letter(group, letter), site * TOKENS_PER_SITE, cache)

    lattice, lattice_logp, lattice_model = _sample_lattice(
        uniform.lattice, model.lattice_mixture(output), group, sharpness
    )

    possible = jnp.broadcast_to(jnp.arange(N_SPECIES) > 0, (len(group), N_SPECIES))
    sites_left = model.config.max_sites - site
    wanted = constraints.species(state.progress, group, letter, possible, sites_left)
    logits = model.species_logits(output)
    species, logp_site, logp_model_site = _choose(
        uniform.species, logits, possible, wanted, sharpness
    )
    place = site * TOKENS_PER_SITE + 1
    output, cache = model.step(model.embed_species(group, species), place, cache)

    is_free = jnp.asarray(tables().free)[group - 1, letter]
    Carry = tuple[Array, Array, Cache, Array, Array]

    def coordinate(carry: Carry, axis: Array) -> tuple[Carry, None]:
        frac, output, cache, logp, logp_model = carry
        x, density, density_model = _sample_coordinate(
            uniform.coordinate[:, axis], model.coordinate_mixture(output), sharpness
        )
        frac = project(group, letter, frac.at[:, axis].set(x))
        counts = is_free[:, axis]
        logp += jnp.where(counts, density, 0)
        logp_model += jnp.where(counts, density_model, 0)
        token = model.embed_coordinate(axis, group, frac[:, axis])
        output, cache = model.step(token, place + 1 + axis, cache)
        return (frac, output, cache, logp, logp_model), None

    frac = jnp.zeros((len(group), 3))
    carry = frac, output, cache, logp_site, logp_model_site
    # Compiled once for the three axes.
    carry, _ = jax.lax.scan(coordinate, carry, jnp.arange(3))
    frac, output, cache, logp_site, logp_model_site = carry

    placed, ends = state.alive & (letter > 0), state.alive & (letter == 0)
    logp += jnp.where(placed, logp_site, 0) + jnp.where(ends, lattice_logp, 0)
    logp_model += jnp.where(placed, logp_model_site, 0) + jnp.where(ends, lattice_model, 0)
    found = DecodedSite(
        letter=jnp.where(placed, letter, 0),
        species=jnp.where(placed, species, 0),
        frac=jnp.where(placed[:, None], frac, 0),
        lattice=jnp.where(ends[:, None], lattice, 0),
        logp=jnp.where(state.alive, logp, 0),
        logp_model=jnp.where(state.alive, logp_model, 0),
    )
    progress = state.progress.after(group, found.letter, found.species)
    return DecodeState(state.key, group, placed, letter, output, progress, cache), found


class _Uniforms(NamedTuple):
    """Uniform numbers for one step of B sequences."""

    letter: Array
    """[B]"""
    species: Array
    """[B]"""
    lattice: Array
    """[B, 6, 2]"""
    coordinate: Array
    """[B, 3, `N_VON_MISES`]"""


def _uniforms(key: Array, site: Array) -> _Uniforms:
    """All from one call for each sample: faster, and faster to compile, than one a choice."""
    n_lattice, n_coordinate = 6 * 2, 3 * dist.N_VON_MISES

    def draw(key: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, site), (2 + n_lattice + n_coordinate,))

    u = jax.vmap(draw)(key)
    return _Uniforms(
        u[:, 0],
        u[:, 1],
        u[:, 2 : 2 + n_lattice].reshape(-1, 6, 2),
        u[:, 2 + n_lattice :].reshape(-1, 3, dist.N_VON_MISES),
    )


def _choose(
    uniform: Array, logits: Array, possible: Array, wanted: Array, sharpness: Sharpness
) -> tuple[Array, Array, Array]:
    """Choices int32 [B] from logits [B, n], with their log-probabilities: as sampled, the model's.

    `possible` is what the model's own rules allow, `wanted` what the user's constraints leave.
    """
    own = exclude(logits, possible)
    sampled = _top_p(exclude(own / sharpness.temperature, wanted), sharpness.top_p)
    choice = dist.sample_categorical(uniform, sampled)

    def of_choice(logits: Array) -> Array:
        logp = jax.nn.log_softmax(logits, axis=-1)
        return jnp.take_along_axis(logp, choice[:, None], axis=-1)[:, 0]

    return choice, of_choice(sampled), of_choice(own)


def _top_p(logits: Array, top_p: Array) -> Array:
    """Logits [B, n] with all but the likeliest choices, of total probability `top_p`, excluded."""
    order = jnp.argsort(-logits, axis=-1)
    probability = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    kept = jnp.take_along_axis(before < top_p, jnp.argsort(order, axis=-1), axis=-1)
    return exclude(logits, kept | (top_p >= 1))


def _sample_coordinate(
    uniform: Array, mixture: dist.Mixture, sharpness: Sharpness
) -> tuple[Array, Array, Array]:
    """Coordinates [B] in [0, 1), and their log-densities: as sampled, the model's."""
    tempered = dist.temper_von_mises(mixture, sharpness.temperature)
    x = dist.sample_von_mises(uniform, tempered) / (2 * jnp.pi) + 0.5
    x = jnp.where((x < 0) | (x >= 1), 0.0, x)  # the same angle, where rounding left the interval
    angle = 2 * jnp.pi * (x - 0.5)
    return x, dist.von_mises_logp(angle, tempered), dist.von_mises_logp(angle, mixture)


def _sample_lattice(
    uniform: Array, mixture: dist.Mixture, group: Array, sharpness: Sharpness
) -> tuple[Array, Array, Array]:
    """Scaled lattices [B, 6], and log-densities [B] of what is free: as sampled, the model's."""
    tempered = dist.temper_gaussian(mixture, sharpness.temperature)
    lattice = dist.sample_gaussian(uniform, tempered)
    free = lattice_free(group)
    sampled, own = (
        jnp.where(free, dist.gaussian_logp(lattice, m), 0).sum(-1) for m in (tempered, mixture)
    )
    return lattice, sampled, own
