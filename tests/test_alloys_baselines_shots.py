"""Prompts with and without examples."""

import json
import uuid
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from crystaljax.alloys.baselines.shots import (
    KnownPhases,
    ShotsConfig,
    final_answer,
    ranked_prompts,
    read_samples,
    shot_prompts,
    with_uuid,
)
from crystaljax.alloys.composition import read_candidate
from crystaljax.alloys.family import Prompts
from crystaljax.alloys.journal import Journal, reward_entries
from crystaljax.rewards.base import RewardBatch
from crystaljax.text.prompts import load_template

EXAMPLES = [
    f"<BCC>Cr{n}Ni{100 - n}</BCC> <B2>AlNi</B2> <B2_Volume>40</B2_Volume>" for n in range(71, 78)
]


def test_zero_shot() -> None:
    prompts = shot_prompts(3, config=ShotsConfig(("Al", "Cr")))
    assert len(prompts) == 3
    assert prompts[0] == prompts[2]
    assert [message["role"] for message in prompts[0]] == ["system", "user"]
    assert "Elements to choose from, and no others: Al, Cr." in prompts[0][1]["content"]


@pytest.mark.parametrize("shots", [1, 3])
def test_examples_are_drawn_for_each_prompt(shots: int) -> None:
    config = ShotsConfig(shots=shots, seed=2)
    prompts = shot_prompts(20, EXAMPLES, config)
    shown = [[e for e in EXAMPLES if e in prompt[-1]["content"]] for prompt in prompts]
    assert {len(examples) for examples in shown} == {shots}
    assert {example for examples in shown for example in examples} == set(EXAMPLES)
    assert shot_prompts(20, EXAMPLES, config) == prompts


def test_too_few_examples() -> None:
    with pytest.raises(ValueError, match="8 examples cannot be drawn from 7"):
        shot_prompts(1, EXAMPLES, ShotsConfig(shots=8))
    with pytest.raises(ValueError, match="-1 examples cannot be drawn"):
        shot_prompts(1, EXAMPLES, ShotsConfig(shots=-1))


def test_answers_of_the_templates_are_candidates() -> None:
    names = ("zero_shot", "few_shot", "ranked_shots", "plain", "revision", "rejected")
    for name in names:
        template = load_template(f"alloy_{name}").saying(())
        values = dict.fromkeys(template.fields, "x")
        values |= {"bcc": "Cr33Fe67", "b2": "AlNi", "volume": "44.1"}
        candidate, reason = read_candidate(template.example(values).completion)
        assert reason is None
        assert candidate is not None
        assert candidate.b2_volume == 44.1


def test_the_last_answer_counts() -> None:
    text = f"First {EXAMPLES[0]}, or better\n{EXAMPLES[1]}\n"
    assert read_candidate(text)[0] is None
    read, _ = read_candidate(final_answer(text))
    assert str(read) == EXAMPLES[1]
    assert final_answer("none") == "none"


KNOWN = KnownPhases(("Cr", "Nb67Mo33"), ("AlNi",))
RULE = "BCC is the first solid"


def digest(shots: int) -> str:
    (prompt, *_) = shot_prompts(1, EXAMPLES, ShotsConfig(shots=shots, seed=1))
    return sha256(json.dumps([dict(m) for m in prompt]).encode()).hexdigest()[:16]


def test_prompts_of_before_are_the_same() -> None:
    """Answers that were paid for are found by them."""
    assert [digest(0), digest(2)] == ["cbcde7a72cb0e7fa", "09d68be61a7455bf"]


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("known", [KNOWN, None])
def test_rules_and_known_phases_are_options(
    shots: int, plain: bool, known: KnownPhases | None
) -> None:
    config = ShotsConfig.of(Prompts(), ("Al", "Cr"), shots, plain=plain)
    assert plain or config == ShotsConfig(("Al", "Cr"), shots)
    text = shot_prompts(1, EXAMPLES, config, known)[0][-1]["content"]
    assert (RULE in text) != plain
    assert ("Nb67Mo33" in text and "AlNi." in text) == (known is not None)
    assert sum(example in text for example in EXAMPLES) == shots
    assert "Al, Cr." in text
    assert "{" not in text


@pytest.mark.parametrize("plain", [True, False])
def test_ranked_examples(plain: bool) -> None:
    texts = [*EXAMPLES[:5], EXAMPLES[0], "no candidate"]
    values = np.array([-3.0, -1.0, -2.0, -5.0, -4.0, -0.0, 9.0])
    rewards = RewardBatch.from_values(values, {}, [None] * 6 + ["no <BCC>"])
    config = ShotsConfig.of(Prompts(), ("Al",), 2, plain=plain)
    prompts = ranked_prompts(3, texts, rewards, config)
    assert prompts[0] == prompts[2]
    text = prompts[0][-1]["content"]
    lines = [line for line in text.splitlines() if line in EXAMPLES]
    assert lines == [EXAMPLES[i] for i in (1, 2, 3, 4)]  # best first; worst first
    assert (RULE in text) != plain
    with pytest.raises(ValueError, match="3 good and 3 bad examples cannot be taken from 5"):
        ranked_prompts(1, texts, rewards, ShotsConfig(shots=3))


def test_a_template_without_a_place_for_what_is_given(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('user = "Use {elements}"\ncompletion = "{bcc}"')
    with pytest.raises(ValueError, match="has no place for known_b2, known_bcc"):
        shot_prompts(1, config=ShotsConfig(zero_shot=str(path)), known=KNOWN)


def test_identifiers_at_the_end() -> None:
    prompt = shot_prompts(1)[0]
    ends = [with_uuid(prompt, 3, n)[-1]["content"].splitlines()[-1] for n in (0, 1, 0)]
    assert ends[0] == ends[2] != ends[1]
    assert [uuid.UUID(end).version for end in ends] == [4] * 3
    assert with_uuid(prompt, 4, 0) != with_uuid(prompt, 3, 0)
    assert with_uuid(prompt, 3, 0)[0] == prompt[0]


def test_samples_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    rewards = RewardBatch.from_values(np.array([-1.0, -2.0]), {"mismatch": np.array([0.1, np.nan])})
    Journal(path, {"samples": 2}).add(reward_entries(EXAMPLES[:2], rewards))
    texts, read = read_samples(path)
    assert texts == EXAMPLES[:2]
    np.testing.assert_array_equal(read.value, rewards.value)
    path.write_text('{"samples": 2}\n')
    with pytest.raises(ValueError, match="no journal of samples with rewards"):
        read_samples(path)
