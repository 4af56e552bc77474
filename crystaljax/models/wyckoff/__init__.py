"""The Wyckoff transformer: network, likelihood, sampler, constraints."""
