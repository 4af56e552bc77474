"""log p of a crystal under a Wyckoff transformer, computed slowly and independently of the code."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flax import nnx
from scipy import special, stats

from crystaljax.models.wyckoff.transformer import WyckoffTransformer
from crystaljax.symmetry.tables import tables
from crystaljax.tokenizations.wyckoff import WyckoffTokens

FREE_LATTICE = {
    2: [0, 1, 2, 3, 4, 5],
    15: [0, 1, 2, 4],
    74: [0, 1, 2],
    142: [0, 2],
    194: [0, 2],
    230: [0],
}
"""Free lattice parameters of the groups up to each of these (which end a crystal system)."""


def linear(layer: nnx.Linear, x: np.ndarray, k: int | None = None) -> np.ndarray:
    kernel, bias = (np.asarray(p.get_value(), np.float64) for p in (layer.kernel, layer.bias))
    return x @ kernel + bias if k is None else x @ kernel[k] + bias[k]


def norm(layer: nnx.LayerNorm, x: np.ndarray, k: int | None = None) -> np.ndarray:
    scale, bias = (np.asarray(p.get_value(), np.float64) for p in (layer.scale, layer.bias))
    if k is not None:
        scale, bias = scale[k], bias[k]
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def turned(x: np.ndarray) -> np.ndarray:
    """Rotary positions: tokens [T, D], each at its place, as complex numbers."""
    half = x.shape[1] // 2
    z = x[:, :half] + 1j * x[:, half:]
    z = z * np.exp(1j * np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(half) / half))
    return np.concatenate([z.real, z.imag], axis=1)


def reference_outputs(net: WyckoffTransformer, x: np.ndarray) -> np.ndarray:
    """The network on the tokens x [T, width] of one crystal, one query after the other."""
    config, block = net.config, net.blocks
    heads = config.n_heads, config.head_size
    for k in range(config.n_layers):
        h = norm(block.norm_attention, x, k)
        q, keys, v = (
            linear(layer, h, k).reshape(len(x), *heads)
            for layer in (block.query, block.key, block.value)
        )
        attended = np.zeros((len(x), *heads))
        for head in range(heads[0]):
            query, key = turned(q[:, head]), turned(keys[:, head])
            for t in range(len(x)):
                weights = special.softmax(key[: t + 1] @ query[t] / np.sqrt(heads[1]))
                attended[t, head] = weights @ v[: t + 1, head]
        x = x + linear(block.project, attended.reshape(len(x), -1), k)
        h = norm(block.norm_mlp, x, k)
        x = x + linear(block.contract, gelu(linear(block.expand, h, k)), k)
    return linear(net.head, norm(net.norm, x))


def reference(
    net: WyckoffTransformer,
    tokens: WyckoffTokens,
    temperature: float = 1.0,
    elements: Sequence[int] = range(1, 119),
) -> list[float]:
    """The four parts of log p of one crystal, in numpy and scipy, as the format's notes say.

    At another temperature probabilities and densities are raised to 1/T and normalised again;
    `elements` are those that may occur.
    """
    config, group = net.config, int(tokens.space_group[0])
    n = int(tokens.n_sites[0])
    letters, species, frac = tokens.wyckoff[0, :n], tokens.species[0, :n], tokens.frac[0, :n]
    g, w, a = (
        np.asarray(table.embedding.get_value(), np.float64)
        for table in (net.group, net.letter, net.species)
    )
    g = g[group - 1]
    inputs = []
    for letter, element, point in zip([*letters, 0], [*species, 0], [*frac, None], strict=True):
        count = [float(tables().multiplicity[group - 1, letter])]
        inputs.append(linear(net.from_letter, np.concatenate([g, w[letter], count])))
        if letter == 0:
            break
        inputs.append(linear(net.from_species, np.concatenate([g, a[element]])))
        for axis in range(3):
            angles = 2 * np.pi * point[axis] * np.arange(1, config.n_frequencies + 1)
            waves = np.stack([np.sin(angles), np.cos(angles)], axis=1).ravel()
            inputs.append(linear(net.from_coordinate[axis], np.concatenate([g, waves])))
    output = reference_outputs(net, np.array(inputs))

    def letter_logp(logits: np.ndarray, previous: int | None, letter: int) -> float:
        allowed = np.zeros(28, bool)
        first = 1 if previous is None else previous
        if previous is not None:
            allowed[0] = True
            first += int(tables().n_free[group - 1, previous] == 0)
        allowed[first : int(tables().n_letters[group - 1]) + 1] = True
        assert allowed[letter]
        return special.log_softmax(np.where(allowed, logits / temperature, -np.inf))[letter]

    first_logits = linear(net.first_letter, gelu(linear(net.first_hidden, g)))
    of_letters = letter_logp(first_logits, None, letters[0])
    of_species = of_coordinates = of_lattice = 0.0
    k = config.n_von_mises
    for i in range(n):
        following = letters[i + 1] if i + 1 < n else 0
        if i + 1 < config.max_sites:  # else the end is certain
            of_letters += letter_logp(output[5 * i + 4, :28], letters[i], following)
        logits = output[5 * i, list(elements)] / temperature
        of_species += special.log_softmax(logits)[list(elements).index(species[i])]
        for axis in np.flatnonzero(tables().free[group - 1, letters[i]]):
            logits, loc, kappa = output[5 * i + 1 + axis, : 3 * k].reshape(3, k)
            kappa = np.logaddexp(0, kappa) / temperature
            angle = 2 * np.pi * (float(frac[i, axis]) - 0.5)
            of_coordinates += special.logsumexp(
                special.log_softmax(logits / temperature)
                + stats.vonmises.logpdf(angle, kappa, loc=loc)
            )
    k = config.n_gaussians
    head = output[5 * n, 119 : 119 + 13 * k]
    logits, loc, sigma = head[:k], head[k : 7 * k].reshape(k, 6), head[7 * k :].reshape(k, 6)
    sigma = (np.logaddexp(0, sigma) + config.sigma_min) * np.sqrt(temperature)
    last = next(number for number in FREE_LATTICE if group <= number)
    for c in FREE_LATTICE[last]:
        density = stats.norm.logpdf(float(tokens.lattice[0, c]), loc[:, c], sigma[:, c])
        of_lattice += special.logsumexp(special.log_softmax(logits / temperature) + density)
    return [of_letters, of_species, of_coordinates, of_lattice]
