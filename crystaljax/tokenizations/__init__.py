"""Tokenizations: crystals as sequences that a model predicts token by token."""
