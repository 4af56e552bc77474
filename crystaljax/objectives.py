"""Losses and advantages: pure functions of log-probabilities and rewards, with their metrics.

They know neither crystals nor networks. B samples are on the leading axis; the log-probabilities
of policy gradients are of actions [B, T]: whole sequences (T = 1), or their tokens.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from crystaljax.crystal import Array
from crystaljax.ranges import DECAY, NOT_NEGATIVE, POSITIVE, Range, at_least, require

Metrics = dict[str, Array]

BELOW_HALF = Range(0, 0.5, with_high=False)
"""Range of the share of inverted preferences: at one half they would have no information."""


def negative_log_likelihood(logp: Array) -> Array:
    """Mean of −log p over B samples, in nats per sample."""
    return -logp.mean()


def kl_regularized(reward: Array, logp: Array, logp_base: Array, tau: Array | float) -> Array:
    """R = r − τ ln(p/p_base) [B], whose expectation is largest for p ∝ p_base exp(r/τ).

    Equation C1 of arXiv 2504.02367 (appendix C); `logp` is that of the policy that drew the
    samples, and no gradient flows.
    """
    return jax.lax.stop_gradient(reward - tau * (logp - logp_base))


def update_baseline(baseline: Array, rewards: Array, decay: float, is_first: Array | bool) -> Array:
    """Exponential moving average of the batches' mean reward; the first batch's mean starts it."""
    require("baseline", "decay", decay, DECAY)
    mean = rewards.mean()
    return jnp.where(is_first, mean, decay * baseline + (1 - decay) * mean)


def action_weights(mask: Array) -> Array:
    """Shares [B, T] of the actions in a mean over sequences of the means over their actions.

    `mask` bool [B, T] marks actions; sequences without any have no share. As in GRPO (arXiv
    2402.03300, equation 3), where every sequence counts the same, however long.
    """
    n_actions = mask.sum(axis=-1, keepdims=True)
    return mask / jnp.maximum(n_actions, 1) / len(mask)


def ppo(
    logp: Array, logp_old: Array, advantage: Array, weight: Array, clip: float
) -> tuple[Array, Metrics]:
    """Clipped surrogate loss of PPO (arXiv 1707.06347, equation 7).

    Args:
      logp: [B, T] log-probabilities of actions under the parameters being trained.
      logp_old: [B, T] under those that drew the samples.
      advantage: [B] of the samples.
      weight: [B, T] shares of the actions in the mean; see `action_weights`.
      clip: ε; ratios count only within [1 − ε, 1 + ε] where they would gain.

    Returns the loss [], and metrics: the share of clipped actions, mean ratio, and the estimate
    of KL(old ‖ new) that is never negative (mean of ratio − 1 − ln ratio).
    """
    require("PPO", "clip", clip, POSITIVE)
    log_ratio = logp - jax.lax.stop_gradient(logp_old)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    advantage = advantage[:, None]
    loss = -(weight * jnp.minimum(ratio * advantage, clipped * advantage)).sum()
    metrics = {
        "clip_fraction": (weight * (jnp.abs(ratio - 1) > clip)).sum(),
        "ratio": (weight * ratio).sum(),
        "kl_old": (weight * (ratio - 1 - log_ratio)).sum(),
    }
    return loss, metrics


def group_advantages(reward: Array, group_size: int, floor: float) -> tuple[Array, Metrics]:
    """Rewards relative to those of the same prompt (GRPO, arXiv 2402.03300, section 4.1.2).

    Args:
      reward: [B], the samples of each prompt next to each other.
      group_size: samples of a prompt; divides B.
      floor: least standard deviation to divide by, in the reward's unit, so that groups of nearly
        equal rewards do not shout.

    Returns (r − mean) / max(std, floor) [B] with mean and std of each group, and metrics: the
    share of groups without any variance, which teach nothing, and the mean std.
    """
    require("GRPO", "group_size", group_size, at_least(2))
    require("GRPO", "floor", floor, POSITIVE)
    groups = reward.reshape(-1, group_size)
    std = groups.std(axis=1, keepdims=True)
    advantage = (groups - groups.mean(axis=1, keepdims=True)) / jnp.maximum(std, floor)
    metrics = {"zero_variance": (std < 1e-6).mean(), "group_std": std.mean()}
    return jax.lax.stop_gradient(advantage.reshape(reward.shape)), metrics


def low_variance_kl(logp: Array, logp_base: Array) -> Array:
    """KL(p ‖ p_base) from samples of p (any shape): p_base/p − 1 − ln(p_base/p), never negative.

    Its gradient, taken through `logp` alone as GRPO does, is that of KL(p_base ‖ p) on average.
    """
    log_ratio = jax.lax.stop_gradient(logp_base) - logp
    return jnp.exp(log_ratio) - 1 - log_ratio


def grpo(
    logp: Array,
    logp_old: Array,
    logp_base: Array,
    advantage: Array,
    weight: Array,
    clip: float,
    kl_weight: Array | float,
) -> tuple[Array, Metrics]:
    """Loss of GRPO (arXiv 2402.03300, equation 3).

    PPO's clipped surrogate of group-relative advantages plus `kl_weight` times `low_variance_kl`;
    arguments as of `ppo`. Returns the loss [] and metrics.
    """
    surrogate, metrics = ppo(logp, logp_old, advantage, weight, clip)
    kl = (weight * low_variance_kl(logp, logp_base)).sum()
    return surrogate + kl_weight * kl, metrics | {"kl_low_variance": kl}


def dpo(
    logp_chosen: Array,
    logp_rejected: Array,
    reference_chosen: Array,
    reference_rejected: Array,
    beta: float,
    label_smoothing: float = 0.0,
    anchor: float = 0.0,
    n_chosen: Array | float = 1.0,
) -> tuple[Array, Metrics]:
    """Loss of direct preference optimisation (arXiv 2305.18290, equation 7) over P pairs.

    Args:
      logp_chosen, logp_rejected: [P] under the parameters being trained.
      reference_chosen, reference_rejected: [P] under the reference, through which nothing flows.
      beta: what a nat of divergence from the reference costs, in units of the reward that the
        preferences follow: for preferences by Bradley and Terry the optimum is
        p ∝ p_reference exp(r/β).
      label_smoothing: probability that a preference is the wrong way round (conservative DPO).
      anchor: weight of the chosen ones' mean −ln p by action, of which they have `n_chosen` [P]
        (arXiv 2404.19733, equation 2): it keeps what is preferred likely, which equation 7 does
        not ask for.

    Returns the loss [], and metrics: the share of pairs with a larger implicit reward for the
    chosen one, the mean difference of the two, the mean implicit rewards, and −ln p by action of
    the chosen ones.
    """
    require("DPO", "beta", beta, POSITIVE)
    require("DPO", "label_smoothing", label_smoothing, BELOW_HALF)
    require("DPO", "anchor", anchor, NOT_NEGATIVE)
    chosen = beta * (logp_chosen - jax.lax.stop_gradient(reference_chosen))
    rejected = beta * (logp_rejected - jax.lax.stop_gradient(reference_rejected))
    margin = chosen - rejected
    right, wrong = jax.nn.log_sigmoid(margin), jax.nn.log_sigmoid(-margin)
    nll = -(logp_chosen / n_chosen).mean()
    loss = -((1 - label_smoothing) * right + label_smoothing * wrong).mean() + anchor * nll
    metrics = {
        "nll_chosen": nll,
        "accuracy": (margin > 0).mean(),
        "margin": margin.mean(),
        "chosen": chosen.mean(),
        "rejected": rejected.mean(),
    }
    return loss, metrics
