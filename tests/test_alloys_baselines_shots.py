"""Prompts with and without examples."""

import pytest

from crystaljax.alloys.baselines.shots import ShotsConfig, final_answer, shot_prompts
from crystaljax.alloys.composition import read_candidate
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
    for name in ("alloy_zero_shot", "alloy_few_shot", "alloy_revision"):
        values = dict.fromkeys(load_template(name).fields, "x")
        values |= {"bcc": "Cr33Fe67", "b2": "AlNi", "volume": "44.1"}
        candidate, reason = read_candidate(load_template(name).example(values).completion)
        assert reason is None
        assert candidate is not None
        assert candidate.b2_volume == 44.1


def test_the_last_answer_counts() -> None:
    text = f"First {EXAMPLES[0]}, or better\n{EXAMPLES[1]}\n"
    assert read_candidate(text)[0] is None
    read, _ = read_candidate(final_answer(text))
    assert str(read) == EXAMPLES[1]
    assert final_answer("none") == "none"
