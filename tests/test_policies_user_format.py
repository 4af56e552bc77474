"""A text format in a user's file goes all the way: learnt, loaded, sampled, trained by reward."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("safetensors")
pytest.importorskip("qwix")

from small_policy import TINY
from user_format import FORMAT

from crystaljax.conditions import Condition
from crystaljax.crystal import Crystals
from crystaljax.experiment.llm_setup import TextsConfig
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.crystal_text import CrystalTextPolicy
from crystaljax.policies.loading import load_policy
from crystaljax.rewards.base import RewardBatch
from crystaljax.text.loading import TextModelConfig
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.reinforce import ReinforceConfig, reinforce

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
import llm_sft

TEMPLATE = 'user = "A crystal of {formula}"\ncompletion = "{text}"\n'


def edge(crystals: Crystals) -> RewardBatch:
    """Rewards short edges."""
    return RewardBatch.from_values(-np.asarray(crystals.lattice[:, 0], float))


@pytest.mark.slow
def test_a_format_of_a_user_goes_all_the_way(tmp_path: Path) -> None:
    assert len(FORMAT.splitlines()) <= 40
    file = tmp_path / "mine.py"
    file.write_text(FORMAT)
    name = f"{file}:OneLine"
    template = tmp_path / "my_question.toml"
    template.write_text(TEMPLATE)
    small = llm_sft.PRESETS["small"][1]
    setup = dataclasses.replace(
        small.setup,
        texts=TextsConfig(format=name, templates=(str(template), "unconditional"), max_sites=1),
        model=dataclasses.replace(small.setup.model, small=TINY),
        generation=dataclasses.replace(small.setup.generation, max_new_tokens=24),
        n_samples=8,
        output=tmp_path / "run",
    )
    sft = dataclasses.replace(small.sft, n_epochs=1)
    llm_sft.main(dataclasses.replace(small, setup=setup, sft=sft))
    model = tmp_path / "run" / "model"
    with pytest.raises(ValueError, match=r"code and only run if you say so: give"):
        load_policy(model)
    policy, params = load_policy(model, name, model=TextModelConfig())
    assert policy.tokenization == name
    sampling = SamplingConfig(grammar=True, max_new_tokens=60)
    salt = policy.sample(params, [Condition(formula="NaCl")], 0, sampling).sequences.sequences[0]
    assert isinstance(policy, CrystalTextPolicy)
    prompt = policy.texts.tokenizer.decode([salt.tokens[: salt.n_prompt]])[0]
    assert "A crystal of" in prompt and "NaCl" in prompt
    cubic = Condition(space_group=(221, 225, 229))
    rollout = policy.sample(params, [cubic, Condition()], 0, sampling, repeat=8)
    assert rollout.met.mean() > 0.5
    assert all(";" in text for text in rollout.sequences.texts)
    np.testing.assert_allclose(policy.log_prob(params, rollout), rollout.logp_model, atol=1e-3)

    task = CrystalTask(policy, params, edge, [cubic], sampling)
    lines: list[dict[str, float]] = []
    config = ReinforceConfig(
        algorithm="grpo",
        n_steps=2,
        batch_size=16,
        group_size=8,
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=0, ema_decay=0.0),
    )
    trained = reinforce(task, params, config, tmp_path / "rl", lambda m, _: lines.append(m))
    assert len(lines) == 2
    assert np.isfinite(lines[-1]["reward/mean"])
    policy.save(tmp_path / "trained", trained)
    again, params = load_policy(tmp_path / "trained", name)
    assert again.identity == policy.identity
    assert not np.allclose(again.log_prob(params, rollout), rollout.logp_model)
