"""Texts for language models: tokens, prompts, examples, packed rows, grammars."""
