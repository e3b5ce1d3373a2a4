"""Real patches as batches: drawn by key, gathered on the device or streamed from a disk."""
