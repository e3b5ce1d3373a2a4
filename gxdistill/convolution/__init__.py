"""Convolutions and pooling by products that a CPU is fast at, and by XLA's own elsewhere."""
