"""The tasks, one wing each: composition of what lies below, and nothing of each other."""
