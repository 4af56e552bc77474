"""Log-probabilities of any number of sequences under a Wyckoff policy."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from crystaljax.models.wyckoff.likelihood import LogProb
from crystaljax.parallel import make_mesh
from crystaljax.policies.wyckoff import Params, WyckoffPolicy
from crystaljax.tokenizations.packing import RowPlan
from crystaljax.tokenizations.wyckoff import WyckoffTokens
from crystaljax.training.batches import Packed, fixed_batches, place


class Scorer:
    """A policy's log-probabilities in batches of one shape, compiled once for all parameters.

    Args:
      plan: rows that batches of `batch_size` sequences like the ones to come fit.
    """

    def __init__(
        self, policy: WyckoffPolicy, plan: RowPlan, batch_size: int, mesh: Mesh | None = None
    ) -> None:
        self.plan, self.batch_size, self.mesh = plan, batch_size, mesh or make_mesh()

        def score(params: Params, packed: Packed) -> LogProb:
            return policy.log_prob(params, packed, batch_size)

        self._score = jax.jit(score)

    def __call__(self, params: Params, tokens: WyckoffTokens) -> LogProb:
        """Log-probabilities (numpy [B] by part) of B sequences."""

        def of_batch(packed: Packed, n: int) -> Any:
            found = self._score(params, place(packed, self.mesh))
            return jax.tree.map(lambda x: np.asarray(x)[:n], found)

        batches = fixed_batches(tokens, self.batch_size, self.plan)
        parts = [of_batch(packed, len(rows)) for packed, rows in batches]
        return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
