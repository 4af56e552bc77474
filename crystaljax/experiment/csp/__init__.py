"""A study of crystal structure prediction."""
