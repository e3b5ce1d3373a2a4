"""How good a classifier is: of patches, of whole images, and with what uncertainty."""
