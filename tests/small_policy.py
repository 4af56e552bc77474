"""Language-model policies small enough for tests."""

from flax import nnx
from small_text import TRIPLES, words

from crystaljax.models.llm.config import LlmConfig
from crystaljax.models.llm.decoder import LanguageModel
from crystaljax.models.llm.lora import LoraConfig, add_lora
from crystaljax.policies.text import TextPolicy
from crystaljax.text.packing import TokenSequence

TINY = LlmConfig(
    vocabulary=64,
    width=16,
    mlp_width=32,
    n_layers=2,
    n_heads=2,
    n_kv_heads=1,
    head_size=8,
    max_length=128,
)


def tiny_policy(lora: LoraConfig | None = None, mesh=None) -> TextPolicy:  # type: ignore[no-untyped-def]
    """Random weights, and a tokenizer of tags, elements and digits."""
    model = LanguageModel(TINY, nnx.Rngs(0))
    if lora is not None:
        add_lora(model, lora, nnx.Rngs(1))
    return TextPolicy(model, words(), mesh)


def triples(n: int = 32) -> list[TokenSequence]:
    """Texts to learn, of two lengths of prompt."""
    texts = [TRIPLES[i % len(TRIPLES)] for i in range(n)]
    cuts = [text.index(" ") if i % 3 else 5 for i, text in enumerate(texts)]
    prompts = [text[:cut] for text, cut in zip(texts, cuts, strict=True)]
    rest = [text[cut:] for text, cut in zip(texts, cuts, strict=True)]
    return words().sequences(prompts, rest)
