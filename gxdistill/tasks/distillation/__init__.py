"""Distillation as a task: learn, package, compress, measure."""
