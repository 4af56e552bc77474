"""A generator proposes, an evaluator accepts or rejects: the loop of A.1.4 of arXiv 2511.12036.

The evaluator is a model, as in the paper, or CALPHAD. Nothing is stored here; as an `Endpoint`
stores its answers, an interrupted loop can be run again and continues.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crystaljax.alloys.baselines.dialogue import Ask, verdicts
from crystaljax.alloys.baselines.endpoint import Messages
from crystaljax.alloys.baselines.optimize import Judge
from crystaljax.alloys.baselines.shots import final_answer
from crystaljax.alloys.family import BCC_B2, AlloyFamily
from crystaljax.text.prompts import load_template

_SILENCE = 3  # rounds in a row without an answer, after which the loop stops
_FIRST = re.compile(r"\W*(in)?valid\b", re.IGNORECASE)
_VALID = re.compile(r"\bvalid\b", re.IGNORECASE)
_INVALID = re.compile(r"\binvalid\b|(?:\bnot|n['’]t)\s+(?:\w+\s+)?valid\b", re.IGNORECASE)


class Verdict(NamedTuple):
    """Judgement of a proposal."""

    valid: bool
    reason: str
    """The evaluator's words."""


Evaluator = Callable[[Sequence[str]], Sequence[Verdict | None]]
"""From B proposals to verdicts, None where there is none."""


class ModelEvaluator:
    """A model as the evaluator: it is asked whether proposals are valid, and why not.

    `template`: a name or a .toml file; its fields are {elements} and {candidate}.
    """

    def __init__(self, ask: Ask, elements: Sequence[str], template: str = "alloy_review") -> None:
        self._ask = ask
        self._elements = ", ".join(elements)
        self._template = load_template(template)

    def __call__(self, texts: Sequence[str], /) -> list[Verdict | None]:
        """Verdicts by the first word of each answer, "Valid" or "Invalid".

        If it is another one, "invalid" or "not valid" anywhere is a rejection, "valid" without
        these is an acceptance, and so is nothing else.
        """
        values = [{"elements": self._elements, "candidate": text} for text in texts]
        answers = self._ask([self._template.messages(each) for each in values])
        return [None if answer is None else _read(answer) for answer in answers]


def _read(answer: str) -> Verdict:
    first = _FIRST.match(answer)
    if first is not None:
        valid = first[1] is None
    else:
        valid = _VALID.search(answer) is not None and _INVALID.search(answer) is None
    return Verdict(valid, answer.strip())


class RuleEvaluator:
    """CALPHAD as the evaluator: proposals that keep all rules are valid."""

    def __init__(self, judge: Judge, family: AlloyFamily = BCC_B2) -> None:
        self._judge, self._family = judge, family

    def __call__(self, texts: Sequence[str], /) -> list[Verdict | None]:
        """Verdicts by the rewards."""
        rewards = self._judge(texts)
        rules = np.array([rewards.info[name] for name in self._family.rules])
        kept = rewards.ok & (np.nan_to_num(rules) > 0).all(axis=0)
        told = verdicts(rewards, self._family)
        return [Verdict(bool(valid), words) for valid, words in zip(kept, told, strict=True)]


@dataclass(frozen=True)
class ReviewConfig:
    """Settings of the loop. ValueError for numbers below 1."""

    rounds: int = 5
    """Largest number of proposals in a loop. If all are rejected, the loop is given up, and another
    one begins."""
    at_once: int = 16
    """Number of loops at the same time."""
    most_loops: int = 10_000
    """Largest number of loops."""

    def __post_init__(self) -> None:
        for name in ("rounds", "at_once", "most_loops"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass
class Reviewed:
    """Results of the loop."""

    texts: list[str]
    """Accepted candidates, in the order of acceptance."""
    rounds: list[int]
    """Number of proposals for each of them."""
    loops: int = 0
    """Number of loops."""
    given_up: int = 0
    """Number of loops whose proposals were all rejected."""
    proposals: int = 0
    """Number of the generator's proposals."""
    unanswered: int = 0
    """Number of rounds without a proposal or a verdict."""


@dataclass
class _Loop:
    """One loop."""

    prompt: Messages
    chat: Messages
    round: int = 0


def review(
    first: Callable[[int], Messages],
    generator: Ask,
    evaluator: Evaluator,
    n: int,
    config: ReviewConfig = ReviewConfig(),
    family: AlloyFamily = BCC_B2,
) -> Reviewed:
    """Run loops until n candidates are accepted; fewer if there are no more answers.

    `first`: gives the first prompt of a loop by its number. After a rejection the generator gets
    its first prompt, its last proposal, and the family's template `rejected`, with the evaluator's
    words as {reason}. A round without a proposal or a verdict also counts as one of the loop's.
    """
    template = load_template(family.prompts.rejected)
    found = Reviewed([], [])
    running: list[_Loop] = []
    silent = 0
    while True:
        room = min(config.at_once, n - len(found.texts)) - len(running)
        for _ in range(min(room, config.most_loops - found.loops)):
            prompt = first(found.loops)
            running.append(_Loop(prompt, prompt))
            found.loops += 1
        if not running:
            return found
        answers = generator([loop.chat for loop in running])
        texts = [
            None if answer is None else final_answer(answer, family.tags) for answer in answers
        ]
        proposed = [text for text in texts if text is not None]
        judged = iter(evaluator(proposed) if proposed else ())
        said = [None if text is None else next(judged) for text in texts]
        found.proposals += len(proposed)
        found.unanswered += said.count(None)
        silent = 0 if any(said) else silent + 1
        if silent == _SILENCE:
            return found
        left = []
        for loop, text, verdict in zip(running, texts, said, strict=True):
            loop.round += 1
            if text is not None and verdict is not None and verdict.valid:
                found.texts.append(text)
                found.rounds.append(loop.round)
                continue
            if text is not None and verdict is not None:
                answer = {"role": "assistant", "content": text}
                told = template.messages({"reason": verdict.reason})
                loop.chat = (*loop.prompt, answer, *told)
            if loop.round < config.rounds:
                left.append(loop)
            else:
                found.given_up += 1
        running = left
