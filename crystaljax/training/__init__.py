"""Training loops, and what they keep on disk."""
