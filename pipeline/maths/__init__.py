"""Tensors and numbers only: zero-shot probabilities, metrics, refinement. Imports core."""
