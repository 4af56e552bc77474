"""Pairs and prompts of the experiments on language models, for models that chat and others."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small_policy import TINY
from small_text import TRIPLES

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
import llm_dpo
import llm_sft

from crystaljax.conditions import Condition
from crystaljax.data.dataset import load
from crystaljax.data.writers import write
from crystaljax.evaluation.evaluate import Reference, evaluate
from crystaljax.evaluation.policies import with_as_asked
from crystaljax.experiment.llm_setup import LlmSetup, TextsConfig, chats, written_as
from crystaljax.experiment.texts import read_texts, sequences, writer
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.loading import load_policy
from crystaljax.policies.text import TextPolicy
from crystaljax.text.examples import Chat, Example
from crystaljax.text.loading import TextModelConfig, load_text_policy

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "<|turn|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>model\n{% endif %}"
)
"""A chat template without a system role."""


@pytest.fixture(scope="module", params=["plain", "chat"])
def model(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextModelConfig, bool]:
    """A tiny model's folder, and whether it has a chat template."""
    folder, chat = tmp_path_factory.mktemp(request.param) / "model", request.param == "chat"
    config = TextModelConfig(small=TINY, n_vocabulary=300, added_tokens=("<|turn|>", "<|over|>"))
    policy = load_text_policy(config, TRIPLES)
    if chat:
        special = {"additional_special_tokens": ["<|turn|>", "<|over|>"]}
        policy.tokenizer.fast.add_special_tokens(special)
        policy.tokenizer.fast.chat_template = GEMMA
    policy.save(folder, policy.start)
    return TextModelConfig(base=str(folder)), chat


def test_pairs_of_a_file_are_asked_as_examples_are(
    model: tuple[TextModelConfig, bool], tmp_path: Path
) -> None:
    config, chat = model
    policy = load_text_policy(config)
    prompts, answers = [f"Alloy {i}" for i in range(12)], list(TRIPLES)
    pairs = [
        {"prompt": prompt, "chosen": answers[i % 4], "rejected": answers[(i + 1) % 4]}
        for i, prompt in enumerate(prompts)
    ]
    examples = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in pairs]
    for name, lines in {"pairs": pairs, "examples": examples}.items():
        (tmp_path / name).write_text("\n".join(map(json.dumps, lines)))
    setup = LlmSetup(
        texts=TextsConfig(file=tmp_path / "examples"), model=config, output=tmp_path / "run"
    )
    dpo = llm_dpo.Config(setup=setup, pairs=llm_dpo.PairsConfig(file=tmp_path / "pairs"))
    _, found, asked = llm_dpo.pairs_of_file(dpo, policy)

    train, validation = read_texts(setup.texts, written_as(setup), chats(config))
    learnt = [*sequences(policy, train), *sequences(policy, validation)]
    by_tokens = {sequence.tokens.tobytes(): sequence.n_prompt for sequence in learnt}
    for pair in found:
        assert by_tokens[pair.chosen.tokens.tobytes()] == pair.chosen.n_prompt
        np.testing.assert_array_equal(
            pair.rejected.tokens[: pair.rejected.n_prompt],
            pair.chosen.tokens[: pair.chosen.n_prompt],
        )
    text = policy.tokenizer.fast.decode(found[0].chosen.tokens)
    assert ("<|turn|>user\nAlloy 0<|over|>\n<|turn|>model\n" in text) == chat

    # What is examined are the pairs' own prompts, each once.
    some = asked(np.array([3, 5]))
    assert some.asked == ["Alloy 3", "Alloy 5"]
    assert some.crystals is None


def test_pairs_of_messages(model: tuple[TextModelConfig, bool], tmp_path: Path) -> None:
    config, chat = model
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Alloy?"}]
    answers = [{"role": "assistant", "content": text} for text in TRIPLES[:2]]
    line = {"prompt": asked, "chosen": [answers[0]], "rejected": [answers[1]]}
    (tmp_path / "pairs").write_text(json.dumps(line))
    setup = LlmSetup(model=config, output=tmp_path / "run")
    dpo = llm_dpo.Config(setup=setup, pairs=llm_dpo.PairsConfig(file=tmp_path / "pairs"))
    policy = load_text_policy(config)
    if not chat:
        with pytest.raises(ValueError, match="has no chat template: use prompt and completion"):
            llm_dpo.pairs_of_file(dpo, policy)
        return
    _, ((chosen, rejected),), _ = llm_dpo.pairs_of_file(dpo, policy)
    expected = policy.tokenizer.chat_sequences([[*asked, answer] for answer in answers])
    jax.tree.map(np.testing.assert_array_equal, [chosen, rejected], expected)


def test_crystals_are_asked_of_models_without_a_system_role(
    model: tuple[TextModelConfig, bool],
) -> None:
    config, chat = model
    texts = TextsConfig(templates=("crystal_of_formula",), max_sites=1)
    metadata = written_as(LlmSetup(texts, config))
    train, _ = read_texts(texts, metadata, chats(config))
    policy: TextPolicy = load_text_policy(config)
    (sequence,) = sequences(policy, train.take(np.arange(1)))
    prompt = policy.tokenizer.fast.decode(sequence.tokens[: sequence.n_prompt])
    formula = train.asked[0]
    assert "You know which structures" in prompt
    assert f"Describe a stable crystal of {formula}." in prompt
    assert ("<|turn|>user\nYou know which" in prompt) == chat


@pytest.mark.slow
def test_dpo_on_a_file_of_pairs(tmp_path: Path) -> None:
    """The whole script, at a tiny size; the report shows the prompts of the file."""
    policy = load_text_policy(TextModelConfig(small=TINY, n_vocabulary=300), TRIPLES)
    policy.save(tmp_path / "model", policy.start)
    lines = [
        {"prompt": f"Alloy {i}", "chosen": TRIPLES[i % 4], "rejected": "none"} for i in range(12)
    ]
    (tmp_path / "pairs").write_text("\n".join(map(json.dumps, lines)))
    small = llm_dpo.PRESETS["small"][1]
    setup = dataclasses.replace(
        small.setup,
        model=TextModelConfig(base=str(tmp_path / "model")),
        generation=dataclasses.replace(small.setup.generation, max_new_tokens=8),
        output=tmp_path / "run",
        result="best",
    )
    dpo = dataclasses.replace(small.dpo, batch_size=4)
    pairs = llm_dpo.PairsConfig(file=tmp_path / "pairs")
    llm_dpo.main(dataclasses.replace(small, setup=setup, dpo=dpo, pairs=pairs))
    report = (tmp_path / "run" / "report.md").read_text()
    assert "Alloy " in report
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["wyckoff-text", "p1-bins"])
def test_the_mixture_of_tasks(tmp_path: Path, format: str) -> None:
    """The whole script with infilling, any crystal, and crystals of properties; then samples."""
    crystals = load("prototypes").crystals
    crystals = crystals[np.flatnonzero(np.asarray(crystals.n_sites) <= 2)[::8]]
    numbers = np.linspace(-1, 1, len(crystals))
    names = ("formation_energy_per_atom", "e_above_hull", "band_gap")
    data = write(crystals, tmp_path / "data.csv", dict.fromkeys(names, numbers))
    mix = llm_sft.PRESETS["mix"][1]
    setup = dataclasses.replace(
        mix.setup,
        texts=dataclasses.replace(
            mix.setup.texts, crystals=str(data), format=format, validation=0.3
        ),
        model=dataclasses.replace(
            mix.setup.model, small=dataclasses.replace(TINY, max_length=1024)
        ),
        generation=dataclasses.replace(mix.setup.generation, max_new_tokens=40),
        n_samples=30,
        output=tmp_path / "run",
    )
    sft = dataclasses.replace(mix.sft, n_epochs=3, log_every=1)
    config = dataclasses.replace(mix, setup=setup, sft=sft)
    llm_sft.main(config)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    after = {x["name"]: x for x in report["evaluations"]["after SFT"]["metrics"]}
    totals = [after[f"infilling: {x}"]["total"] for x in ("exact", "allowed")]
    n_filled = totals[0]
    assert totals == [n_filled] * 2 and 0 < n_filled < 30
    assert after["as asked"]["total"] == 30 - n_filled
    for name in ("formula as asked", "space group as asked"):
        assert 0 < after[name]["total"] < 30 - n_filled
    context = report["evaluations"]["after SFT"]["context"]
    assert "not judged, for want of a predictor: band_gap" in context[-1]

    # The model can be asked for any of the properties, though it has hardly learnt them.
    policy, params = load_policy(tmp_path / "run" / "model")
    asked = [Condition(space_group=225, properties={"band_gap": 0.5}), Condition(formula="NaCl")]
    rollout = policy.sample(params, asked, 0, SamplingConfig(grammar=True, max_new_tokens=60))
    np.testing.assert_allclose(policy.log_prob(params, rollout), rollout.logp_model, atol=1e-3)


@pytest.mark.parametrize(
    ("format", "first"), [("wyckoff-text", "[0-9]+"), ("plaid", ".*[A-Z].*"), ("cif", "data_.*")]
)
def test_crystals_are_written_and_read_in_the_format_asked_for(
    model: tuple[TextModelConfig, bool], format: str, first: str
) -> None:
    config, _ = model
    setup = LlmSetup(texts=TextsConfig(format=format, max_sites=1), model=config)
    metadata = written_as(setup)
    train, _ = read_texts(setup.texts, metadata, chats(config))
    texts = [
        x.messages[-1]["content"] if isinstance(x, Chat) else x.completion for x in train.examples
    ]
    assert all(re.fullmatch(first, text.split("\n")[0]) for text in texts)
    some = train.take(np.arange(20))
    assert some.crystals is not None
    policy = writer(load_text_policy(config), metadata, some)
    assert isinstance(policy, CrystalTextPolicy)
    rollout = policy.encode(some.crystals, some.conditions)
    assert rollout.sequences.texts == texts[:20]
    reference = Reference.of(some.crystals, "themselves")
    found = with_as_asked(evaluate(rollout.crystals, reference), rollout)
    assert found.metrics[0].name == "as asked"
    assert found.metrics[0].value == 1


def test_examples_by_several_templates(model: tuple[TextModelConfig, bool]) -> None:
    """Each by one of them, at random; crystals without the values of any are left out."""
    config, _ = model
    texts = TextsConfig(templates=("formula", "unconditional", "e_above_hull"), max_sites=1)
    metadata = written_as(LlmSetup(texts, config))
    train, _ = read_texts(texts, metadata, False)
    prompts = [x.prompt for x in train.examples if isinstance(x, Example)]
    plain = [prompt == "A crystal:\n" for prompt in prompts]
    assert 0.4 < np.mean(plain) < 0.6
    assert [x.formula is None for x in train.conditions] == plain
    assert prompts == [x.prompt for x in read_texts(texts, metadata, False)[0].examples]  # type: ignore[union-attr]
    only = dataclasses.replace(texts, templates=("e_above_hull",))
    with pytest.raises(ValueError, match=r"lack what the prompts ask for \(e_above_hull\)"):
        read_texts(only, written_as(LlmSetup(only, config)), False)


def test_a_format_that_there_is_not(model: tuple[TextModelConfig, bool]) -> None:
    with pytest.raises(ValueError, match="is named 'poscar': choose wyckoff"):
        written_as(LlmSetup(TextsConfig(format="poscar"), model[0]))
