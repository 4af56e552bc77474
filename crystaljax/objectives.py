"""Losses and advantages: pure functions of log-probabilities and rewards, with their metrics.

They know neither crystals nor networks. B samples are on the leading axis.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from crystaljax.crystal import Array

Metrics = dict[str, Array]


def negative_log_likelihood(logp: Array) -> Array:
    """Mean of −log p over B samples, in nats per sample."""
    return -logp.mean()


def kl_regularized(reward: Array, logp: Array, logp_base: Array, tau: float) -> Array:
    """R = r − τ ln(p/p_base) [B], whose expectation is largest for p ∝ p_base exp(r/τ).

    Equation C1 of arXiv 2504.02367 (appendix C); `logp` is that of the policy that drew the
    samples, and no gradient flows.
    """
    return jax.lax.stop_gradient(reward - tau * (logp - logp_base))


def update_baseline(baseline: Array, rewards: Array, decay: float, is_first: Array | bool) -> Array:
    """Exponential moving average of the batches' mean reward; the first batch's mean starts it."""
    mean = rewards.mean()
    return jnp.where(is_first, mean, decay * baseline + (1 - decay) * mean)


def ppo(logp: Array, logp_old: Array, advantage: Array, clip: float) -> tuple[Array, Metrics]:
    """Clipped surrogate loss of PPO (arXiv 1707.06347, equation 7), on whole sequences.

    Args:
      logp: [B] log-probabilities under the parameters being trained.
      logp_old: [B] under those that drew the samples.
      advantage: [B]
      clip: ε; ratios count only within [1 − ε, 1 + ε] where they would gain.

    Returns the loss [], and metrics: the share of clipped samples, mean ratio, and the estimate
    of KL(old ‖ new) that is never negative (mean of ratio − 1 − ln ratio).
    """
    log_ratio = logp - jax.lax.stop_gradient(logp_old)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    metrics = {
        "clip_fraction": (jnp.abs(ratio - 1) > clip).mean(),
        "ratio": ratio.mean(),
        "kl_old": (ratio - 1 - log_ratio).mean(),
    }
    return loss, metrics
