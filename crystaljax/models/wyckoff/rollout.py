"""Sequences sampled from a Wyckoff transformer, with their log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.crystal import Array, Batch
from crystaljax.models.wyckoff.importance import effective_size
from crystaljax.models.wyckoff.token_sampling import Choice
from crystaljax.tokenizations.wyckoff import WyckoffTokens


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenRollout(Batch):
    """N samples with their log-probabilities."""

    tokens: WyckoffTokens
    """[N]"""
    logp: Array
    """float32 [N]: ln of the probability (density) under the sampling distribution of the tokens,
    with temperature, top-p, masks and look-ahead. Under constraints, samples are selected from such
    draws; this is the log-probability of the proposal, not of the selected samples."""
    logp_model: Array
    """float32 [N]: ln p under the model itself, equal to `log_prob` of the tokens."""
    log_weight: Array
    """float32 [N]: ln of the sample's weight in averages, up to a constant; all equal if samples
    are exact, −inf where the demands are not met."""
    satisfied: Array
    """bool [N]: whether the sample meets the constraints."""

    @property
    def weight(self) -> np.ndarray:
        """float64 [N]: weights of samples in averages, with mean 1; all 0 if no demand is met."""
        log_weight = np.asarray(self.log_weight, np.float64)
        if not np.isfinite(log_weight).any():
            return np.zeros(len(log_weight))
        weight = np.exp(log_weight - log_weight.max())
        return weight / weight.mean()

    @property
    def effective_size(self) -> float:
        """Effective sample size (Σw)²/Σw² (Kong, JASA 89, 278, 1994)."""
        return effective_size(self.weight)

    @staticmethod
    def empty(group: Array, max_sites: int) -> TokenRollout:
        """An empty result for N space groups."""
        n = len(group)
        tokens = WyckoffTokens(
            np.asarray(group, np.int32),
            np.zeros((n, max_sites), np.int32),
            np.zeros((n, max_sites), np.int32),
            np.zeros((n, max_sites, 3), np.float32),
            np.zeros((n, 6), np.float32),
        )
        zeros = np.zeros(n, np.float32)
        return TokenRollout(tokens, zeros, zeros.copy(), zeros.copy(), np.zeros(n, bool))

    def with_choice(self, where: Array, choice: Choice) -> TokenRollout:
        """The rollout with one more letter or element `where` (bool [N])."""
        rollout = self.with_logp(where, choice.logp, choice.logp_model)
        log_weight = rollout.log_weight + jnp.where(where, choice.log_weight, 0)
        return replace(rollout, log_weight=log_weight)

    def with_logp(self, where: Array, logp: Array, logp_model: Array) -> TokenRollout:
        """The rollout with log-probabilities [N] of one more part added `where` (bool [N])."""
        return replace(
            self,
            logp=self.logp + jnp.where(where, logp, 0),
            logp_model=self.logp_model + jnp.where(where, logp_model, 0),
        )
