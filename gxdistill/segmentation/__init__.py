"""Segmentation as pure functions: losses, tiles of images of any size, augmentation."""
