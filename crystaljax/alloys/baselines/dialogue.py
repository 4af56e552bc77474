"""Dialogues: a generator proposes, CALPHAD judges, an evaluator advises, the generator revises.

The loop of appendix A.1.4 of arXiv 2511.12036, with prompts of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from crystaljax.alloys.baselines.endpoint import Messages
from crystaljax.alloys.baselines.optimize import Judge
from crystaljax.alloys.baselines.shots import final_answer
from crystaljax.alloys.family import BCC_B2, AlloyFamily
from crystaljax.alloys.journal import Entry, Journal, read_rewards, reward_entries
from crystaljax.rewards.base import RewardBatch
from crystaljax.text.prompts import load_template

Ask = Callable[[Sequence[Messages]], Sequence[str | None]]
"""From B chats to their answers, None where there is none; for example an `Endpoint`."""


@dataclass(frozen=True)
class DialogueConfig:
    """Settings of dialogues between generator and evaluator."""

    elements: tuple[str, ...] = ("Al", "Co", "Cr", "Ni")
    """Elements that candidates may have."""
    revisions: int = 3
    """Rounds after the first one."""
    evaluator: str = "alloy_evaluator"
    """Template of the evaluator's prompt, a name or a .toml file. Its fields are {elements},
    {candidate} and {verdict}."""
    revision: str = "alloy_revision"
    """Template of the answer to the generator. Its fields are {verdict} and {advice}."""
    journal: Path | None = None
    """JSONL file of all rounds. A dialogue that was stopped is continued from it."""


class Round(NamedTuple):
    """One proposal of each dialogue that got an answer."""

    dialogues: list[int]
    """[N]: number of the dialogue, that is, of its first prompt."""
    texts: list[str]
    """[N]: proposed texts."""
    rewards: RewardBatch
    """Rewards of the N texts."""
    advice: list[str | None]
    """[N]: the evaluator's advice before; None in the first round or without an answer."""


def dialogue(
    prompts: Sequence[Messages],
    generator: Ask,
    evaluator: Ask,
    judge: Judge,
    config: DialogueConfig = DialogueConfig(),
    identity: str = "",
    family: AlloyFamily = BCC_B2,
) -> list[Round]:
    """Run one dialogue for each prompt; returns the rounds, fewer if there are no more answers.

    The generator gets its first prompt, its last proposal, the verdict and the advice. If it gave
    no answer it is asked again; if the evaluator gave none, it gets the verdict alone. `identity`:
    identifies the judge's rewards, as `AlloyReward.identity` does. ValueError for the journal of
    other prompts, templates or rewards.
    """
    journal = Journal(config.journal, _header(prompts, config) | {"reward": identity})
    rounds = [_read(entry) for entry in journal.entries[: config.revisions + 1]]
    while len(rounds) <= config.revisions:
        last = rounds[-1] if rounds else None
        advice = _advice(last, evaluator, config, family) if last else {}
        chats = [_chat(n, prompt, last, advice, config, family) for n, prompt in enumerate(prompts)]
        answers = generator(chats)
        answered = [(n, answer) for n, answer in enumerate(answers) if answer is not None]
        if not answered:
            break
        texts = [final_answer(answer, family.tags) for _, answer in answered]
        dialogues = [n for n, _ in answered]
        round_ = Round(dialogues, texts, judge(texts), [advice.get(n) for n in dialogues])
        journal.add([_entry(round_)])
        rounds.append(round_)
    return rounds


def verdicts(rewards: RewardBatch, family: AlloyFamily = BCC_B2) -> list[str]:
    """Rewards of B candidates in words: reason of a failure, broken rules, mismatch."""
    return [_verdict(rewards, n, family) for n in range(len(rewards))]


def _verdict(rewards: RewardBatch, n: int, family: AlloyFamily) -> str:
    if not rewards.ok[n]:
        return f"It could not be judged: {rewards.reasons[n]}."
    known = [name for name in family.rules if name in rewards.info]
    broken = [family.rules[name].complaint for name in known if rewards.info[name][n] == 0]
    lines = [f"- {words}" for words in broken]
    if known and not broken:
        lines.append("- all conditions are met")
    if "mismatch" in rewards.info and rewards.info["mismatch"][n] >= 0:  # nan: never together
        lines.append(f"- the lattice parameters differ by {rewards.info['mismatch'][n]:.3f} Å")
    return "\n".join([f"Reward {rewards.value[n]:.3f} (the larger the better, 0 at best)", *lines])


def _advice(
    last: Round, evaluator: Ask, config: DialogueConfig, family: AlloyFamily
) -> dict[int, str]:
    """The evaluator's verdict on each dialogue's last proposal."""
    template = load_template(config.evaluator)
    elements = ", ".join(config.elements)
    chats = [
        template.messages({"elements": elements, "candidate": text, "verdict": verdict})
        for text, verdict in zip(last.texts, verdicts(last.rewards, family), strict=True)
    ]
    said = zip(last.dialogues, evaluator(chats), strict=True)
    return {n: advice for n, advice in said if advice is not None}


def _chat(
    n: int,
    prompt: Messages,
    last: Round | None,
    advice: dict[int, str],
    config: DialogueConfig,
    family: AlloyFamily,
) -> Messages:
    """Messages to the generator of dialogue n."""
    if last is None or n not in last.dialogues:
        return prompt
    row = last.dialogues.index(n)
    verdict = verdicts(last.rewards[[row]], family)[0]
    values = {"verdict": verdict, "advice": advice.get(n, "none")}
    answer = {"role": "assistant", "content": last.texts[row]}
    return (*prompt, answer, *load_template(config.revision).messages(values))


def _header(prompts: Sequence[Messages], config: DialogueConfig) -> Entry:
    """Settings that identify a journal; a dialogue may go on for more rounds."""
    return {
        "prompts": [[dict(message) for message in prompt] for prompt in prompts],
        "elements": config.elements,
        "evaluator": config.evaluator,
        "revision": config.revision,
    }


def _entry(round_: Round) -> Entry:
    candidates = reward_entries(round_.texts, round_.rewards)
    return {"dialogues": round_.dialogues, "candidates": candidates, "advice": round_.advice}


def _read(entry: Entry) -> Round:
    texts, rewards = read_rewards(entry["candidates"])
    return Round(entry["dialogues"], texts, rewards, entry["advice"])
