"""Policies: what samples and scores crystals or texts."""
