"""Prompts tuned for diversity by DSPy's MIPROv2 (A.1.3 of arXiv 2511.12036)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crystaljax.alloys.baselines.endpoint import EndpointConfig, Messages
from crystaljax.alloys.baselines.shots import final_answer
from crystaljax.alloys.composition import TAGS, Tags, read_candidate
from crystaljax.alloys.family import BCC_B2, AlloyFamily
from crystaljax.text.prompts import load_template


@dataclass(frozen=True)
class TuningConfig:
    """Settings of MIPROv2."""

    effort: Literal["light", "medium", "heavy"] = "medium"
    """Preset of the number of candidates and trials; medium in the paper."""
    template: str = ""
    """Template of the first instruction. Its field is {elements}. Empty: `plain` of the family."""
    demonstrations: int = 4
    """Largest number of the model's answers in a prompt, and of examples."""
    threads: int = 1
    """Number of requests at the same time."""
    seed: int = 0
    """Random seed for the tuning."""


def element_count(text: str, elements: Sequence[str], tags: Tags = TAGS) -> int:
    """Number of elements of the candidate in a text, the metric that is tuned for; 0 if none."""
    candidate, _ = read_candidate(final_answer(text, tags), elements, tags)
    return 0 if candidate is None else len(candidate.bcc.keys() | candidate.b2.keys())


def tuned_prompt(
    endpoint: EndpointConfig,
    examples: Sequence[str],
    elements: Sequence[str],
    config: TuningConfig = TuningConfig(),
    family: AlloyFamily = BCC_B2,
) -> Messages:
    """A prompt tuned for answers with more elements; it can be used without DSPy.

    `examples`: different candidates. The first fifth may be shown in the prompt; the number of the
    others is the number of answers that a prompt is measured by. Model, address, key, temperature
    and length of answers of `endpoint` are used, not its journal and limits: MIPROv2 decides on the
    number of requests. Answers have DSPy's marks around the candidate, which `final_answer` and
    `read_candidate` ignore. ImportError without dspy; ValueError for too few examples or no key.
    """
    dspy = dspy_module()
    if len(examples) < 5:
        raise ValueError(f"MIPROv2 needs 5 examples at least, not {len(examples)}")
    key = os.environ.get(endpoint.key_variable)
    if not key or not endpoint.model:
        raise ValueError(f"name a model, and set the environment variable {endpoint.key_variable}")
    model = dspy.LM(
        f"openai/{endpoint.model}",
        api_base=endpoint.base_url,
        api_key=key,
        temperature=endpoint.temperature,
        max_tokens=endpoint.max_tokens,
        num_retries=endpoint.retries,
        cache=False,
    )
    allowed = ", ".join(elements)
    signature = dspy.Signature("elements -> alloy", first_instruction(elements, config, family))
    rows = [dspy.Example(elements=allowed, alloy=text).with_inputs("elements") for text in examples]

    def metric(example: Any, answer: Any, trace: Any = None) -> int:
        return element_count(str(answer.alloy), elements, family.tags)

    with dspy.context(lm=model):
        tuner = dspy.MIPROv2(
            metric,
            auto=config.effort,
            max_bootstrapped_demos=config.demonstrations,
            max_labeled_demos=config.demonstrations,
            num_threads=config.threads,
            seed=config.seed,
        )
        best = tuner.compile(dspy.Predict(signature), trainset=rows)
    found = dspy.ChatAdapter().format(best.signature, best.demos, {"elements": allowed})
    return tuple({"role": message["role"], "content": message["content"]} for message in found)


def first_instruction(
    elements: Sequence[str], config: TuningConfig = TuningConfig(), family: AlloyFamily = BCC_B2
) -> str:
    """The instruction that tuning begins with."""
    template = load_template(config.template or family.prompts.plain)
    asked = template.saying(()).messages({"elements": ", ".join(elements)})
    return "\n\n".join(message["content"] for message in asked)


def dspy_module() -> Any:
    """The package dspy; ImportError saying how to install it."""
    try:
        import dspy
    except ImportError as error:
        raise ImportError('dspy is not installed: run pip install "crystaljax[dspy]"') from error
    return dspy
