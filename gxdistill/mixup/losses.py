"""The loss of both networks together: of the mixture, the target and the reference."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gxdistill.mixup.mixing import mix
from gxdistill.mixup.unmixing import Apply, Reference, unmix
from gxdistill.pytrees import Params


class Pair(NamedTuple):
    """Private images and the public ones that they are mixed with.

    Attributes:
      images: of the targets, `[N, H, W, C]` float32.
      labels: of their pixels, `[N, H, W]` int32.
      reference: images, labels and lambda.
    """

    images: jax.Array
    labels: jax.Array
    reference: Reference

    def swapped(self) -> "Pair":
        """Returns the same mixtures, seen by one who knows the targets and seeks the references."""
        reference = self.reference
        known = Reference(self.images, self.labels, 1 - reference.share)
        return Pair(reference.images, reference.labels, known)


class Weights(NamedTuple):
    """What the parts of the loss weigh.

    Attributes:
      mixture: cross-entropy of the server's answer to the mixture of both segmentations.
      target: half Dice, half cross-entropy of the un-mixed target.
      reference: the same of the reference, un-mixed by the same network with the target known:
        what it learns of one side serves the other.
    """

    mixture: float = 1.0
    target: float = 1.0
    reference: float = 0.5


class Networks(NamedTuple):
    """The functions of both networks.

    Attributes:
      segment: the server's, `(params, images) -> logits [N, H, W, K]`.
      unmix: the client's, see `unmixing.unmix`.
    """

    segment: Apply
    unmix: Apply


def soft_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Averages -sum_k t_k log p_k over pixels: `[N, H, W, K]`, the same -> scalar."""
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1))


def mixup_loss(
    networks: Networks, params: Params, pair: Pair, segmentation_loss: Apply, weights: Weights
) -> jax.Array:
    """Computes the loss of both networks on mixtures, from end to end.

    Args:
      networks: their functions.
      params: `{"segmenter": ..., "unmixer": ...}`.
      pair: targets with their references and shares.
      segmentation_loss: `(logits [N, H, W, K], labels [N, H, W]) -> scalar`.
      weights: of the parts.

    Returns:
      Scalar.
    """
    reference = pair.reference
    mixture = mix(pair.images, reference.images, reference.share)
    logits = networks.segment(params["segmenter"], mixture)
    classes = logits.shape[-1]
    sought, known = (jax.nn.one_hot(x, classes) for x in (pair.labels, reference.labels))
    of_mixture = soft_cross_entropy(logits, mix(sought, known, reference.share))
    answer = jax.nn.softmax(logits, axis=-1)

    def recovered(sought: Pair) -> jax.Array:
        logits = unmix(networks.unmix, params["unmixer"], answer, sought.reference)
        return segmentation_loss(logits, sought.labels)

    loss = weights.mixture * of_mixture + weights.target * recovered(pair)
    if not weights.reference:
        return loss
    return loss + weights.reference * recovered(pair.swapped())
