"""The sections of a page, of which each task has its own list."""
