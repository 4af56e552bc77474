"""A toy problem: sequences of three tokens under a tabular policy, small enough to enumerate."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

LENGTH, VOCABULARY = 3, 3
SEQUENCES = np.array(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))


def actions(params: dict, frozen: tuple, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of tokens [B, LENGTH] under a tabular autoregressive policy, and a mask.

    The policy is a table of logits for every prefix.
    """
    found = []
    prefix = jnp.zeros(len(tokens), int)
    for i in range(LENGTH):
        logp = jax.nn.log_softmax(params[f"table{i}"][prefix])
        found.append(jnp.take_along_axis(logp, tokens[:, i : i + 1], axis=1)[:, 0])
        prefix = prefix * VOCABULARY + tokens[:, i]
    return jnp.stack(found, axis=1), jnp.ones(tokens.shape, bool)


def log_probs(params: dict, tokens: jax.Array) -> jax.Array:
    """Log-probabilities of whole sequences."""
    return actions(params, (), tokens)[0].sum(axis=1)


def tables(seed: int) -> dict:
    """A random policy."""
    keys = jax.random.split(jax.random.key(seed), LENGTH)
    return {
        f"table{i}": jax.random.normal(key, (VOCABULARY**i, VOCABULARY))
        for i, key in enumerate(keys)
    }


def probabilities(params: dict) -> np.ndarray:
    """Of all sequences, float64."""
    p = np.exp(np.asarray(log_probs(params, SEQUENCES), np.float64))
    return p / p.sum()


def tilted(p: np.ndarray, reward: np.ndarray, tau: float) -> np.ndarray:
    """p exp(r/τ)/Z, the optimum of E[r] − τ KL(· ‖ p)."""
    weight = p * np.exp(reward / tau)
    return weight / weight.sum()


def distance(p: np.ndarray, q: np.ndarray) -> float:
    """Total variation distance."""
    return float(0.5 * np.abs(p - q).sum())
