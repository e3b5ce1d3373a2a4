"""Networks by name, each a pair of pure functions."""
