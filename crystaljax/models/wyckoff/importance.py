"""Selection of samples from weighted candidates, with weights as equal as possible.

Rejection control (Liu, Chen and Wong, J. Am. Stat. Assoc. 93, 1022, 1998): a candidate of weight w
is kept with probability min(1, w/c) and then has the weight max(w, c). No candidate is selected
twice, and only weights above c differ.
"""

from __future__ import annotations

import numpy as np


def effective_size(weight: np.ndarray) -> float:
    """Effective sample size (Σw)²/Σw²; 0 if all weights are 0.

    A. Kong, J. S. Liu and W. H. Wong, J. Am. Stat. Assoc. 89, 278 (1994).
    """
    scale = weight.max(initial=0.0)
    return float((weight / scale).sum() ** 2 / ((weight / scale) ** 2).sum()) if scale > 0 else 0.0


def threshold(weight: np.ndarray, n: int) -> float:
    """The c for which n candidates are kept on average, from weights float64 [M] ≥ 0.

    If at most n weights are positive, the smallest positive one, so that all of them are kept.
    """
    positive = np.sort(weight[weight > 0])[::-1]
    if len(positive) <= n:
        return float(positive[-1]) if len(positive) else 0.0
    rest = np.cumsum(positive[::-1])[::-1][:n]  # sum of all but the k largest
    c = rest / (n - np.arange(n))
    return float(c[np.argmax(positive[:n] <= c)])


def kept_weights(weight: np.ndarray, n: int) -> np.ndarray:
    """float64 [n or fewer]: the weights of n selected candidates, in no particular order."""
    c = threshold(weight, n)
    above = np.sort(weight[weight > c])
    n_kept = min(n, int(np.count_nonzero(weight)))
    return np.concatenate([np.full(max(n_kept - len(above), 0), c), above])


def select(weight: np.ndarray, n: int, uniform: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of up to n candidates, in order, and their weights, from weights float64 [M] ≥ 0.

    Fewer than n only if fewer weights are positive. Each is kept with probability min(1, w/c), by
    systematic sampling with a `uniform` number in [0, 1).
    """
    c = threshold(weight, n)
    certain = (weight >= c) & (weight > 0)
    n_drawn = min(n, int(np.count_nonzero(weight))) - int(certain.sum())
    share = np.cumsum(np.where(certain, 0, weight))
    marks = (np.arange(n_drawn) + uniform) * share[-1] / max(n_drawn, 1)
    drawn = np.minimum(np.searchsorted(share, marks, side="right"), len(weight) - 1)
    rows = np.union1d(np.flatnonzero(certain), drawn)
    return rows, np.maximum(weight[rows], c)
