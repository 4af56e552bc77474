"""Sampling completions of prompts: a queue of prompts, and a batch that is refilled as rows end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decode import DecodeSettings, Graph, Network, Weights
from crystaljax.models.llm.token_grammar import TokenGrammar
from crystaljax.models.llm.token_sampling import LogitsWarper
from crystaljax.parallel import batch_sharding, replicated
from crystaljax.ranges import NOT_NEGATIVE, POSITIVE_SHARE, at_least, check
from crystaljax.text.engine import Engine, Generation, Prompts
from crystaljax.text.stops import StopStrings


@dataclass(frozen=True)
class GenerationConfig:
    """Settings of sampling. ValueError for values that make no sense."""

    temperature: float = 1.0
    """Sampling temperature. Below 1: likelier texts; above 1: more varied ones. 0: always the most
    likely token."""
    top_p: float = 1.0
    """Draw only from the most likely tokens, which together have this probability."""
    top_k: int = 0
    """Draw only from this number of most likely tokens. 0: from all."""
    max_new_tokens: int = 128
    """Largest number of tokens of a completion, including the end token."""
    stop: tuple[str, ...] = ()
    """A completion ends before the first of these strings."""
    batch_size: int = 64
    """Completions sampled at a time. The result does not depend on it."""

    def __post_init__(self) -> None:
        one = at_least(1)
        check(self, temperature=NOT_NEGATIVE, top_p=POSITIVE_SHARE, top_k=NOT_NEGATIVE)
        check(self, max_new_tokens=one, batch_size=one)

    def warper(self) -> LogitsWarper:
        """The settings of sampling as arrays."""
        return LogitsWarper(
            temperature=jnp.float32(self.temperature) if self.temperature else None,
            top_k=jnp.int32(self.top_k) if self.top_k else None,
            top_p=jnp.float32(self.top_p) if self.top_p < 1 else None,
        )


class TextDecoder(Protocol):
    """Protocol: the part of `text.tokenizer.Tokenizer` that generation needs."""

    def decode(self, tokens: Sequence[np.ndarray]) -> list[str]:
        """The text of each sequence of tokens."""


class Generator:
    """Samples completions from a language model.

    Args:
      graph: of the `LanguageModel`, as `nnx.split` gives it.
      end_tokens: tokens that end a completion.
      tokenizer: for stop strings and texts.
      grammar: completions match it, or, if the limit of tokens ends them, are prefixes of matches.
      mesh: completions are spread over all its devices.

    ValueError for stop strings without a tokenizer, and a grammar with a dead end.
    """

    def __init__(
        self,
        graph: Graph,
        config: GenerationConfig,
        end_tokens: Sequence[int],
        tokenizer: TextDecoder | None = None,
        grammar: TokenGrammar | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        if config.stop and tokenizer is None:
            raise ValueError("stop strings need a tokenizer: give one")
        self.network, self.config, self.tokenizer = Network(graph), config, tokenizer
        self.end_tokens = np.array(sorted(set(end_tokens)), np.int32)
        self.stops = StopStrings(config.stop, tokenizer.decode if tokenizer else lambda x: [])
        self.sharding = None if mesh is None else batch_sharding(mesh)
        self._everywhere = None if mesh is None else replicated(mesh)
        self._checked = None if grammar is None else _checked(grammar, self.end_tokens)
        self.grammar = jax.device_put(self._checked, self._everywhere)

    def is_of(self, config: GenerationConfig, grammar: TokenGrammar | None) -> bool:
        """Whether the generator has this configuration, and an equal grammar."""
        if self.config != config or (self._checked is None) != (grammar is None):
            return False
        if self._checked is None or grammar is None:
            return True
        other = jax.tree.map(np.asarray, grammar).padded()
        return all(map(np.array_equal, jax.tree.leaves(self._checked), jax.tree.leaves(other)))

    def __call__(
        self,
        weights: Weights,
        prompts: Sequence[np.ndarray],
        seed: int,
        n: int = 1,
        limits: np.ndarray | None = None,
        numbers: np.ndarray | None = None,
    ) -> Generation:
        """n completions of each prompt (int [length]).

        weights: the states that `nnx.split` gave with the graph.
        limits: int [len(prompts)], largest number of tokens of each prompt's completions, if fewer
          than `max_new_tokens`.
        numbers: int [len(prompts) · n], of the completions; 0, 1, 2 ... if not given.

        A completion depends only on the seed, its number, its prompt and the weights (up to
        rounding).
        ValueError naming a prompt that is empty, has tokens that the model does not know, or is,
        with what is to be sampled, longer than the model's context.
        """
        most = self.config.max_new_tokens
        given = [most] * len(prompts) if limits is None else np.minimum(limits, most)
        limits = np.asarray(given, np.int32)
        model = self.network.model(weights).config
        prompts = [np.asarray(prompt, np.int32) for prompt in prompts]
        _check(prompts, limits, model)
        self._check_vocabulary(model.vocabulary)
        settings = DecodeSettings(
            jax.random.key(seed),
            self.config.warper(),
            jnp.asarray(self.end_tokens),
            self.grammar,
        )
        settings = jax.device_put(settings, self._everywhere)
        result = Generation.empty(len(prompts), n, most)
        numbers = np.arange(len(prompts) * n) if numbers is None else np.asarray(numbers)
        work = Prompts(prompts, limits, n, numbers)
        if work.n_samples:
            size = self.config.batch_size
            Engine(
                self.network, weights, settings, work, result, size, self.stops, self.sharding
            ).run()
            self._write(result)
        return result

    def _check_vocabulary(self, size: int) -> None:
        """ValueError if the grammar or the end tokens have another vocabulary than the model."""
        if self.grammar is not None and self.grammar.n_vocabulary != size:
            raise ValueError(
                f"the grammar is of {self.grammar.n_vocabulary} tokens, and the model has "
                f"{size}: make it with the model's vocabulary"
            )
        if ((self.end_tokens < 0) | (self.end_tokens >= size)).any():
            raise ValueError(
                f"end tokens {self.end_tokens.tolist()}, and the model has {size} tokens: "
                "take the model's own tokenizer"
            )

    def _write(self, result: Generation) -> None:
        """Write the texts of completions that no stop string ended."""
        if self.tokenizer is None:
            return
        whole = np.flatnonzero(result.reason != "stop").tolist()
        ends = result.reason[whole] == "end"
        sequences = [
            result.sequence(i)[:-1] if end else result.sequence(i)
            for i, end in zip(whole, ends, strict=True)
        ]
        for i, text in zip(whole, self.tokenizer.decode(sequences), strict=True):
            result.text[i] = text


def _check(prompts: Sequence[np.ndarray], limits: np.ndarray, model: LlmConfig) -> None:
    """ValueError naming a prompt that the model cannot complete."""
    longest = model.max_length
    for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        n = len(prompt)
        if n == 0:
            raise ValueError(f"prompt {i} is empty: begin it with the start token")
        if limit < 1:
            raise ValueError(f"prompt {i}: a limit of {limit} tokens; ask for at least one")
        if n >= longest:
            raise ValueError(
                f"prompt {i} has {n} tokens, and the model's context is {longest}: shorten it"
            )
        if n + limit > longest:
            raise ValueError(
                f"prompt {i} has {n} tokens, {n + limit} with the {limit} to be sampled, and the "
                f"model's context is {longest}: shorten it, or sample {longest - n} tokens at most"
            )
        if prompt.min() < 0 or prompt.max() >= model.vocabulary:
            raise ValueError(
                f"prompt {i} has tokens from {prompt.min()} to {prompt.max()}, and the model knows "
                f"0 to {model.vocabulary - 1}: take the model's own tokenizer"
            )


def _checked(grammar: TokenGrammar, end_tokens: np.ndarray) -> TokenGrammar:
    """The grammar in numpy, padded; ValueError for a dead end (no token fits, no end allowed)."""
    if len(end_tokens) == 0:
        raise ValueError("a grammar needs end tokens: give them")
    grammar = jax.tree.map(np.asarray, grammar)
    if len(stuck := grammar.stuck()):
        raise ValueError(
            f"the grammar cannot go on from state {stuck[0]}, nor end there: no token fits"
        )
    return grammar.padded()
