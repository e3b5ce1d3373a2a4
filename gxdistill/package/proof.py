"""The proof of a replay: whether a receiver's network is the one that the sender trained."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.package import shared_values
from gxdistill.package.fields import Proof
from gxdistill.pytrees import Metadata, Network, Params

_MARGIN = 10  # Times what the last bit of the start makes of the logits.


def prove(
    network: Network, replay: Callable[[Params], Params], start: Params, shape: tuple[int, ...]
) -> Proof:
    """Measures what a replay gives: the manifest's `proof`.

    Other machines round elsewhere, and training makes more of it. How much more is measured: by a
    second replay, from a start whose last bits are another.

    Args:
      network: what is trained.
      replay: `start -> trained weights`.
      start: the weights to start from.
      shape: of a patch, `[H, W, C]`.
    """
    leaves, tree = jax.tree.flatten(start)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    signs = [jax.random.rademacher(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    nudged = [
        leaf * (1 + jnp.finfo(leaf).eps * sign) for leaf, sign in zip(leaves, signs, strict=True)
    ]
    params = replay(start)
    logits, others = (
        shared_values.probe_logits(network, trained, shape)
        for trained in (params, replay(jax.tree.unflatten(tree, nudged)))
    )
    gap = float(np.abs(logits - others).max())
    rows = tuple(map(tuple, logits.tolist()))
    return Proof(shared_values.digest(params), rows, max(_MARGIN * gap, 1e-5))


def check(proof: Proof, network: Network, params: Params, shape: tuple[int, ...]) -> Metadata:
    """Compares a network with the sender's.

    Args:
      proof: of a manifest.
      network: what was trained.
      params: its weights.
      shape: of a patch, `[H, W, C]`.

    Returns:
      `equal`: whether all bits are; `gap`: of the logits on the probe images at most; `tolerance`:
      the sender's; `proven`: whether the gap is within it.
    """
    logits, promised = shared_values.probe_logits(network, params, shape), np.array(proof.logits)
    fits = logits.shape == promised.shape
    gap = float(np.abs(logits - promised).max()) if fits else np.inf
    return {
        "equal": shared_values.digest(params) == proof.weights,
        "gap": gap if np.isfinite(gap) else None,
        "tolerance": proof.tolerance,
        "proven": bool(gap <= proof.tolerance),
    }


def describe(verdict: Metadata) -> str:
    """Describes the verdict of `check` for people."""
    if verdict["equal"]:
        return "the sender's network, bit for bit"
    gap, most = verdict["gap"], f"{verdict['tolerance']:.3g} are promised"
    if verdict["proven"]:
        return f"the sender's network: logits on the probe images differ by {gap:.3g}, {most}"
    logits = "are not comparable" if gap is None else f"differ by {gap:.3g}"
    return f"NOT the sender's network: logits on the probe images {logits}, {most}"
