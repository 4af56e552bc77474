"""Packs many short sequences into rows of fixed shapes, with little padding.

Each site has 5 tokens, and each sequence one end token, from which the lattice is predicted. A row
has separate slots for the sites of some crystals and for their ends. Attention masks follow from
the sequence numbers and positions, not from the order in the row. So the kind of every token is
known at compile time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import numpy as np

from crystaljax.crystal import Array
from crystaljax.tokenizations.wyckoff import TOKENS_PER_SITE, WyckoffTokens

EVEN_WIDTH = 100
"""Length of a row at which attention takes as long as everything else (measured on a CPU)."""

NOWHERE = np.iinfo(np.int32).max
"""Sequence number of empty slots; out of range, so that JAX drops what is scattered there."""


class Rows(NamedTuple):
    """A block of rows of one shape."""

    n_rows: int
    """R, the number of rows."""
    sites: int
    """S, site slots of a row."""
    crystals: int
    """C, the largest number of crystals in a row."""


RowPlan = tuple[Rows, ...]
"""Shapes of the blocks that every batch of a run is packed into, the widest rows first. The cost of
attention grows with the square of a row's width, so small crystals go into narrow rows."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedTokens:
    """Some of a batch's B sequences, in R rows of S site slots and C end slots."""

    crystal: Array
    """int32 [R, S]: number of the site's sequence among the B; `NOWHERE` in empty slots."""
    site: Array
    """int32 [R, S]: position of the site in its sequence, from 0."""
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
    """int32 [R, C]: number of the sequence that ends here; `NOWHERE` in empty slots."""
    end_site: Array
    """int32 [R, C]: its number of sites."""
    end_group: Array
    """int32 [R, C]: its space group (1 in empty slots)."""
    first_wyckoff: Array
    """int32 [R, C]: its first letter."""
    lattice: Array
    """float32 [R, C, 6]: its scaled lattice."""


def plan_rows(batches: Sequence[np.ndarray], widest: int | None = None) -> RowPlan:
    """The cheapest plan that holds batches like the ones given.

    Args:
      batches: number of sites (int [n]) of each crystal, for some batches.
      widest: number of sites of wide rows, by default that of the largest crystal.
    """
    sites = np.concatenate(batches)
    widest = widest or int(sites.max())
    widths = np.unique(np.clip(np.quantile(sites, [0.5, 0.7, 0.8, 0.9, 0.95]), 1, widest))
    return min((_plan(batches, int(narrow), widest) for narrow in widths), key=_cost)


def _plan(batches: Sequence[np.ndarray], narrow: int, widest: int) -> RowPlan:
    """Plan of wide and narrow rows, as many as the batch that needs most."""
    mean = np.concatenate(batches).mean()

    def rows(sites: int) -> Rows:
        return Rows(max(map(len, batches)), sites, max(1, round(1.2 * sites / mean)))

    wide, small = rows(widest), rows(narrow)
    needed = max(_place(batch[batch > narrow], (wide,)).used(0) for batch in batches)
    wide = wide._replace(n_rows=max(1, needed))
    needed = max(_place(batch, (wide, small)).used(1) for batch in batches)
    return wide, small._replace(n_rows=max(1, needed))


def _cost(plan: RowPlan) -> float:
    """Proportional to the time of a step."""
    tokens = [(rows.n_rows, rows.sites * TOKENS_PER_SITE + rows.crystals) for rows in plan]
    return sum(n_rows * width * (EVEN_WIDTH + width) for n_rows, width in tokens)


def pack(tokens: WyckoffTokens, plan: RowPlan) -> tuple[PackedTokens, ...]:
    """Pack sequences (numpy, on the host): a `PackedTokens` for each block of the plan.

    If a batch does not fit into the plan (rarely), rows are added to the first block, as many as it
    has in the plan at a time, until it fits; each such shape is compiled once. ValueError if a
    sequence has more sites than the widest row.
    """
    n_sites = np.asarray(tokens.n_sites)
    if n_sites.max(initial=0) > plan[0].sites:
        raise ValueError(f"a crystal of {n_sites.max()} sites in rows of {plan[0].sites}")
    place = _place(n_sites, plan)
    extra = plan[0].n_rows
    while not place.complete:
        plan = plan[0]._replace(n_rows=plan[0].n_rows + extra), *plan[1:]
        place = _place(n_sites, plan)
    return tuple(_fill(tokens, place, block, rows) for block, rows in enumerate(plan))


def pad_rows(packed: PackedTokens, multiple: int) -> PackedTokens:
    """Pad with empty rows at the end (numpy) to a number of rows that `multiple` divides."""
    n_rows = len(packed.crystal)
    blank = {"crystal": NOWHERE, "end_crystal": NOWHERE, "group": 1, "end_group": 1}
    padded = {}
    for field in fields(packed):
        x = getattr(packed, field.name)
        added = np.full((-n_rows % multiple, *x.shape[1:]), blank.get(field.name, 0), x.dtype)
        padded[field.name] = np.concatenate([x, added])
    return PackedTokens(**padded)


class _Places(NamedTuple):
    """Block and offset of each of n sequences (int [n]); block -1: it did not fit."""

    block: np.ndarray
    row: np.ndarray
    first_site: np.ndarray
    end: np.ndarray

    @property
    def complete(self) -> bool:
        return bool((self.block >= 0).all())

    def used(self, block: int) -> int:
        """Number of rows of a block that are in use."""
        return int(self.row[self.block == block].max(initial=-1)) + 1


def _place(n_sites: np.ndarray, plan: RowPlan) -> _Places:
    """First-fit decreasing: the longest sequence first, each into the first row with room."""
    room = np.concatenate([np.full(rows.n_rows, rows.sites) for rows in plan])
    ends_left = np.concatenate([np.full(rows.n_rows, rows.crystals) for rows in plan])
    width, n_ends = room.copy(), ends_left.copy()
    row, first_site, end = (np.full(len(n_sites), -1) for _ in range(3))
    for i in np.argsort(-n_sites, kind="stable"):
        fits = room >= n_sites[i]
        chosen = int(fits.argmax())
        if not fits[chosen]:
            continue
        row[i] = chosen
        first_site[i] = width[chosen] - room[chosen]
        end[i] = n_ends[chosen] - ends_left[chosen]
        ends_left[chosen] -= 1
        room[chosen] = room[chosen] - n_sites[i] if ends_left[chosen] else -1
    starts = np.cumsum([0, *(rows.n_rows for rows in plan)])
    block = np.where(row < 0, -1, np.searchsorted(starts, row, side="right") - 1)
    return _Places(block, row - starts[np.maximum(block, 0)], first_site, end)


def _fill(tokens: WyckoffTokens, place: _Places, block: int, rows: Rows) -> PackedTokens:
    """The arrays of one block."""
    index = np.flatnonzero(place.block == block)
    source, site = np.nonzero(tokens.wyckoff[index])
    source = index[source]
    following = np.pad(tokens.wyckoff, ((0, 0), (0, 1)))[:, 1:]
    site_place = place.row[source], place.first_site[source] + site
    end_place = place.row[index], place.end[index]

    def sites(x: np.ndarray, blank: int = 0) -> np.ndarray:
        filled = np.full((rows.n_rows, rows.sites, *x.shape[1:]), blank, x.dtype)
        filled[site_place] = x
        return filled

    def ends(x: np.ndarray, blank: int = 0) -> np.ndarray:
        filled = np.full((rows.n_rows, rows.crystals, *x.shape[1:]), blank, x.dtype)
        filled[end_place] = x
        return filled

    return PackedTokens(
        crystal=sites(source.astype(np.int32), NOWHERE),
        site=sites(site.astype(np.int32)),
        group=sites(tokens.space_group[source], 1),
        wyckoff=sites(tokens.wyckoff[source, site]),
        next_wyckoff=sites(following[source, site]),
        species=sites(tokens.species[source, site]),
        frac=sites(tokens.frac[source, site]),
        end_crystal=ends(index.astype(np.int32), NOWHERE),
        end_site=ends(np.asarray(tokens.n_sites)[index].astype(np.int32)),
        end_group=ends(tokens.space_group[index], 1),
        first_wyckoff=ends(tokens.wyckoff[index, 0]),
        lattice=ends(tokens.lattice[index]),
    )
