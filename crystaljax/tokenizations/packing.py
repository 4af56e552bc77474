"""Many short sequences in few rows of one fixed shape, so that nothing is computed on padding.

Sites have 5 tokens, and every sequence one more at its end, from which the lattice is predicted.
A row holds the sites of some crystals in `row_sites` slots and their ends in `row_crystals`
slots; which tokens see each other is told by `crystal` and the positions, not by their order.
So the kind of every token is known at compile time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from crystaljax.crystal import Array
from crystaljax.tokenizations.wyckoff import WyckoffTokens


class RowShape(NamedTuple):
    """The shape of packed rows; keep it fixed in a run, or every new shape compiles again."""

    sites: int = 20
    """Site slots of a row; at least as many as the largest crystal has sites."""
    crystals: int = 6
    """Crystals in a row, at most."""
    multiple: int = 8
    """Rows come in multiples of this number (empty ones are added), and so do compilations. It
    must be a multiple of the number of devices."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedTokens:
    """B sequences in R rows of S site slots and C end slots."""

    crystal: Array
    """int32 [R, S]: which of the B sequences the site is of; B in empty slots."""
    site: Array
    """int32 [R, S]: the site's place in its sequence, from 0."""
    group: Array
    """int32 [R, S]: space group, 1-230 (1 in empty slots)."""
    wyckoff: Array
    """int32 [R, S]: letter index."""
    next_wyckoff: Array
    """int32 [R, S]: the letter that follows in the sequence, 0 = end."""
    species: Array
    """int32 [R, S]"""
    frac: Array
    """float32 [R, S, 3]"""
    end_crystal: Array
    """int32 [R, C]: which of the B sequences ends here; B in empty slots."""
    end_site: Array
    """int32 [R, C]: its number of sites."""
    end_group: Array
    """int32 [R, C]: its space group (1 in empty slots)."""
    first_wyckoff: Array
    """int32 [R, C]: its first letter."""
    lattice: Array
    """float32 [R, C, 6]: its scaled lattice."""


def pack(tokens: WyckoffTokens, shape: RowShape, n_crystals: int | None = None) -> PackedTokens:
    """Pack sequences (numpy, on the host), the longest first, each into the first row with room.

    `n_crystals` is the B that marks empty slots, at least the number of sequences (its default):
    give the batch size when the last batch is smaller. ValueError if a sequence has more sites
    than a row.
    """
    n_sites = np.asarray(tokens.n_sites)
    if n_sites.max(initial=0) > shape.sites:
        raise ValueError(f"a crystal of {n_sites.max()} sites in rows of {shape.sites}")
    empty = len(n_sites) if n_crystals is None else n_crystals
    row, first_slot, end_slot, n_rows = _place(n_sites, shape)
    n_rows = -(-max(n_rows, 1) // shape.multiple) * shape.multiple

    source, site = np.nonzero(tokens.wyckoff)
    sites = row[source], first_slot[source] + site
    ends = row, end_slot
    following = np.pad(tokens.wyckoff, ((0, 0), (0, 1)))[:, 1:]

    def fill(place: tuple[np.ndarray, np.ndarray], width: int, x: np.ndarray, blank: int = 0):  # type: ignore[no-untyped-def]
        filled = np.full((n_rows, width, *x.shape[1:]), blank, x.dtype)
        filled[place] = x
        return filled

    index = np.arange(len(n_sites), dtype=np.int32)
    return PackedTokens(
        crystal=fill(sites, shape.sites, index[source], empty),
        site=fill(sites, shape.sites, site.astype(np.int32)),
        group=fill(sites, shape.sites, tokens.space_group[source], 1),
        wyckoff=fill(sites, shape.sites, tokens.wyckoff[source, site]),
        next_wyckoff=fill(sites, shape.sites, following[source, site]),
        species=fill(sites, shape.sites, tokens.species[source, site]),
        frac=fill(sites, shape.sites, tokens.frac[source, site]),
        end_crystal=fill(ends, shape.crystals, index, empty),
        end_site=fill(ends, shape.crystals, n_sites.astype(np.int32)),
        end_group=fill(ends, shape.crystals, tokens.space_group, 1),
        first_wyckoff=fill(ends, shape.crystals, tokens.wyckoff[:, 0]),
        lattice=fill(ends, shape.crystals, tokens.lattice),
    )


def _place(
    n_sites: np.ndarray, shape: RowShape
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """First-fit decreasing: each sequence's row, first site slot, end slot; rows used."""
    room = np.full(len(n_sites), shape.sites)
    crystals = np.zeros(len(n_sites), int)
    row, first_slot, end_slot = (np.zeros(len(n_sites), int) for _ in range(3))
    n_rows = 0
    for i in np.argsort(-n_sites, kind="stable"):
        fits = (room[: n_rows + 1] >= n_sites[i]) & (crystals[: n_rows + 1] < shape.crystals)
        chosen = int(fits.argmax())
        row[i], first_slot[i], end_slot[i] = chosen, shape.sites - room[chosen], crystals[chosen]
        room[chosen] -= n_sites[i]
        crystals[chosen] += 1
        n_rows = max(n_rows, chosen + 1)
    return row, first_slot, end_slot, n_rows
