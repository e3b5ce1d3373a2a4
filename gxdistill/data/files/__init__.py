"""Reading image files of the world: pixels, masks, text that was burned in, and manifests."""
