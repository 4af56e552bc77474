"""Training loops, and their files."""
