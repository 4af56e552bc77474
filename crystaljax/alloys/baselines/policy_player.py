"""A local language model in place of an endpoint."""

from __future__ import annotations

from collections.abc import Sequence

from crystaljax.alloys.baselines.endpoint import Messages
from crystaljax.models.llm.token_grammar import TokenGrammar
from crystaljax.policies.text import Params, TextPolicy
from crystaljax.text.generation import GenerationConfig


class PolicyPlayer:
    """Answers chats with samples of a policy; the same sequence of calls gives the same answers.

    A model without a chat template gets the concatenated messages, as in `PromptTemplate.prompt`.
    """

    def __init__(
        self,
        policy: TextPolicy,
        params: Params,
        generation: GenerationConfig,
        seed: int = 0,
        grammar: TokenGrammar | None = None,
    ) -> None:
        self._policy, self._params = policy, params
        self._generation, self._grammar = generation, grammar
        self._seed = seed
        self._calls = 0

    def __call__(self, prompts: Sequence[Messages], /) -> list[str | None]:
        """Answers to B chats."""
        tokenizer = self._policy.tokenizer
        if self._policy.chats:
            asked = tokenizer.chat_prompts(prompts)
        else:
            asked = tokenizer.prompts(
                ["\n\n".join(message["content"] for message in chat) + "\n" for chat in prompts]
            )
        seed = self._seed + self._calls
        self._calls += 1
        drawn = self._policy.sample(
            self._params, asked, seed, self._generation, grammar=self._grammar
        )
        return [*drawn.text]
