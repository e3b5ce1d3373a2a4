"""Mixing images that are to stay private, and un-mixing what a network said of the mixture."""
