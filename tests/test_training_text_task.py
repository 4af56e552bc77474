"""Reinforcement and preference learning of language models: optima, and runs that resume."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from resuming import killed_and_resumed
from small_policy import TINY, tiny_policy
from small_text import words
from token_problem import distance, tilted

from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.lora import LoraConfig
from crystaljax.models.llm.token_grammar import TokenGrammar, from_table
from crystaljax.policies.text import TextPolicy
from crystaljax.rewards.base import RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.rewards.completions import Completion
from crystaljax.text.generation import GenerationConfig
from crystaljax.text.packing import Rows, TokenSequence, pack_texts
from crystaljax.training.optimizer import OptimizerConfig
from crystaljax.training.preference import PreferenceConfig, prefer
from crystaljax.training.reinforce import ReinforceConfig, reinforce
from crystaljax.training.rollouts import Clock
from crystaljax.training.text_task import Prompt, TextTask

WIDE = RewardBounds(invalid=-5.0, low=-5.0, high=5.0)
DIGITS = "0123"


def digit_reward(answers: Sequence[Completion]) -> RewardBatch:
    """Texts of digits are worth the share of 3s; others cannot be judged."""
    value = [x.text.count("3") / 2 if x.text else 0.0 for x in answers]
    reasons = [None if set(x.text) <= set(DIGITS) else "not of digits" for x in answers]
    return RewardBatch.from_values(np.array(value), reasons=reasons)


def two_digits(policy: TextPolicy) -> TokenGrammar:
    """A grammar of two digits, then the end."""
    digits = [int(tokens[0]) for tokens in policy.tokenizer.encode(list(DIGITS))]
    next_state = np.full((3, policy.config.vocabulary), -1)
    next_state[0, digits] = 1
    next_state[1, digits] = 2
    return from_table(next_state, np.array([False, False, True]))


def prompts(policy: TextPolicy, *texts: str) -> list[Prompt]:
    return [Prompt(tokens) for tokens in policy.tokenizer.prompts(list(texts))]


def task_of(policy: TextPolicy, n_parts: int = 1, **options: Any) -> TextTask:
    generation = GenerationConfig(max_new_tokens=3, batch_size=64)
    asked = prompts(policy, "<BCC>", "<B2>")
    return TextTask(policy, asked, digit_reward, generation, WIDE, n_parts=n_parts, **options)


def test_rollouts_are_scored_as_they_were_sampled() -> None:
    policy = tiny_policy(LoraConfig(rank=2))
    task = task_of(policy, n_parts=2)
    rollout = task.rollout(policy.start, 16, 3, Clock(), repeat=4)
    assert len(rollout.samples) == 16
    assert len(set(rollout.prompt[:4])) == 1
    assert len(set(rollout.prompt)) == 2
    parts = task.parts(rollout.samples, np.arange(16))
    logp, is_action = jax.vmap(lambda part: task.log_probs(policy.start, policy.frozen, part, 8))(
        parts
    )
    drawn = policy.sample(
        policy.start,
        [task.prompts[i].tokens for i in rollout.prompt[::4]],
        3,
        task.generation,
        4,
    )
    expected = drawn.logp_model.sum(axis=1)
    np.testing.assert_allclose(np.asarray(logp.sum(-1)).ravel(), expected, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(is_action.sum(-1)).ravel(), drawn.length)
    again = task.rollout(policy.start, 16, 3, Clock(), repeat=4)
    np.testing.assert_array_equal(again.reward, rollout.reward)


def test_what_is_trained_on_ends_with_the_stop_string() -> None:
    """The text judged is without it; a policy that is rewarded for it learns to write it."""
    policy, judged = tiny_policy(), []

    def reward(answers: Sequence[Completion]) -> RewardBatch:
        judged.extend(answers)
        return RewardBatch.from_values(np.ones(len(answers)))

    generation = GenerationConfig(max_new_tokens=40, stop=("0", "1"))
    task = TextTask(policy, prompts(policy, "<BCC>"), reward, generation)
    samples = task.rollout(policy.start, 16, 0, Clock()).samples
    last = {int(policy.tokenizer.encode([text])[0][0]): text for text in generation.stop}
    stopped = [i for i, sample in enumerate(samples) if int(sample.tokens[-1]) in last]
    assert len(stopped) > 3
    for i in stopped:
        (text,) = policy.tokenizer.decode([samples[i].tokens[samples[i].n_prompt :]])
        assert text == judged[i].text + last[int(samples[i].tokens[-1])]
        assert not set(judged[i].text) & set("01")
        assert judged[i].whole


def two_digit_probabilities(policy: TextPolicy, params: Any) -> np.ndarray:
    """Of all two-digit texts, given that it is one."""
    texts = ["".join(pair) for pair in itertools.product(DIGITS, repeat=2)]
    sequences = policy.tokenizer.sequences(["<BCC>"] * len(texts), texts)
    rows = pack_texts([TokenSequence(*s) for s in sequences], (Rows(len(texts), 8),))
    logp, _ = policy.log_probs(params, policy.frozen, rows, len(texts))
    p = np.exp(np.asarray(logp, np.float64).sum(axis=1))
    return p / p.sum()


@pytest.mark.slow
def test_ppo_reaches_the_closed_form_optimum(tmp_path: Path) -> None:
    """p ∝ p_base exp(r/τ) over two-digit texts: others are never sampled."""
    policy = TextPolicy(LanguageModel(TINY, nnx.Rngs(0)), words())
    grammar = two_digits(policy)
    task = TextTask(
        policy,
        prompts(policy, "<BCC>"),
        digit_reward,
        GenerationConfig(max_new_tokens=3, batch_size=256),
        WIDE,
        grammar,
    )
    texts = ["".join(pair) for pair in itertools.product(DIGITS, repeat=2)]
    reward = np.array([text.count("3") / 2 for text in texts])
    tau = 0.5
    base = two_digit_probabilities(policy, policy.start)
    config = ReinforceConfig(
        n_steps=60,
        batch_size=256,
        tau=tau,
        save_every=1000,
        optimizer=OptimizerConfig(
            learning_rate=5e-3, schedule="linear", warmup_steps=0, weight_decay=0.0, ema_decay=0.0
        ),
    )
    params = reinforce(task, policy.start, config, tmp_path, lambda *_: None)
    optimum = tilted(base, reward, tau)
    assert distance(base, optimum) > 0.15
    assert distance(two_digit_probabilities(policy, params), optimum) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_resumed_run_has_the_same_metrics(tmp_path: Path, algorithm: Any) -> None:
    policy = tiny_policy(LoraConfig(rank=2))
    config = ReinforceConfig(
        algorithm=algorithm,
        n_steps=4,
        batch_size=16,
        group_size=4,
        save_every=1,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0, ema_decay=0.0),
    )

    def run(folder: Path, track: Any) -> None:
        reinforce(task_of(policy, n_parts=2), policy.start, config, folder, track)

    whole, first, second = killed_and_resumed(run, tmp_path, stop_after=3)
    assert sorted(second) == [3, 4]  # step 3 was tracked but not saved
    assert first | second == whole
    assert whole[1]["rl/kl_base"] == pytest.approx(0, abs=1e-4)


def test_grpo_finds_the_best(tmp_path: Path) -> None:
    policy = tiny_policy()
    lines: list[dict[str, float]] = []
    config = ReinforceConfig(
        algorithm="grpo",
        n_steps=25,
        batch_size=64,
        group_size=16,
        tau=0.0,
        save_every=1000,
        optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=0, ema_decay=0.0),
    )
    grammar = two_digits(policy)
    task = task_of(policy, grammar=grammar)
    reinforce(task, policy.start, config, tmp_path, lambda m, _: lines.append(m))
    assert lines[0]["reward/mean"] < 0.4
    assert lines[-1]["reward/mean"] > 0.9


@pytest.mark.slow
def test_iterated_dpo_on_texts_resumes(tmp_path: Path) -> None:
    policy = tiny_policy(LoraConfig(rank=2))
    grammar = two_digits(policy)
    config = PreferenceConfig(
        n_iterations=3,
        n_samples=32,
        group_size=8,
        batch_size=4,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0, ema_decay=0.0),
        temperature_step=0.1,
    )

    def run(folder: Path, track: Any) -> None:
        task = task_of(policy, n_parts=2, grammar=grammar)
        prefer(task, policy.start, config, folder, track)

    whole, first, second = killed_and_resumed(run, tmp_path, stop_after=2)
    assert sorted(second) == [2, 3]
    assert first | second == whole
    assert whole[3]["samples/temperature"] == pytest.approx(1.2)
    assert whole[3]["reward/mean"] > whole[1]["reward/mean"]


def test_what_cannot_be_split_or_asked() -> None:
    policy = tiny_policy()
    with pytest.raises(ValueError, match="no prompts: give at least one"):
        TextTask(policy, [], digit_reward)
    with pytest.raises(ValueError, match="batches of 10 samples cannot be split into 4"):
        reinforce(
            task_of(policy, n_parts=4),
            policy.start,
            ReinforceConfig(batch_size=10),
            Path("nowhere"),
            lambda *_: None,
        )
