"""Baselines of trained models: random draws, search, prompted models."""
