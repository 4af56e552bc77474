"""Engines that compute phase equilibria, and the table of what they find."""
