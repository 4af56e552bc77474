"""Negative log-likelihood of crystals in nats at one resolution, for sequences of any kind.

A text with n decimals names a bin of each number: its −ln p is that of the crystal's bins. A model
of continuous coordinates has densities, whose integrals over the same bins are probabilities, too.
What is scored is one description of a crystal; others that are equivalent would add probability, so
that −ln p of the crystal itself is less, or equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import jax
import numpy as np

from crystaljax.crystal import Array, Crystals
from crystaljax.models.wyckoff.likelihood import BinWidths, LogProb, log_prob
from crystaljax.parallel import make_mesh
from crystaljax.policies.text import TextPolicy
from crystaljax.policies.wyckoff import Params, WyckoffPolicy
from crystaljax.ranges import Range, check
from crystaljax.symmetry import orbits
from crystaljax.symmetry.tables import N_GROUPS
from crystaljax.text.batches import fixed_batches
from crystaljax.text.packing import PackedTexts, TokenSequence, per_sequence
from crystaljax.tokenizations.base import TextFormat
from crystaljax.tokenizations.packing import pack, plan_rows
from crystaljax.tokenizations.registry import create_format
from crystaljax.training.batches import Packed, place

UNSEEN = 0.5
"""Crystals that every space group is counted more than it occurs (Krichevsky and Trofimov, IEEE
Trans. Inf. Theory 27, 199 (1981)), so that none has probability 0."""


@dataclass(frozen=True)
class Resolution:
    """Decimals of numbers; their bins are centred on the rounded numbers."""

    coordinate_decimals: int = 3
    """Decimals of fractional coordinates."""
    length_decimals: int = 2
    """Decimals of a, b, c in Å."""
    angle_decimals: int = 1
    """Decimals of α, β, γ in degrees."""

    def __post_init__(self) -> None:
        decimals = Range(1, 6)
        check(self, coordinate_decimals=decimals, length_decimals=decimals, angle_decimals=decimals)

    @property
    def decimals(self) -> dict[str, int]:
        """Decimals by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def widths(self) -> dict[str, float]:
        """Bin widths by name: fractional, Å, degrees."""
        return {
            name.replace("_decimals", "_width"): float(f"1e-{n}")
            for name, n in self.decimals.items()
        }

    def format(self, name: str, **options: Any) -> TextFormat:
        """A text format with these decimals, or bins of these widths.

        `options` are further ones, left out where a format has no such. Errors: see
        `create_format`; ValueError for a format whose decimals cannot be set.
        """
        made = create_format(name)
        known = {field.name for field in fields(made)} if is_dataclass(made) else set[str]()
        for numbers in (self.decimals, self.widths):
            if numbers.keys() <= known:
                kept = {k: x for k, x in options.items() if k in known}
                return create_format(name, **numbers, **kept)
        raise ValueError(
            f"{name} takes neither {', '.join(self.decimals)} nor {', '.join(self.widths)}:"
            " without them its likelihood is not that of the same bins"
        )

    def rounded(self, crystals: Crystals) -> Crystals:
        """The crystals in the middle of their bins (numpy), dependent numbers filled in."""
        batch = crystals.to_numpy()
        frac = np.round(batch.frac.astype(np.float64), self.coordinate_decimals) % 1
        decimals = [self.length_decimals] * 3 + [self.angle_decimals] * 3
        lattice = np.stack(
            [np.round(batch.lattice[:, i].astype(np.float64), n) for i, n in enumerate(decimals)],
            axis=1,
        )
        frac = orbits.project(batch.space_group[:, None], batch.wyckoff, frac.astype(np.float32))
        lattice = orbits.constrain_lattice(batch.space_group, lattice.astype(np.float32))
        return Crystals(
            batch.space_group,
            batch.wyckoff,
            batch.species,
            np.asarray(frac) * (batch.wyckoff > 0)[..., None],
            np.asarray(lattice),
        )


def group_nll(space_group: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """−ln p of space groups (int [N], 1-230) by how often each occurs in training, int [230]."""
    share = (np.asarray(counts) + UNSEEN) / (np.sum(counts) + UNSEEN * N_GROUPS)
    nll: np.ndarray = -np.log(share[np.asarray(space_group) - 1])
    return nll


class BinnedNll:
    """−ln p [N] of crystals' bins under a Wyckoff transformer, the space group's share included.

    The groups' probabilities are those of the policy's training data. The crystals are scored as
    they are described. Compiled once for all parameters.
    """

    def __init__(
        self,
        policy: WyckoffPolicy,
        crystals: Crystals,
        resolution: Resolution | None = None,
        batch_size: int = 100,
    ) -> None:
        resolution = resolution or Resolution()
        rounded, mesh = resolution.rounded(crystals), make_mesh()
        tokens = policy.codec.encode(rounded)
        self.of_group = group_nll(rounded.space_group, policy.space_group_counts)
        width = resolution.widths
        lattice_width = np.repeat([width["length_width"], width["angle_width"]], 3)
        scale = np.asarray(tokens.lattice, np.float64) / np.asarray(rounded.lattice, np.float64)
        widths = (lattice_width * scale).astype(np.float32)
        n_sites = np.asarray(tokens.n_sites)
        starts = range(0, len(n_sites), batch_size)
        plan = plan_rows([n_sites[i : i + batch_size] for i in starts])

        def score(params: Params, packed: Packed, lattice: Array) -> LogProb:
            bins = BinWidths(width["coordinate_width"], lattice)
            return log_prob(policy.model(params), packed, batch_size, bins=bins)

        self._score = jax.jit(score)
        self._batches = []
        for start in starts:
            rows = np.arange(start, min(start + batch_size, len(n_sites)))
            lattice = np.ones((batch_size, 6), np.float32)
            lattice[: len(rows)] = widths[rows]
            self._batches.append((place(pack(tokens[rows], plan), mesh), lattice, len(rows)))

    def parts(self, params: Params) -> LogProb:
        """ln p [N] by part, given the space groups."""
        found = [
            jax.tree.map(lambda x, n=n: np.asarray(x)[:n], self._score(params, packed, lattice))
            for packed, lattice, n in self._batches
        ]
        parts: LogProb = jax.tree.map(lambda *xs: np.concatenate(xs), *found)
        return parts

    def __call__(self, params: Params) -> np.ndarray:
        """−ln p: float64 [N]."""
        return self.of_group - np.asarray(self.parts(params).total, np.float64)


class TextNll:
    """−ln p [N] of texts (all their tokens after the prompt) under a language model."""

    def __init__(
        self, policy: TextPolicy, texts: Sequence[TokenSequence], batch_size: int = 32
    ) -> None:
        self.policy = policy
        self._batches = list(
            fixed_batches(texts, batch_size, policy.config.width, policy.mesh.size)
        )

        def score(params: Params, frozen: Any, packed: PackedTexts) -> Array:
            logp = policy.token_log_probs(params, frozen, packed)
            return per_sequence(logp, packed, batch_size).sum(axis=1)

        self._score = jax.jit(score)

    def __call__(self, params: Params) -> np.ndarray:
        """−ln p: float64 [N]."""
        found = [
            np.asarray(self._score(params, self.policy.frozen, packed), np.float64)[: len(chosen)]
            for packed, chosen in self._batches
        ]
        return -np.concatenate(found)
