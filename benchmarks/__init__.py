"""Figures, each recorded with the command that measured it."""
