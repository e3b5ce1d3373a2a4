"""The keys that a seed gives: which initial weights a package means is part of its format."""

import enum

import jax


class Use(enum.IntEnum):
    """The uses of randomness in a job; each has its key."""

    START = 0
    LOOP = 1
    KNOWN = 2
    FRESH = 3
    POOL = 4
    BASELINE = 5
    CEILING = 6
    COMPRESS = 7


def key(seed: int, use: Use) -> jax.Array:
    """Derives the typed PRNG key of one use of a job's seed."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), int(use))
