"""The loop of generator and evaluator, with players of known habits."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stub_endpoint import stub_endpoint

from crystaljax.alloys.baselines.dialogue import (
    DialogueConfig,
    dialogue,
    verdicts,
)
from crystaljax.alloys.baselines.endpoint import Endpoint, EndpointConfig, Messages
from crystaljax.alloys.composition import read_candidate
from crystaljax.alloys.family import BCC_B2
from crystaljax.rewards.base import RewardBatch

PROMPTS: list[Messages] = [
    ({"role": "user", "content": f"Start with {volume} %"},) for volume in (30, 50)
]


def judge(texts: Sequence[str]) -> RewardBatch:
    """Minus the distance of the B2 volume from 45 %; rules are kept within 10 %."""
    read = [read_candidate(text) for text in texts]
    far = np.array([abs(one.b2_volume - 45) if one else np.nan for one, _ in read])
    info = {"coexist": (far < 10).astype(float), "bcc_first": np.ones(len(texts))}
    info["mismatch"] = far / 100
    return RewardBatch.from_values(-far, info, [reason for _, reason in read])


def evaluator(prompts: Sequence[Messages]) -> list[str | None]:
    """Says to go nearer to 45 %."""
    advice: list[str | None] = []
    for prompt in prompts:
        line = prompt[-1]["content"].split("<B2_Volume>")[1]
        volume = float(line.split("<")[0])
        advice.append(f"change by {(45 - volume) / 2}")
    return advice


def generator(prompts: Sequence[Messages]) -> list[str | None]:
    """Does what it is told."""
    answers: list[str | None] = []
    for prompt in prompts:
        said = prompt[-1]["content"]
        if len(prompt) == 1:
            volume = float(said.split()[2])
        else:
            assert [message["role"] for message in prompt] == ["user", "assistant", "user"]
            last, _ = read_candidate(prompt[1]["content"])
            assert last is not None
            change = said.split("change by ")
            volume = last.b2_volume + (float(change[1].split()[0]) if len(change) > 1 else 0)
        answers.append(
            f"I think <BCC>Cr</BCC>... <BCC>Cr</BCC> <B2>AlNi</B2> <B2_Volume>{volume}</B2_Volume>"
        )
    return answers


def test_advice_is_taken() -> None:
    rounds = dialogue(PROMPTS, generator, evaluator, judge, DialogueConfig(revisions=3))
    values = np.array([round_.rewards.value for round_ in rounds])
    np.testing.assert_allclose(values, [[-15, -5], [-7.5, -2.5], [-3.75, -1.25], [-1.875, -0.625]])
    assert [round_.advice[0] for round_ in rounds] == [
        None,
        "change by 7.5",
        "change by 3.75",
        "change by 1.875",
    ]
    assert rounds[1].texts[0] == "<BCC>Cr</BCC> <B2>AlNi</B2> <B2_Volume>37.5</B2_Volume>"


def test_no_advice_and_no_answer() -> None:
    """Who hears nothing keeps its proposal; who says nothing is asked anew."""

    def mute(prompts: Sequence[Messages]) -> list[str | None]:
        return [None] * len(prompts)

    rounds = dialogue(PROMPTS, generator, mute, judge, DialogueConfig(revisions=1))
    assert rounds[1].texts == rounds[0].texts
    assert rounds[1].advice == [None, None]
    calls: list[int] = []

    def falters(prompts: Sequence[Messages]) -> list[str | None]:
        calls.append(len(prompts[0]))
        answers = generator(prompts)
        return [None, answers[1]] if len(calls) == 1 else answers

    rounds = dialogue(PROMPTS, falters, evaluator, judge, DialogueConfig(revisions=2))
    assert calls == [1, 1, 3]
    assert [round_.dialogues for round_ in rounds] == [[1], [0, 1], [0, 1]]
    np.testing.assert_allclose(rounds[2].rewards.value, [-7.5, -1.25])
    assert dialogue(PROMPTS, mute, evaluator, judge) == []


def test_what_is_no_candidate_is_talked_about() -> None:
    heard = []

    def listens(prompts: Sequence[Messages]) -> list[str | None]:
        heard.append(prompts[0][-1]["content"])
        return ["write all three tags"]

    rounds = dialogue(
        PROMPTS[:1], lambda prompts: ["Cr and NiAl"], listens, judge, DialogueConfig(revisions=1)
    )
    assert "Cr and NiAl\n" in heard[0]
    assert "It could not be judged: no <BCC>...</BCC>." in heard[0]
    assert [round_.rewards.ok.tolist() for round_ in rounds] == [[False], [False]]


def test_goes_on_after_an_interruption(tmp_path: Path) -> None:
    config = DialogueConfig(revisions=1, journal=tmp_path / "dialogue.jsonl")
    first = dialogue(PROMPTS, generator, evaluator, judge, config)
    asked: list[int] = []

    def counts(prompts: Sequence[Messages]) -> list[str | None]:
        asked.append(len(prompts))
        return generator(prompts)

    longer = dialogue(PROMPTS, counts, evaluator, judge, replace(config, revisions=3))
    assert asked == [2, 2]
    whole = dialogue(PROMPTS, generator, evaluator, judge, DialogueConfig(revisions=3))
    for known, again, other in zip(first, longer, whole, strict=False):
        assert known.texts == again.texts == other.texts
    assert [round_.texts for round_ in longer] == [round_.texts for round_ in whole]
    assert [round_.advice for round_ in longer] == [round_.advice for round_ in whole]
    np.testing.assert_array_equal(longer[0].rewards.value, first[0].rewards.value)
    with pytest.raises(ValueError, match="journal of something else: prompts is"):
        dialogue(PROMPTS[:1], generator, evaluator, judge, config)
    with pytest.raises(ValueError, match="journal of something else: reward is '' there and 'new'"):
        dialogue(PROMPTS, generator, evaluator, judge, config, "new")


def test_verdicts() -> None:
    info = {name: np.array([0.0, 1.0]) for name in BCC_B2.rules}
    info["mismatch"] = np.array([np.nan, 0.0123])
    told = verdicts(RewardBatch.from_values(np.array([-1111.0, -0.0123]), info))
    assert told[0].splitlines()[1:] == [f"- {rule.broken}" for rule in BCC_B2.rules.values()]
    assert told[1].splitlines() == [
        "Reward -0.012 (the larger the better, 0 at best)",
        "- all conditions are met",
        "- the lattice parameters differ by 0.012 Å",
    ]


def test_players_behind_an_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One model in both roles, over HTTP; it fails once."""
    pytest.importorskip("openai")
    monkeypatch.setenv("STUB_KEY", "any")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def respond(body: dict, n: int) -> str | int:
        if n == 2:
            return 400
        messages = tuple(body["messages"])
        player = evaluator if messages[0]["role"] == "system" else generator
        return str(player([messages])[0])

    with stub_endpoint(respond) as stub:
        model = Endpoint(EndpointConfig(stub.url, "stub", "STUB_KEY"))
        rounds = dialogue(PROMPTS, model, model, judge, DialogueConfig(revisions=1))
    assert len(stub.bodies) == 6
    np.testing.assert_allclose(rounds[1].rewards.value, [-15, -2.5])  # the first had no advice
