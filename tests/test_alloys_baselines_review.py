"""The loop of a generator and an evaluator that accepts or rejects."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from stub_endpoint import stub_endpoint

from crystaljax.alloys.baselines.endpoint import Endpoint, EndpointConfig, Messages
from crystaljax.alloys.baselines.review import (
    ModelEvaluator,
    ReviewConfig,
    RuleEvaluator,
    Verdict,
    review,
)
from crystaljax.alloys.baselines.shots import shot_prompts, with_uuid
from crystaljax.alloys.family import BCC_B2
from crystaljax.rewards.base import RewardBatch

TEXT = "<BCC>Cr</BCC> <B2>AlNi</B2> <B2_Volume>{}</B2_Volume>"


def first(number: int) -> Messages:
    return ({"role": "user", "content": f"loop {number}"},)


def generator(prompts: Sequence[Messages]) -> list[str | None]:
    """Begins with ten times the loop's number, and adds what the evaluator asks for."""
    answers: list[str | None] = []
    for prompt in prompts:
        volume = 10.0 * int(prompt[0]["content"].split()[1]) + 1
        if len(prompt) > 1:
            volume = float(prompt[1]["content"].split("Volume>")[1].split("<")[0]) + 1
            assert "more, please" in prompt[2]["content"]
        answers.append("Well: " + TEXT.format(volume))
    return answers


def evaluator(texts: Sequence[str]) -> list[Verdict | None]:
    """Accepts whole threes of the last digit above 3, so that some loops never succeed."""
    volumes = [float(text.split("Volume>")[1].split("<")[0]) for text in texts]
    return [Verdict(v % 10 == 3 and v > 20, "more, please") for v in volumes]


def test_loops_go_on_until_enough_are_accepted() -> None:
    found = review(first, generator, evaluator, 3, ReviewConfig(at_once=2))
    # Loops 0 and 1 (volumes 1.. and 11..) are given up after five rounds.
    assert found.texts == [TEXT.format(v) for v in (23.0, 33.0, 43.0)]
    assert found.rounds == [3, 3, 3]
    assert (found.loops, found.given_up) == (5, 2)
    assert found.proposals == 2 * 5 + 3 * 3


def test_the_last_round_counts() -> None:
    short = review(first, generator, evaluator, 1, ReviewConfig(rounds=2, most_loops=4))
    assert (short.texts, short.loops, short.given_up) == ([], 4, 4)
    enough = review(first, generator, evaluator, 1, ReviewConfig(rounds=3, most_loops=4))
    assert enough.texts == [TEXT.format(23.0)]


def test_silence_ends_it() -> None:
    def mute(prompts: Sequence[object]) -> list[None]:
        return [None] * len(prompts)

    assert review(first, mute, evaluator, 9).unanswered == 3 * 9
    none = review(first, generator, mute, 1, ReviewConfig(at_once=3))
    assert (none.texts, none.proposals, none.unanswered) == ([], 3, 3)


def test_one_silence_costs_a_round() -> None:
    calls: list[int] = []

    def falters(prompts: Sequence[Messages]) -> list[str | None]:
        calls.append(len(prompts))
        answers = generator(prompts)
        return [None, *answers[1:]] if len(calls) == 1 else answers

    def start(number: int) -> Messages:
        return first(number + 2)

    found = review(start, falters, evaluator, 2, ReviewConfig(at_once=2))
    assert found.texts == [TEXT.format(33.0), TEXT.format(23.0)]
    assert found.rounds == [3, 4]
    assert found.unanswered == 1


def test_the_rules_as_evaluator() -> None:
    info = {name: np.array([1.0, 1.0, np.nan]) for name in BCC_B2.rules}
    info["bcc_first"] = np.array([1.0, 0.0, np.nan])
    info["mismatch"] = np.array([0.01, 0.01, np.nan])
    rewards = RewardBatch.from_values(
        np.array([-0.01, -100.01, -2000]), info, [None, None, "no <BCC>...</BCC>"]
    )
    found = RuleEvaluator(lambda texts: rewards)(["a", "b", "c"])
    assert [one and one.valid for one in found] == [True, False, False]
    assert found[1] is not None and "the first solid on cooling is not BCC" in found[1].reason
    assert found[2] is not None and "no <BCC>...</BCC>" in found[2].reason


def test_answers_of_a_model_that_evaluates() -> None:
    answers = ["Valid.", "**Invalid**: not valid, as Cr", "Perhaps", None]
    asked: list[Messages] = []

    def ask(prompts: Sequence[Messages]) -> list[str | None]:
        asked.extend(prompts)
        return list(answers)

    found = ModelEvaluator(ask, ("Al", "Cr"))([TEXT.format(i) for i in range(4)])
    assert [one and one.valid for one in found] == [True, False, False, None]
    assert found[2] == Verdict(False, "Perhaps")
    assert found[1] == Verdict(False, "**Invalid**: not valid, as Cr")
    assert "these elements alone: Al, Cr." in asked[2][-1]["content"]
    assert TEXT.format(2) in asked[2][-1]["content"]


@pytest.mark.parametrize("name", ["rounds", "at_once", "most_loops"])
def test_settings(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        ReviewConfig(**{name: 0})


def test_behind_an_endpoint_and_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One model in both roles, over HTTP; what it answered is not asked again."""
    pytest.importorskip("openai")
    monkeypatch.setenv("STUB_KEY", "any")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def respond(body: dict, n: int) -> str:
        messages = body["messages"]
        if "review" in messages[0]["content"]:
            good = "AlNi" in messages[-1]["content"]
            return "Valid" if good else "Invalid: the B2 must have nickel"
        told = "must have nickel" in messages[-1]["content"]
        return TEXT.format(40) if told else TEXT.format(40).replace("Ni", "Co")

    def start(number: int) -> Messages:
        return with_uuid(shot_prompts(1)[0], 0, number)

    with stub_endpoint(respond) as stub:
        asked = []
        for n in (2, 3, 3):
            model = Endpoint(
                EndpointConfig(stub.url, "stub", "STUB_KEY", journal=tmp_path / "answers.jsonl")
            )
            judge = ModelEvaluator(model, ("Al", "Co", "Cr", "Ni"))
            found = review(start, model, judge, n, ReviewConfig(at_once=1))
            assert found.texts == [TEXT.format(40)] * n
            assert found.rounds == [2] * n
            asked.append(len(stub.bodies))
    assert asked == [8, 12, 12]


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ("Valid. Nothing invalid in it.", True),
        ("**Valid**", True),
        ("Verdict: valid.", True),
        ("Invalid: NiAl is no valid matrix", False),
        ("This is not valid, because the BCC is ordered.", False),
        ("Not valid.", False),
        ("It isn't a valid candidate.", False),
        ("Verdict: Invalid. A valid one would have more Cr.", False),
        ("To be valid, the BCC must be stable; so this is invalid.", False),
        ("Good.", False),
    ],
)
def test_verdicts_of_a_model(answer: str, valid: bool) -> None:
    (verdict,) = ModelEvaluator(lambda chats: [answer], ("Al", "Cr"))([TEXT])
    assert verdict == Verdict(valid, answer)
