"""A small model for tests, of few seconds to compile."""

from crystaljax.models.wyckoff.transformer import ModelConfig

SMALL = ModelConfig(
    n_layers=2,
    n_heads=2,
    head_size=8,
    width=16,
    embedding=8,
    first_letter_hidden=16,
    n_von_mises=4,
    n_gaussians=2,
    max_sites=6,
)
