"""The cohort as a task: check it, write it as a prepared set, preview it."""
