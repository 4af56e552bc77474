"""A policy of crystals: a language model that writes them in a text format."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crystaljax.conditions import Condition, unmet
from crystaljax.crystal import Array, Crystals
from crystaljax.models.llm.token_grammar import TokenGrammar
from crystaljax.parallel import batch_sharding, parts_sharding
from crystaljax.policies.base import Params, Rollout, SamplingConfig, Typical
from crystaljax.policies.crystal_completions import CompletionRows, CrystalTexts
from crystaljax.policies.text import TextPolicy
from crystaljax.policies.text_conditions import Plan, TextConditions
from crystaljax.policies.text_metadata import TextMetadata
from crystaljax.policies.text_prompts import around, crystal_fields
from crystaljax.text.generation import GenerationConfig
from crystaljax.text.packing import (
    PackedTexts,
    TokenSequence,
    pack_micro_batches,
    pack_texts,
)
from crystaljax.text.prompts import PromptTemplate
from crystaljax.tokenizations.base import Decoded, TextFormat

SCORED = (4, 32)
"""Texts that are scored at a time."""


class Asked(NamedTuple):
    """One prompt."""

    plan: Plan
    tokens: np.ndarray
    """int32 [n]"""


class CrystalTextPolicy:
    """p(text of a crystal | prompt) by a language model; parameters are passed in.

    A condition is asked for by the prompt template of which it gives all fields, and most; what a
    template needs beyond is drawn from the training data. Prompts are followed softly. Held hard
    by a grammar are allowed elements, and space groups that the prompt does not tell, where the
    pattern of the text format knows them. Required elements, Wyckoff templates (and allowed
    elements that the pattern does not know) are met by drawing a sample anew until it has them,
    `SamplingConfig.max_candidates` times at most: samples are then those of the model given that
    they do. One that never does has the `log_weight` −inf. Formulas, properties, and space groups
    that the pattern does not know have to be fields of a prompt; formula units are asked for where
    they are.

    Grammars are of the space groups and elements of the training data, and of those asked for.

    Args:
      texts: the model with its tokenizer.
      format: the one of `metadata.format`, made by its name if not given.

    ValueError for a template whose completion is not {text} with something fixed around it.
    """

    def __init__(
        self, texts: TextPolicy, metadata: TextMetadata, format: TextFormat | None = None
    ) -> None:
        self.texts, self.metadata = texts, metadata
        self.format = format or metadata.create_format()
        self.asking = TextConditions(
            self.format, metadata, texts.tokenizer, texts.config.vocabulary
        )
        self._scores = jax.jit(self._completion_scores, static_argnames="n_samples")
        self._rows = CompletionRows(texts.config.width, texts.mesh.size)

    @property
    def tokenization(self) -> str:
        """Name of the text format, or FILE.py:CLASS."""
        return self.metadata.format

    @property
    def max_sites(self) -> int | None:
        """None: texts have no such limit."""
        return None

    @property
    def identity(self) -> dict[str, Any]:
        """The model, its vocabulary, the format and the prompts."""
        return self.texts.identity | {
            "tokenization": self.metadata.format,
            "format_options": dict(self.metadata.format_options),
            "templates": [one.content for one in self.metadata.templates],
        }

    def check(self, conditions: Sequence[Condition], sampling: SamplingConfig) -> None:
        """ValueError naming what of the conditions the policy cannot be asked, and what it can."""
        self._asked(list(dict.fromkeys(conditions)), sampling.grammar, 0)
        most, context = self._most(sampling), self.texts.config.max_length
        if most >= context:
            raise ValueError(
                f"crystals of up to {most} tokens, and the model's context is {context}: give a"
                " smaller max_new_tokens"
            )

    def sample(
        self,
        params: Params,
        conditions: Sequence[Condition],
        seed: int,
        sampling: SamplingConfig | None = None,
        repeat: int = 1,
    ) -> Rollout:
        """`repeat` crystals in a row for each condition; see `base.Policy`."""
        sampling = sampling or SamplingConfig()
        self.check(conditions, sampling)
        generation = GenerationConfig(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_new_tokens=self._most(sampling),
            batch_size=sampling.batch_size,
        )
        return self.complete(
            *(params, conditions, seed, generation, repeat),
            grammar=sampling.grammar,
            max_candidates=sampling.max_candidates,
        )

    def complete(
        self,
        params: Params,
        conditions: Sequence[Condition],
        seed: int,
        generation: GenerationConfig,
        repeat: int = 1,
        *,
        grammar: bool | TokenGrammar = False,
        max_candidates: int = 1,
    ) -> Rollout:
        """The same as `sample`, with all settings for texts.

        Args:
          grammar: hold all completions to the format's grammar, or to another one.
          max_candidates: completions drawn of a sample, see the class.

        Errors: those of `check`, and of `text.generation.Generator`.
        """
        asked = self._asked(conditions, bool(grammar), seed)
        every = [one for one in asked for _ in range(repeat)]
        draw = partial(self._complete, params, generation=generation, grammar=grammar or None)
        found = draw(asked, np.arange(len(every)).reshape(-1, repeat), seed)
        waiting = np.array([i for i, one in enumerate(every) if one.plan.redrawn], int)
        waiting = waiting[~self._hold(found, waiting, every)]
        for candidate in range(1, max_candidates):
            if not len(waiting):
                break
            some = [every[i] for i in waiting]
            another = int(np.random.SeedSequence([seed, candidate]).generate_state(1)[0])
            new = draw(some, waiting[:, None], another)
            hold = self._hold(new, np.arange(len(some)), some)
            found.put(waiting[hold], new, np.flatnonzero(hold))
            waiting = waiting[~hold]
        return self._rollout(found, [c for c in conditions for _ in range(repeat)], every)

    def encode(self, crystals: Crystals, conditions: Sequence[Condition] | None = None) -> Rollout:
        """Crystals as if they had been sampled, without log-probabilities; see `base.Policy`.

        What a prompt needs and a condition leaves open is as the crystal has it. Crystals are as
        their texts say, rounded to the decimals of the format.
        """
        rows = crystal_fields(crystals)
        if conditions is None:
            conditions = [self.asking.prompts.least(row) for row in rows]
        plans = {x: self.asking.plan(x, False) for x in dict.fromkeys(conditions)}
        requests = [plans[condition].request for condition in conditions]
        values = [
            {**{name: row[name] for name in request.open}, **request.given}
            for request, row in zip(requests, rows, strict=True)
        ]
        templates = [request.template for request in requests]
        texts = [
            "".join((before, text, after))
            for text, (before, after) in zip(
                self.format.encode(crystals), map(around, templates), strict=True
            )
        ]
        sequences = self._sequences(templates, values, texts)
        longest = max((len(x.tokens) - x.n_prompt for x in sequences), default=1)
        found = CrystalTexts(
            sequences=sequences,
            templates=templates,
            texts=texts,
            reason=np.full(len(texts), "end", "<U6"),
            logp=np.full(len(texts), np.nan),
            logp_model=np.full(len(texts), np.nan),
            max_new_tokens=max(longest, self.metadata.max_new_tokens),
        )
        asked = [
            Asked(plans[condition], sequence.tokens[: sequence.n_prompt])
            for condition, sequence in zip(conditions, sequences, strict=True)
        ]
        return self._rollout(found, conditions, asked)

    def log_prob(self, params: Params, rollout: Rollout) -> np.ndarray:
        """float64 [N]: ln p of each completion under the model, given its prompt."""
        sequences = rollout.sequences.sequences
        size = min((n for n in SCORED if n >= len(sequences)), default=max(SCORED))
        plan = self._rows.any_length(rollout.sequences, size)
        placement = batch_sharding(self.texts.mesh)
        found = [np.zeros(0)]
        for start in range(0, len(sequences), size):
            some = sequences[start : start + size]
            placed = jax.device_put(pack_texts(some, plan, size), placement)
            scores = self._scores(params, self.frozen, placed, n_samples=size)
            found.append(np.asarray(scores, np.float64)[: len(some)])
        return np.concatenate(found)

    @property
    def frozen(self) -> Any:
        """The frozen part of the network."""
        return self.texts.frozen

    def place(self, tree: Any) -> Any:
        """Spread over the mesh."""
        return self.texts.place(tree)

    def parts(
        self, rollout: Rollout, rows: np.ndarray, n_parts: int = 1, typical: Typical | None = None
    ) -> PackedTexts:
        """Micro-batches of packed texts; see `base.Policy`.

        They are packed into rows for texts as long as those of `typical`, once. A batch of much
        longer ones gets more rows. ValueError if the rows cannot be split into A parts of one size.
        """
        if len(rows) % n_parts:
            raise ValueError(
                f"{len(rows)} samples cannot be split into {n_parts} parts of one size"
            )
        sequences = rollout.sequences.sequences
        groups = [[sequences[i] for i in part] for part in rows.reshape(n_parts, -1)]
        plan = self._rows.like(rollout.sequences, len(groups[0]), typical)
        packed = pack_micro_batches(groups, plan)
        return jax.device_put(packed, parts_sharding(self.texts.mesh))

    def log_probs(
        self, params: Params, frozen: Any, part: PackedTexts, n_samples: int
    ) -> tuple[Array, Array]:
        """Log-probabilities of the completions' tokens, [n, T]."""
        return self.texts.log_probs(params, frozen, part, n_samples)

    def save(self, folder: str | Path, params: Params) -> None:
        """Write the model or its adapters, the tokenizer and crystals.json.

        FileExistsError if the folder has weights already.
        """
        self.texts.save(folder, params)
        base = Path(self.texts.name).expanduser()
        name = str(base.absolute()) if base.is_dir() else self.texts.name
        dataclasses.replace(
            self.metadata,
            base=name if self.texts.has_adapters else "",
            vocabulary_digest=self.texts.vocabulary_digest,
        ).write(folder)

    def _most(self, sampling: SamplingConfig) -> int:
        """Tokens of a completion at most."""
        return sampling.max_new_tokens or self.metadata.max_new_tokens

    def _asked(self, conditions: Sequence[Condition], grammar: bool, seed: int) -> list[Asked]:
        """The prompt of each condition; the i-th depends on the seed and i alone."""
        plans = {x: self.asking.plan(x, grammar) for x in dict.fromkeys(conditions)}
        uniform = np.random.default_rng(seed).random(len(conditions))
        values = [
            plans[x].request.given | self.asking.prompts.drawn(x, plans[x].request.open, u)
            for x, u in zip(conditions, uniform.tolist(), strict=True)
        ]
        templates = [plans[x].request.template for x in conditions]
        tokens = self._prompt_tokens(templates, values)
        return [Asked(plans[x], some) for x, some in zip(conditions, tokens, strict=True)]

    def _prompt_tokens(
        self, templates: Sequence[PromptTemplate], values: Sequence[Mapping[str, Any]]
    ) -> list[np.ndarray]:
        """Prompts as the model is asked: one that chats, by a chat."""
        pairs, tokenizer = zip(templates, values, strict=True), self.texts.tokenizer
        if self.texts.chats:
            return tokenizer.chat_prompts([one.messages(x) for one, x in pairs])
        return tokenizer.prompts([one.prompt(x) for one, x in pairs])

    def _sequences(
        self,
        templates: Sequence[PromptTemplate],
        values: Sequence[Mapping[str, Any]],
        texts: Sequence[str],
    ) -> list[TokenSequence]:
        """Prompts with completions."""
        tokenizer = self.texts.tokenizer
        pairs = list(zip(templates, values, strict=True))
        if not self.texts.chats:
            return tokenizer.sequences([one.prompt(x) for one, x in pairs], texts)
        return tokenizer.chat_sequences(
            [
                [*one.messages(x), {"role": "assistant", "content": text}]
                for (one, x), text in zip(pairs, texts, strict=True)
            ]
        )

    def _complete(
        self,
        params: Params,
        asked: Sequence[Asked],
        numbers: np.ndarray,
        seed: int,
        generation: GenerationConfig,
        grammar: bool | TokenGrammar | None,
    ) -> CrystalTexts:
        """Completions of each prompt, with these numbers (int [len(asked), n]) as samples."""
        n = numbers.shape[1]
        every = [x for x in asked for _ in range(n)]
        found = CrystalTexts(
            sequences=[TokenSequence(x.tokens, len(x.tokens)) for x in every],
            templates=[x.plan.request.template for x in every],
            texts=[""] * len(every),
            reason=np.full(len(every), "", "<U6"),
            logp=np.zeros(len(every)),
            logp_model=np.zeros(len(every)),
            max_new_tokens=generation.max_new_tokens,
        )
        for held in dict.fromkeys(x.plan.held for x in asked):
            some = np.array([i for i, x in enumerate(asked) if x.plan.held == held])
            prompts = [asked[i].tokens for i in some]
            table: TokenGrammar | None = None if held is None else self.asking.grammar(held)
            if grammar is not None and not isinstance(grammar, bool):
                table = grammar
            drawn = self.texts.sample(
                params, prompts, seed, generation, n, table, numbers[some].ravel()
            )
            rows = (some[:, None] * n + np.arange(n)).ravel()
            for i, row in enumerate(rows.tolist()):
                prompt = found.sequences[row].tokens
                whole = np.concatenate([prompt, drawn.sequence(i)])
                found.sequences[row] = TokenSequence(whole, len(prompt))
                found.texts[row] = drawn.text[i]
            found.reason[rows] = drawn.reason
            found.logp[rows] = drawn.logp.sum(axis=1, dtype=np.float64)
            found.logp_model[rows] = drawn.logp_model.sum(axis=1, dtype=np.float64)
        return found

    def _hold(self, found: CrystalTexts, rows: np.ndarray, asked: Sequence[Asked]) -> np.ndarray:
        """bool [n]: which of some rows are crystals that are what they have to be."""
        decoded = found.decoded(self.format, rows)
        return _meets(decoded, unmet(decoded.crystals, [asked[i].plan.hard for i in rows]))

    def _rollout(
        self, found: CrystalTexts, conditions: Sequence[Condition], asked: Sequence[Asked]
    ) -> Rollout:
        """Completions read and compared with what was asked."""
        decoded = found.decoded(self.format, np.arange(len(asked)))
        lacking = unmet(decoded.crystals, conditions)
        hard = [one.plan.hard for one in asked]
        binding = np.array([bool(one.asked) for one in hard], bool)
        holds = ~binding | _meets(decoded, unmet(decoded.crystals, hard))
        keys = [(c, one.tokens.tobytes()) for c, one in zip(conditions, asked, strict=True)]
        number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        return Rollout(
            sequences=found,
            conditions=tuple(conditions),
            crystals=decoded.crystals,
            ok=decoded.ok,
            met=_meets(decoded, lacking),
            reasons=[a or b for a, b in zip(decoded.reasons, lacking, strict=True)],
            logp=found.logp,
            logp_model=found.logp_model,
            log_weight=np.where(holds, 0.0, -np.inf),
            prompt=np.array([number[key] for key in keys], int),
        )

    def _completion_scores(
        self, params: Params, frozen: Any, packed: PackedTexts, n_samples: int
    ) -> Array:
        """float32 [n]: ln p of completions."""
        logp, is_action = self.texts.log_probs(params, frozen, packed, n_samples)
        return jnp.where(is_action, logp, 0).sum(axis=-1)


def _meets(decoded: Decoded, lacking: Sequence[str | None]) -> np.ndarray:
    """bool [N]: crystals that lack nothing."""
    return decoded.ok & np.array([reason is None for reason in lacking], bool)
