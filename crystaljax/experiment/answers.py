"""Answers of language models to prompts that they have not learnt, and their evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from crystaljax.data.dataset import load
from crystaljax.evaluation.adherence import Predict, adherence
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.evaluation.infilling import infilling_rates
from crystaljax.evaluation.policies import with_as_asked
from crystaljax.evaluation.rates import MetricSet
from crystaljax.experiment.llm_setup import LlmSetup
from crystaljax.experiment.texts import Texts, prompts, sequences
from crystaljax.models.llm.token_grammar import TokenGrammar
from crystaljax.policies.base import Rollout
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.text import Params, TextPolicy
from crystaljax.policies.text_prompts import stripped
from crystaljax.text.generation import GenerationConfig

SHOWN = 80
"""Characters of a prompt in a table."""


@dataclass(frozen=True)
class Answers:
    """N completions."""

    asked: list[str]
    """[N]: the values in the prompts."""
    texts: list[str]
    """[N]"""
    n_tokens: np.ndarray
    """int [N]"""
    logp: np.ndarray
    """float64 [N]: ln p under the model."""
    reason: np.ndarray
    """str [N]: "end" token, "stop" string, "length"."""
    evaluation: MetricSet | None = None
    """Metrics of answers that should be crystals, or hidden elements of some."""

    def __len__(self) -> int:
        return len(self.texts)


class Examiner:
    """Asks a policy the prompts of some texts, the same to every policy.

    Args:
      policy: as of `texts.writer`.
      predict: properties of crystals that were asked for some.
    """

    def __init__(
        self,
        setup: LlmSetup,
        policy: TextPolicy | CrystalTextPolicy,
        texts: Texts,
        predict: Predict | None = None,
    ) -> None:
        self.setup, self.policy, self.predict = setup, policy, predict
        self.texts = texts.take(np.arange(min(setup.n_samples, len(texts.examples))))
        self.reference = None
        if texts.crystals is not None:
            name = setup.texts.crystals
            self.reference = Reference.of(load(name).crystals, name)

    def __call__(
        self, params: Params, stream: int, grammar: bool | TokenGrammar = False
    ) -> Answers:
        """Answers, one to each prompt; those of different streams are independent.

        Elements that are hidden in crystals are told by the likeliest tokens.

        grammar: that of the format of crystals, or another one, which all of these are held to.
        """
        seed = self.setup.seed + 1_000_001 + stream
        if isinstance(self.policy, CrystalTextPolicy) and self.reference is not None:
            generating = self.texts.generating
            filling = np.setdiff1d(np.arange(len(self.texts.examples)), generating)
            parts = []
            if len(generating):
                some = self.texts.take(generating)
                parts.append(self._crystals(params, some, self.reference, seed, grammar))
            if len(filling):
                parts.append(self._elements(params, self.texts.take(filling), seed))
            return _merged(parts, np.argsort(np.concatenate([generating, filling])))
        policy = self.policy
        if isinstance(policy, CrystalTextPolicy):
            policy = policy.texts
        if grammar is True:
            raise ValueError("texts that are no crystals have no grammar: give a pattern")
        generation = self.setup.generation
        return self._texts(policy, params, self.texts, seed, generation, grammar or None)

    def _crystals(
        self,
        params: Params,
        texts: Texts,
        reference: Reference,
        seed: int,
        grammar: bool | TokenGrammar,
    ) -> Answers:
        """Crystals as they are asked for."""
        assert isinstance(self.policy, CrystalTextPolicy)
        generation = self.setup.generation
        rollout = self.policy.complete(params, texts.conditions, seed, generation, grammar=grammar)
        found = rollout.sequences
        return Answers(
            texts.asked,
            found.texts,
            np.array([len(x.tokens) - x.n_prompt for x in found.sequences]),
            rollout.logp_model,
            found.reason,
            self._evaluation(rollout, reference),
        )

    def _elements(self, params: Params, texts: Texts, seed: int) -> Answers:
        """Elements that are hidden in crystals; none takes twice the tokens of the true ones."""
        assert isinstance(self.policy, CrystalTextPolicy) and texts.crystals is not None
        answers = [len(x.tokens) - x.n_prompt for x in sequences(self.policy.texts, texts)]
        most = min(2 * max(answers), self.setup.generation.max_new_tokens)
        likeliest = replace(self.setup.generation, temperature=0.0, max_new_tokens=most)
        found = self._texts(self.policy.texts, params, texts, seed, likeliest)
        told = [stripped(x, q.template) for x, q in zip(found.texts, texts.questions, strict=True)]
        hidden = np.array([question.masked for question in texts.questions])
        rates = tuple(infilling_rates(told, texts.crystals, hidden))
        return replace(found, evaluation=MetricSet(len(found), rates, (), {}))

    @staticmethod
    def _texts(
        policy: TextPolicy,
        params: Params,
        texts: Texts,
        seed: int,
        generation: GenerationConfig,
        grammar: TokenGrammar | None = None,
    ) -> Answers:
        """Completions as they come."""
        tokens = [prompt.tokens for prompt in prompts(policy, texts)]
        drawn = policy.sample(params, tokens, seed, generation, grammar=grammar)
        logp = drawn.logp_model.sum(axis=1, dtype=np.float64)
        return Answers(texts.asked, drawn.text, drawn.length, logp, drawn.reason)

    def _evaluation(self, rollout: Rollout, reference: Reference) -> Evaluation:
        """Metrics of samples, without energies, and of what they were asked for."""
        config = EvaluationConfig(progress=False, metrics=self.setup.metrics)
        found = with_as_asked(evaluate(rollout.crystals, reference, config=config), rollout)
        metrics, notes = adherence(rollout.crystals, rollout.conditions, self.predict)
        return replace(found, metrics=(*found.metrics, *metrics), context=(*found.context, *notes))


def _merged(parts: Sequence[Answers], order: np.ndarray) -> Answers:
    """Answers of all parts in another order, with the metrics of all."""
    found = [x.evaluation for x in parts if x.evaluation is not None]
    metrics = tuple(metric for one in found for metric in one.metrics)
    texts = [text for x in parts for text in x.texts]
    asked = [name for x in parts for name in x.asked]
    return Answers(
        [asked[i] for i in order],
        [texts[i] for i in order],
        np.concatenate([x.n_tokens for x in parts])[order],
        np.concatenate([x.logp for x in parts])[order],
        np.concatenate([x.reason for x in parts])[order],
        replace(found[0], metrics=metrics) if found else None,
    )


def evaluations_of(answers: Mapping[str, Answers]) -> dict[str, MetricSet]:
    """The existing evaluations, by label."""
    return {label: x.evaluation for label, x in answers.items() if x.evaluation is not None}


def shown(answers: Answers, n: int = 6) -> list[list[str]]:
    """Header and rows of a table of some answers."""
    rows = [["asked for", "answer", "ended by"]]
    for i in range(min(n, len(answers))):
        answer = " / ".join(answers.texts[i].splitlines())
        rows.append([answers.asked[i][:SHOWN], answer, str(answers.reason[i])])
    return rows
