"""Neural networks, and the distributions that they parametrise."""
