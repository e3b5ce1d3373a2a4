"""Training as a pair of pure functions, whatever is trained."""
