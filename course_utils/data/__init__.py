"""Pictures to learn from; every loader returns float tensors in [-1, 1], (batch, channels, height, width)."""
