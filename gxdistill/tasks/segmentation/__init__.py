"""Segmentation: each pixel of an image gets a class."""
