"""Baselines for trained models: random draws, search, prompted models."""
