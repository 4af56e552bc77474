"""Batched sampling of completions: rows that end are refilled from a queue of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np
from jax.sharding import NamedSharding

from crystaljax.models.llm.decode import (
    MAX_STEPS,
    Chunk,
    DecodeSettings,
    Fresh,
    Network,
    Weights,
    decode,
    insert,
    prefill,
    start,
    take,
)
from crystaljax.models.llm.decoder import Cache
from crystaljax.text.stops import Cut, StopStrings

Reason = Literal["end", "stop", "length"]

SHRINK = 4
"""A batch is made smaller when this fraction of it, or less, has not ended."""

SMALLEST_BATCH = 4
"""Batches are not made smaller than this."""

REFILL = 8
"""Rows are refilled when this fraction of the batch has ended."""

STEPS_TO_STOP = 16
"""Tokens that are decoded before stop strings are looked for."""


@dataclass(frozen=True)
class Generation:
    """N completions, grouped by prompt; numpy arrays."""

    prompt: np.ndarray
    """int [N]: number of the prompt."""
    tokens: np.ndarray
    """int32 [N, max_new_tokens]: with the end token, or those of the stop string, where there is
    one; 0 after the last."""
    length: np.ndarray
    """int32 [N]: number of tokens."""
    logp: np.ndarray
    """float32 [N, max_new_tokens]: ln p of each token under the sampling distribution, with
    temperature, top-k, top-p and grammar (0 at temperature 0)."""
    logp_model: np.ndarray
    """float32 [N, max_new_tokens]: ln p under the model itself, equal to `token_log_probs`."""
    reason: np.ndarray
    """str [N]: reason that it ended: "end" (token), "stop" (string) or "length"."""
    text: list[str]
    """Completions as text, without end token and stop string (and what follows it in its last
    token); empty without a tokenizer."""

    @staticmethod
    def empty(n_prompts: int, n: int, max_new_tokens: int) -> Generation:
        """An empty result for n completions of each prompt."""
        size = n_prompts * n
        logp = np.zeros((size, max_new_tokens), np.float32)
        return Generation(
            prompt=np.repeat(np.arange(n_prompts), n),
            tokens=np.zeros((size, max_new_tokens), np.int32),
            length=np.zeros(size, np.int32),
            logp=logp,
            logp_model=logp.copy(),
            reason=np.full(size, "", "<U6"),
            text=[""] * size,
        )

    def __len__(self) -> int:
        return len(self.length)

    def sequence(self, i: int) -> np.ndarray:
        """int32 [n]: tokens of the i-th completion."""
        return self.tokens[i, : self.length[i]]

    def cut(self, i: int, cut: Cut) -> None:
        """End the i-th completion with a stop string."""
        for values in (self.tokens, self.logp, self.logp_model):
            values[i, cut.n_tokens :] = 0
        self.length[i], self.reason[i], self.text[i] = cut.n_tokens, "stop", cut.text


@dataclass(frozen=True)
class Prompts:
    """Prompts to complete."""

    tokens: Sequence[np.ndarray]
    """int32 [length] each."""
    limits: np.ndarray
    """int32 [len(tokens)]: largest number of tokens of each prompt's completions."""
    n: int
    """Completions of each; sample i is of prompt i // n."""
    numbers: np.ndarray
    """int [len(tokens) · n]: number of each sample, which seeds its random numbers."""

    @property
    def n_samples(self) -> int:
        return len(self.tokens) * self.n


@dataclass(frozen=True)
class Prefilled:
    """Consecutive prompts with their attention keys and values."""

    cache: Cache | None
    """[P, KV, T, D]"""
    first: int
    """Number of the first prompt."""
    last: int
    """Number of the last prompt plus 1."""


class Engine:
    """A batch of rows that samples completions of prompts.

    Args:
      weights: of the network.
      settings: how to draw.
      result: filled as completions end.
      batch_size: largest number of rows, rounded up to a multiple of the number of devices.
      sharding: of the rows.
    """

    def __init__(
        self,
        network: Network,
        weights: Weights,
        settings: DecodeSettings,
        prompts: Prompts,
        result: Generation,
        batch_size: int,
        stops: StopStrings,
        sharding: NamedSharding | None,
    ) -> None:
        self.model = network, weights
        self.settings, self.prompts, self.result, self.stops = settings, prompts, result, stops
        self.sharding = sharding
        self.sizes = batch_sizes(batch_size, 1 if sharding is None else sharding.num_devices)
        size = _smallest(self.sizes, prompts.n_samples)
        lengths = np.array([len(tokens) for tokens in prompts.tokens])
        slots = bucket(int((lengths + prompts.limits).max(initial=1)))
        self.state = start(network, weights, size, slots, sharding)
        self.owner = np.full(size, -1)  # the sample in each row
        self.next = 0  # the next sample to start
        self.prefilled = Prefilled(None, 0, 0)
        self.end_tokens = np.asarray(settings.end_tokens)
        self.steps = np.int32(STEPS_TO_STOP if stops.stops else MAX_STEPS)

    def run(self) -> None:
        """Sample all."""
        self._refill()
        while (self.owner >= 0).any():
            self._shrink()
            self.state, chunk = decode(
                *self.model,
                self.state,
                self.settings,
                self.owner >= 0,
                self.steps,
                self._until(),
                self.sharding,
            )
            self._record(jax.device_get(chunk))
            self._refill()

    @property
    def _waiting(self) -> int:
        return self.prompts.n_samples - self.next

    def _until(self) -> np.int32:
        """Number of active rows at which decoding pauses, to refill rows or to shrink the batch."""
        size = len(self.owner)
        if self._waiting:
            return np.int32(size - min(max(size // REFILL, 1), self._waiting))
        return np.int32(max((s for s in self.sizes if s < size), default=0))

    def _refill(self) -> None:
        """Start waiting samples, in order, in free rows, from prefilled prompts."""
        while self._waiting and (self.owner < 0).any():
            n = self.prompts.n
            free = np.flatnonzero(self.owner < 0)
            if self.next >= self.prefilled.last * n:
                self._prefill(-(-min(len(free), self._waiting) // n))
            ready = min(self.prefilled.last * n, self.prompts.n_samples) - self.next
            rows = free[:ready]
            samples = self.next + np.arange(len(rows))
            self.owner[rows] = samples
            self.next += len(rows)
            fresh = self._fresh(rows, samples)
            self.state = insert(self.state, self.prefilled.cache, fresh, self.sharding)

    def _fresh(self, rows: np.ndarray, samples: np.ndarray) -> Fresh:
        """Initial state of samples in rows, padded to one of few sizes."""
        prompts = samples // self.prompts.n
        tokens = [self.prompts.tokens[i] for i in prompts]
        size = _smallest(self.sizes, len(rows))

        def padded(values: Sequence[int] | np.ndarray | int, blank: int = 0) -> np.ndarray:
            x = np.full(size, blank, np.int32)
            x[: len(rows)] = values
            return x

        return Fresh(
            row=padded(rows, len(self.owner)),
            source=padded(prompts - self.prefilled.first),
            cached=padded([len(x) - 1 for x in tokens]),
            token=padded([x[-1] for x in tokens]),
            sample=padded(self.prompts.numbers[samples]),
            limit=padded(self.prompts.limits[prompts]),
            grammar_state=padded(0),
        )

    def _prefill(self, needed: int) -> None:
        """Prefill the next prompts, at least `needed`, in a batch of one of few sizes."""
        first = self.prefilled.last
        size = _smallest(self.sizes, needed)
        chosen = self.prompts.tokens[first : first + size]
        tokens = np.zeros((size, bucket(max(len(x) - 1 for x in chosen))), np.int32)
        length = np.zeros(size, np.int32)
        for i, x in enumerate(chosen):
            length[i] = len(x) - 1
            tokens[i, : length[i]] = x[:-1]
        self.prefilled = Prefilled(None, first, first)  # to free its memory
        cache = prefill(*self.model, tokens, length, self.sharding)
        self.prefilled = Prefilled(cache, first, first + len(chosen))

    def _shrink(self) -> None:
        """Make the batch smaller if no sample waits and few rows are active."""
        live = np.flatnonzero(self.owner >= 0)
        size = _smallest(self.sizes, len(live))
        if self._waiting or size == len(self.owner):
            return
        unused = np.flatnonzero(self.owner < 0)
        rows = np.concatenate([live, unused[: size - len(live)]])
        self.state = take(self.state, rows.astype(np.int32), self.sharding)
        self.owner = self.owner[rows]

    def _record(self, chunk: Chunk) -> None:
        """Copy new tokens into the result, and free the rows that ended."""
        rows = np.flatnonzero(self.owner >= 0)
        samples, result = self.owner[rows], self.result
        before = result.length[samples]
        step, column = np.nonzero(np.arange(MAX_STEPS)[:, None] < chunk.n[rows])
        at = samples[column], before[column] + step
        result.tokens[at] = chunk.token[step, rows[column]]
        result.logp[at] = chunk.logp[step, rows[column]]
        result.logp_model[at] = chunk.logp_model[step, rows[column]]
        result.length[samples] += chunk.n[rows]
        last = result.tokens[samples, result.length[samples] - 1]
        ended = ~chunk.active[rows]
        reasons = np.where(np.isin(last, self.end_tokens), "end", "length")
        result.reason[samples[ended]] = reasons[ended]
        cuts = self.stops.cuts([result.sequence(i) for i in samples], before)
        for i, (sample, cut) in enumerate(zip(samples, cuts, strict=True)):
            if cut is not None:
                result.cut(sample, cut)
                ended[i] = True
        self.owner[rows[ended]] = -1


def batch_sizes(largest: int, multiple: int = 1) -> list[int]:
    """The sizes of batches from `largest` down, each a multiple of the number of devices."""
    sizes = [-(-largest // multiple) * multiple]
    smallest = max(SMALLEST_BATCH, multiple)
    while (smaller := -(-sizes[-1] // SHRINK // multiple) * multiple) >= smallest:
        if smaller == sizes[-1]:
            break
        sizes.append(smaller)
    return sizes


def _smallest(sizes: Sequence[int], n: int) -> int:
    """The smallest of the sizes that is at least n."""
    return min((size for size in sizes if size >= n), default=max(sizes))


def bucket(length: int) -> int:
    """The length rounded up to one of 16, 20, 24, 28, 32, 40, ...: few shapes are compiled."""
    length = max(length, 16)
    step = 1 << (length - 1).bit_length() - 3
    return -(-length // step) * step
