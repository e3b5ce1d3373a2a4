"""The mixup task: a server that segments mixtures, and clients that alone can un-mix them."""
