"""How a crystal becomes a sequence that a model can predict token by token."""
