"""The Wyckoff sequence of CrystalFormer: space group, then site by site, then the lattice.

A crystal is its space group; for each symmetry-distinct site the Wyckoff letter, the element and
the representative's x, y, z; an end token (the empty letter); and the lattice. Letters and
elements are discrete tokens, coordinates and lattice parameters continuous ones. Sites are
sorted by letter, then x, y, z (arXiv 2403.15734). n sites make 5 n + 1 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from crystaljax.crystal import Array, Batch, Crystals
from crystaljax.symmetry import orbits
from crystaljax.symmetry.tables import N_GROUPS, N_LETTERS, tables
from crystaljax.tokenizations.base import Decoded

TOKENS_PER_SITE = 5
"""Letter, element, x, y, z."""

N_SPECIES = 119
"""No element (0), and atomic numbers 1-118."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WyckoffTokens(Batch):
    """B sequences of up to S sites; after the last site everything is zero."""

    space_group: Array
    """int32 [B]: 1-230, the prompt."""
    wyckoff: Array
    """int32 [B, S]: Wyckoff letters, 0 = end, 1 = a ... 27 = A."""
    species: Array
    """int32 [B, S]: atomic numbers."""
    frac: Array
    """float32 [B, S, 3]: coordinates of the representatives, dependent ones included."""
    lattice: Array
    """float32 [B, 6]: a, b, c in Å divided by the cube root of the number of atoms in the
    conventional cell, which removes most of their variance; α, β, γ in radians."""

    @property
    def n_sites(self) -> Array:
        """int [B]: sites of each sequence."""
        return (self.wyckoff > 0).sum(axis=1)


@dataclass(frozen=True)
class WyckoffTokenization:
    """Crystals of up to `max_sites` sites as `WyckoffTokens`."""

    max_sites: int = 21

    def encode(self, crystals: Crystals) -> WyckoffTokens:
        """Tokens (numpy) of B crystals; ValueError if one has more than `max_sites` sites."""
        batch = crystals.with_slots(self.max_sites)
        length = _length_unit(batch)
        lattice = np.concatenate(
            [batch.lattice[:, :3] / length[:, None], np.deg2rad(batch.lattice[:, 3:])], axis=1
        )
        return WyckoffTokens(
            batch.space_group.astype(np.int32),
            batch.wyckoff.astype(np.int32),
            batch.species.astype(np.int32),
            batch.frac.astype(np.float32),
            lattice.astype(np.float32),
        )

    def decode(self, tokens: WyckoffTokens) -> Decoded:
        """Crystals (numpy) of B sequences, with dependent coordinates and lattice filled in."""
        reasons = _faults(tokens.to_numpy())
        ok = np.array([reason is None for reason in reasons], bool)
        batch = jax.tree.map(
            lambda x: np.where(ok.reshape(-1, *[1] * (x.ndim - 1)), x, 0), tokens.to_numpy()
        )
        group = np.where(ok, batch.space_group, 1)
        frac = orbits.project(group[:, None], batch.wyckoff, batch.frac)
        lattice = np.concatenate(
            [batch.lattice[:, :3] * _length_unit(batch)[:, None], np.rad2deg(batch.lattice[:, 3:])],
            axis=1,
        )
        lattice = np.asarray(orbits.constrain_lattice(group, lattice))
        flat = ok & ~(np.asarray(orbits.volume(lattice)) > 0)
        for row in np.flatnonzero(flat):
            reasons[row] = "the lattice parameters do not form a cell"
        ok &= ~flat
        crystals = Crystals(
            batch.space_group, batch.wyckoff, batch.species, np.asarray(frac), lattice
        )
        zeroed = jax.tree.map(
            lambda x, dtype: np.where(ok.reshape(-1, *[1] * (x.ndim - 1)), x, 0).astype(dtype),
            crystals,
            Crystals(np.int32, np.int32, np.int32, np.float32, np.float32),
        )
        return Decoded(zeroed, ok, reasons)


def _length_unit(batch: Crystals | WyckoffTokens) -> np.ndarray:
    """float32 [B]: cube root of the number of atoms in the conventional cell; 1 for empty rows."""
    group = np.clip(batch.space_group, 1, N_GROUPS) - 1
    atoms = tables().multiplicity[group[:, None], batch.wyckoff].sum(axis=1)
    return np.cbrt(np.maximum(atoms, 1)).astype(np.float32)


def _faults(tokens: WyckoffTokens) -> list[str | None]:
    """Reasons that sequences describe no crystal (its volume is checked later); None if they do."""
    group, letter, species = tokens.space_group, tokens.wyckoff, tokens.species
    known_group = (group >= 1) & (group <= N_GROUPS)
    row = np.where(known_group, group, 1) - 1
    in_range = (letter >= 0) & (letter < N_LETTERS)
    index = np.where(in_range, letter, 0)
    occupied = letter != 0
    exists = in_range & (tables().multiplicity[row[:, None], index] > 0)
    fixed = exists & (tables().n_free[row[:, None], index] == 0)
    after, before = index[:, 1:], index[:, :-1]
    in_order = np.where(after == 0, True, (before > 0) & (after >= before))
    lengths, angles = tokens.lattice[:, :3], tokens.lattice[:, 3:]
    free = np.asarray(orbits.lattice_free(np.where(known_group, group, 1)))
    in_cell = np.concatenate([lengths > 0, (angles > 0) & (angles < np.pi)], axis=1)
    checks = [
        (~known_group, "space group {group} is not one of 1-230"),
        (~occupied.any(axis=1), "there is no site"),
        ((occupied & ~exists).any(axis=1), "a Wyckoff letter that space group {group} lacks"),
        (~in_order.all(axis=1), "Wyckoff letters out of order"),
        ((fixed[:, 1:] & (after == before)).any(axis=1), "a position without freedom twice"),
        (((species < 0) | (species >= N_SPECIES)).any(axis=1), "a number that is no element's"),
        ((occupied != (species != 0)).any(axis=1), "a site without element, or the reverse"),
        (~np.isfinite(tokens.frac).all(axis=(1, 2)), "a coordinate that is not finite"),
        (~np.isfinite(tokens.lattice).all(axis=1), "a lattice parameter that is not finite"),
        ((free & ~in_cell).any(axis=1), "a cell length or angle out of range"),
    ]
    reasons: list[str | None] = [None] * len(group)
    for failed, reason in reversed(checks):  # the first fault in the list is the one reported
        for i in np.flatnonzero(failed):
            reasons[i] = reason.format(group=group[i])
    return reasons
