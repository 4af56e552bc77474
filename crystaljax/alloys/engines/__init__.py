"""Engines that compute phase equilibria, and the table of their results."""
