"""Crystal structure prediction: formulas in, ranked structures out."""
