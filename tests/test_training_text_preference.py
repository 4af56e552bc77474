"""DPO on pairs of texts: PyTorch's loss and gradients, a cached reference, runs that resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from llm_adapters import by_key, random_adapter, slopes_by_key
from llm_reference import torch
from resuming import killed_and_resumed
from small_policy import TINY, tiny_policy, triples
from small_text import words

from crystaljax.models.llm.lora import LoraConfig
from crystaljax.policies.text import TextPolicy
from crystaljax.text.batches import TextBatches
from crystaljax.text.packing import TokenSequence
from crystaljax.training.optimizer import OptimizerConfig, TrainState
from crystaljax.training.preference import DpoConfig, make_update
from crystaljax.training.text_preference import (
    TextPreferenceConfig,
    TokenPair,
    load_pairs,
    make_pair_score,
    prefer_texts,
    save_pairs,
    split_pairs,
)

BETA, SMOOTHING, ANCHOR = 0.3, 0.1, 0.3
LORA = LoraConfig(rank=2)
QUICK = TextPreferenceConfig(
    n_epochs=2,
    batch_size=4,
    n_parts=2,
    log_every=1,
    save_every=2,
    validate_every=100,
    beta=BETA,
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0, ema_decay=0.0),
)


def random_pairs(n: int) -> list[TokenPair]:
    rng = np.random.default_rng(0)

    def pair() -> TokenPair:
        prompt = rng.integers(3, 97, rng.integers(1, 8))
        both = [rng.integers(3, 97, rng.integers(1, 12)) for _ in range(2)]
        texts = [TokenSequence(np.concatenate([prompt, x]), len(prompt)) for x in both]
        return TokenPair(*texts)

    return [pair() for _ in range(n)]


def torch_log_prob(model: Any, text: TokenSequence) -> Any:
    tokens = torch.tensor(np.asarray(text.tokens))[None]
    logp = model(tokens).logits[0, :-1].log_softmax(-1)
    return logp.gather(1, tokens[0, 1:, None])[text.n_prompt - 1 :].sum()


@pytest.mark.parametrize("n_parts", [1, 2])
def test_loss_and_gradients_are_those_of_pytorch(n_parts: int, tmp_path: Path) -> None:
    """Equation 7 of arXiv 2305.18290 with label smoothing as in TRL, and the anchor of 2404.19733.

    The reference is the base.
    """
    theirs, model = random_adapter("qwen2", tmp_path)
    pairs = random_pairs(4)
    terms = []
    for chosen, rejected in pairs:
        with torch.no_grad(), theirs.disable_adapter():
            before = torch_log_prob(theirs, chosen) - torch_log_prob(theirs, rejected)
        logits = BETA * (torch_log_prob(theirs, chosen) - torch_log_prob(theirs, rejected) - before)
        right, wrong = (torch.nn.functional.logsigmoid(x) for x in (logits, -logits))
        nll = -torch_log_prob(theirs, chosen) / (len(chosen.tokens) - chosen.n_prompt)
        terms.append(-(1 - SMOOTHING) * right - SMOOTHING * wrong + ANCHOR * nll)
    loss = torch.stack(terms).mean()
    loss.backward()

    policy = TextPolicy(model, words())
    base = jax.tree.map(jnp.zeros_like, policy.start)  # adapters that do nothing
    reference = make_pair_score(policy, 2)(base, pairs)
    batches = TextBatches(pairs, 4, 0, TINY.width, n_parts)
    optimizer = optax.sgd(1.0)

    def log_probs(params: Any, frozen: Any, rows: Any) -> Any:
        return policy.log_probs(params, frozen, rows, batches.n_sequences)

    update = make_update(log_probs, optimizer, DpoConfig(BETA, SMOOTHING, ANCHOR), 0.0)
    known = jnp.asarray(reference[batches.chosen(0)].reshape(n_parts, -1))
    state = TrainState.create(policy.start, optimizer)
    after, metrics = update(state, policy.frozen, batches.packed(0), known)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    gradient = jax.tree.map(lambda a, b: a - b, policy.start, after.params)
    expected = slopes_by_key(theirs)
    for key, value in by_key(gradient).items():
        np.testing.assert_allclose(value, expected[key], atol=2e-5)


def triple_pairs(n: int = 20) -> list[TokenPair]:
    """Triples preferred to their first halves."""
    return [
        TokenPair(
            text, TokenSequence(text.tokens[: (len(text.tokens) + text.n_prompt) // 2 + 1], 1)
        )
        for text in triples(n)
    ]


def test_accuracy_rises_and_the_reference_is_computed_once(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    config = dataclasses.replace(QUICK, n_epochs=6)
    policy, pairs = tiny_policy(LORA), triple_pairs()
    prefer_texts(policy, pairs, pairs, config, tmp_path, lambda m, _: lines.append(m))
    assert lines[0]["train/loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert lines[-1]["validation/accuracy"] > 0.9
    assert lines[-1]["validation/loss"] < 0.65
    with np.load(tmp_path / "reference.npz") as kept:
        known = kept["logp"]
    expected = make_pair_score(policy, 3)(policy.start, pairs)
    np.testing.assert_allclose(known[: len(pairs)], expected, atol=1e-4)
    with pytest.raises(ValueError, match="other pairs or another reference"):
        prefer_texts(policy, pairs[::-1], pairs, config, tmp_path, lambda *_: None)


@pytest.mark.slow
def test_a_resumed_run_has_the_same_losses(tmp_path: Path) -> None:
    def run(folder: Path, track: Any) -> None:
        def some(metrics: dict[str, Any], step: int) -> None:
            track({k: v for k, v in metrics.items() if "per_second" not in k}, step)

        pairs = triple_pairs()
        prefer_texts(tiny_policy(LORA), pairs, pairs[:4], QUICK, folder, some)

    whole, first, second = killed_and_resumed(run, tmp_path, stop_after=5)
    assert sorted(second) == [5, 6, 7, 8, 9, 10]  # step 5 was tracked but not saved
    assert first | second == whole


def test_pairs_of_a_prompt_stay_together() -> None:
    pairs = [pair for pair in random_pairs(10) for _ in range(3)]
    rows, held = split_pairs(pairs, 0.2, 0)
    assert len(held) == 6
    assert sorted([*rows, *held]) == list(range(30))
    prompts = [pair.chosen.tokens[: pair.chosen.n_prompt].tobytes() for pair in pairs]
    assert not {prompts[i] for i in rows} & {prompts[i] for i in held}
    one = [pairs[0]] * 4
    assert [len(x) for x in split_pairs(one, 0.1, 0)] == [3, 1]
    with pytest.raises(ValueError, match="1 pairs: one to learn"):
        split_pairs(one[:1], 0.1, 0)


def test_pairs_come_back(tmp_path: Path) -> None:
    pairs = random_pairs(5)
    save_pairs(tmp_path / "pairs.npz", pairs)
    jax.tree.map(np.testing.assert_array_equal, load_pairs(tmp_path / "pairs.npz"), pairs)
