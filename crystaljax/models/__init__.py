"""Networks, and the distributions that they parametrise."""
