"""The shape of Qwen2.5-7B, for memory counted from shapes."""

from crystaljax.models.llm.config import LlmConfig

QWEN_7B = LlmConfig(
    family="qwen2",
    vocabulary=152_064,
    width=3584,
    mlp_width=18_944,
    n_layers=28,
    n_heads=28,
    n_kv_heads=4,
    head_size=128,
    max_length=32_768,
    attention_bias=True,
    tied=False,
)
