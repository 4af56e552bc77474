"""Text formats of crystals, one module each; `tokenizations.registry` knows them by name."""
