"""Answers of language models to prompts that they have not learnt, and their evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from crystaljax.data.dataset import load
from crystaljax.evaluation.evaluate import Evaluation, EvaluationConfig, Reference, evaluate
from crystaljax.evaluation.policies import with_as_asked
from crystaljax.experiment.texts import LlmSetup, Texts, prompts
from crystaljax.models.llm.token_grammar import TokenGrammar
from crystaljax.policies.base import Rollout
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.text import Params, TextPolicy

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
    evaluation: Evaluation | None = None
    """Of answers that should be crystals."""

    def __len__(self) -> int:
        return len(self.texts)


class Examiner:
    """Asks a policy the prompts of some texts, the same to every policy.

    Args:
      policy: as of `texts.writer`.
    """

    def __init__(
        self, setup: LlmSetup, policy: TextPolicy | CrystalTextPolicy, texts: Texts
    ) -> None:
        self.setup, self.policy = setup, policy
        self.texts = texts.take(np.arange(min(setup.n_samples, len(texts.examples))))
        self.reference = None
        if texts.crystals is not None:
            name = setup.texts.crystals
            self.reference = Reference.of(load(name).crystals, name)

    def __call__(
        self, params: Params, stream: int, grammar: bool | TokenGrammar = False
    ) -> Answers:
        """Answers, one to each prompt; those of different streams are independent.

        grammar: that of the format of crystals, or another one, which all are held to.
        """
        seed = self.setup.seed + 1_000_001 + stream
        if isinstance(self.policy, CrystalTextPolicy) and self.reference is not None:
            rollout = self.policy.complete(
                params, self.texts.conditions, seed, self.setup.generation, grammar=grammar
            )
            texts = rollout.sequences
            return Answers(
                self.texts.asked,
                texts.texts,
                np.array([len(x.tokens) - x.n_prompt for x in texts.sequences]),
                rollout.logp_model,
                texts.reason,
                self._evaluation(rollout, self.reference),
            )
        policy = self.policy
        if isinstance(policy, CrystalTextPolicy):
            policy = policy.texts
        if grammar is True:
            raise ValueError("texts that are no crystals have no grammar: give a pattern")
        tokens = [prompt.tokens for prompt in prompts(policy, self.texts)]
        draw = partial(policy.sample, params, tokens, seed, self.setup.generation)
        drawn = draw(grammar=grammar or None)
        logp = drawn.logp_model.sum(axis=1, dtype=np.float64)
        return Answers(self.texts.asked, drawn.text, drawn.length, logp, drawn.reason)

    def _evaluation(self, rollout: Rollout, reference: Reference) -> Evaluation:
        """Metrics of answers, not relaxed and without energies."""
        config = EvaluationConfig(progress=False, metrics=self.setup.metrics)
        return with_as_asked(evaluate(rollout.crystals, reference, config=config), rollout)


def evaluations_of(answers: Mapping[str, Answers]) -> dict[str, Evaluation]:
    """Those of answers that should be crystals, by label."""
    return {label: x.evaluation for label, x in answers.items() if x.evaluation is not None}


def shown(answers: Answers, n: int = 6) -> list[list[str]]:
    """Header and rows of a table of some answers."""
    rows = [["asked for", "answer", "ended by"]]
    for i in range(min(n, len(answers))):
        answer = " / ".join(answers.texts[i].splitlines())
        rows.append([answers.asked[i][:SHOWN], answer, str(answers.reason[i])])
    return rows
