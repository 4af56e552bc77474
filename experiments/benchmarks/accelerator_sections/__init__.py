"""The sections of `accelerator.py`: measurements and comparisons, one module per section.

They import only what they measure: jax, flax, optax and numpy are enough for the networks.
"""
