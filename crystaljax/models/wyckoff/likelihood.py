"""Log-probabilities of whole crystals under a Wyckoff transformer, all tokens given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from crystaljax.crystal import Array
from crystaljax.models.rules import allowed_letters, exclude
from crystaljax.models.wyckoff.distributions import (
    gaussian_bin_logp,
    gaussian_logp,
    von_mises_bin_logp,
    von_mises_logp,
)
from crystaljax.models.wyckoff.transformer import WyckoffTransformer
from crystaljax.symmetry.orbits import lattice_free
from crystaljax.symmetry.tables import tables
from crystaljax.tokenizations.packing import PackedTokens
from crystaljax.tokenizations.wyckoff import TOKENS_PER_SITE


class LogProb(NamedTuple):
    """log p(crystal | space group) by part, each [B]; their sum is the log-probability.

    Coordinates have a density per radian of 2π(x − 1/2), lattice parameters one in the units of
    `WyckoffTokens.lattice`; only what symmetry leaves free is counted.
    """

    letter: Array
    species: Array
    coordinate: Array
    lattice: Array

    @property
    def total(self) -> Array:
        """[B]: the log-probability of each crystal."""
        return self.letter + self.species + self.coordinate + self.lattice


class BinWidths(NamedTuple):
    """Widths of bins, for probabilities of bins instead of densities."""

    coordinate: Array | float
    """[]: of fractional coordinates."""
    lattice: Array
    """[B, 6]: of lattice parameters, in the units of `WyckoffTokens.lattice`."""


def log_prob(
    model: WyckoffTransformer,
    packed: Sequence[PackedTokens],
    n_crystals: int,
    key: Array | None = None,
    counted: Array | None = None,
    bins: BinWidths | None = None,
) -> LogProb:
    """Log-probabilities of B = `n_crystals` crystals packed in blocks (zero for absent ones).

    Args:
      key: switches dropout on.
      counted: bool [230, 28, 3], coordinates that count; `tables().free` by default. With
        `tables().varying`, CrystalFormer's published log-probabilities come out, which count
        the y of (x, 2x, z) as well.
      bins: give the probabilities of bins around coordinates and lattice parameters, not densities.
    """
    counted = tables().free if counted is None else counted
    parts = [
        _block_parts(
            model,
            block,
            n_crystals,
            None if key is None else jax.random.fold_in(key, i),
            counted,
            bins,
        )
        for i, block in enumerate(packed)
    ]
    return jax.tree.map(lambda *xs: sum(xs), *parts)


def _block_parts(
    model: WyckoffTransformer,
    packed: PackedTokens,
    n_crystals: int,
    key: Array | None,
    counted: Array,
    bins: BinWidths | None,
) -> LogProb:
    """`log_prob` of the crystals in one block; zero for the others."""
    output, end_output = _outputs(model, packed, key)
    parts = _site_parts(model, packed, output, counted, bins)

    first = exclude(
        model.first_letter_logits(packed.end_group),
        allowed_letters(packed.end_group, packed.first_wyckoff, True),
    )
    first = _chosen(first, packed.first_wyckoff)
    mixture = model.lattice_mixture(end_output)
    if bins is None:
        parameter = gaussian_logp(packed.lattice, mixture)
    else:
        widths = jnp.asarray(bins.lattice).at[packed.end_crystal].get(mode="fill", fill_value=1.0)
        parameter = gaussian_bin_logp(packed.lattice, widths, mixture)
    lattice = jnp.where(lattice_free(packed.end_group), parameter, 0).sum(-1)

    def per_crystal(crystal: Array, x: Array) -> Array:
        return jnp.zeros(n_crystals, x.dtype).at[crystal].add(x, mode="drop")

    letter, species, coordinate = (per_crystal(packed.crystal, x) for x in parts)
    return LogProb(
        letter + per_crystal(packed.end_crystal, first),
        species,
        coordinate,
        per_crystal(packed.end_crystal, lattice),
    )


def _outputs(
    model: WyckoffTransformer, packed: PackedTokens, key: Array | None
) -> tuple[Array, Array]:
    """The network's outputs: at sites [R, S, 5, output size], at ends [R, C, output size]."""
    group = packed.group
    coordinates = [model.embed_coordinate(axis, group, packed.frac[..., axis]) for axis in range(3)]
    sites = jnp.stack(
        [
            model.embed_letter(group, packed.wyckoff),
            model.embed_species(group, packed.species),
            *coordinates,
        ],
        axis=2,
    )
    ends = model.embed_letter(packed.end_group, jnp.zeros_like(packed.end_group))
    n_rows, n_sites = packed.crystal.shape

    def tokens(per_site: Array, per_end: Array) -> Array:
        flat = per_site.reshape(n_rows, n_sites * TOKENS_PER_SITE, *per_site.shape[3:])
        return jnp.concatenate([flat, per_end], axis=1)

    place = packed.site[..., None] * TOKENS_PER_SITE + jnp.arange(TOKENS_PER_SITE)
    position = tokens(place, packed.end_site * TOKENS_PER_SITE)
    crystal = tokens(jnp.broadcast_to(packed.crystal[..., None], place.shape), packed.end_crystal)
    mask = (crystal[:, :, None] == crystal[:, None]) & (position[:, :, None] >= position[:, None])
    output = model.transform(tokens(sites, ends), position, mask, key)
    at_sites = output[:, : n_sites * TOKENS_PER_SITE]
    return at_sites.reshape(*place.shape, -1), output[:, n_sites * TOKENS_PER_SITE :]


def _site_parts(
    model: WyckoffTransformer,
    packed: PackedTokens,
    output: Array,
    counted: Array,
    bins: BinWidths | None,
) -> tuple[Array, Array, Array]:
    """Per site [R, S]: log-probabilities of the letter that follows, the element, x y z."""
    allowed = allowed_letters(packed.group, packed.wyckoff, False)
    letters = exclude(model.letter_logits(output[:, :, 4]), allowed)
    is_last = packed.site + 1 >= model.config.max_sites  # then the end is certain
    next_letter = jnp.where(is_last, 0, _chosen(letters, packed.next_wyckoff))

    elements = model.species_logits(output[:, :, 0])
    elements = exclude(elements, jnp.arange(elements.shape[-1]) > 0)
    species = _chosen(elements, packed.species)

    mixture = model.coordinate_mixture(output[:, :, 1:4])
    angle = 2 * jnp.pi * (packed.frac - 0.5)
    if bins is None:
        coordinate = von_mises_logp(angle, mixture)
    else:
        coordinate = von_mises_bin_logp(angle, 2 * jnp.pi * bins.coordinate, mixture)
    is_counted = jnp.asarray(counted)[packed.group - 1, packed.wyckoff]
    return next_letter, species, jnp.where(is_counted, coordinate, 0).sum(-1)


def _chosen(logits: Array, choice: Array) -> Array:
    """Log-probability [...] of the choice int [...] under logits [..., n]."""
    logp = jax.nn.log_softmax(logits, axis=-1)
    return jnp.take_along_axis(logp, choice[..., None], axis=-1)[..., 0]
