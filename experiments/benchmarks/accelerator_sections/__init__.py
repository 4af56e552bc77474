"""The sections of `accelerator.py`: what each measures or compares, one module a section.

They import what they measure and nothing else: jax, flax, optax and numpy suffice for the networks.
"""
