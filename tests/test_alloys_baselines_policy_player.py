"""A language model of one's own as the generator."""

from dataclasses import replace

import pytest

pytest.importorskip("qwix")
pytest.importorskip("transformers")

from flax import nnx
from small_policy import TINY
from small_text import TRIPLES, bpe

from crystaljax.alloys.baselines.policy_player import PolicyPlayer
from crystaljax.alloys.baselines.review import ReviewConfig, Verdict, review
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.policies.text import TextPolicy
from crystaljax.text.generation import GenerationConfig

CHATS = [({"role": "user", "content": text},) for text in TRIPLES[:2]]


def test_the_same_calls_give_the_same_answers() -> None:
    policy = TextPolicy(LanguageModel(replace(TINY, vocabulary=320), nnx.Rngs(0)), bpe())
    generation = GenerationConfig(max_new_tokens=6, batch_size=2)

    def player(seed: int) -> PolicyPlayer:
        return PolicyPlayer(policy, policy.start, generation, seed)

    one, same = player(3), player(3)
    calls = [[ask(CHATS), ask(CHATS)] for ask in (one, same)]
    assert calls[0] == calls[1]
    first, second = calls[0]
    assert len(first) == 2
    assert first != second
    # The prompt is the text of the chat, one message after the other.
    asked = policy.tokenizer.prompts([f"{TRIPLES[0]}\n", f"{TRIPLES[1]}\n"])
    assert first == policy.sample(policy.start, asked, 3, generation).text
    found = review(
        lambda number: CHATS[0],
        player(3),
        lambda texts: [Verdict(True, "")] * len(texts),
        2,
        ReviewConfig(at_once=2),
    )
    assert len(found.texts) == 2
