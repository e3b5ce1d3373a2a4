"""What a hospital could send in place of mixtures, and how it is segmented then."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.data.volumes import Volumes
from gxdistill.evaluation.similarity import size_of_similarity, ssim
from gxdistill.mixup import proxies
from gxdistill.mixup.mixing import draw_shares, mix
from gxdistill.package import seeds
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Params
from gxdistill.tasks.mixup import training
from gxdistill.tasks.mixup.comparing import Trainer

AT_ONCE = 16  # Slices of a call of a network.
_MOST_NOISE = 4.0  # Deviation, in units of the range of levels.
_MOST_DEFORMED = 0.03  # Share of the side: beyond, fields fold and cannot be undone.
_FEW = 64  # Slices by which sizes are chosen.

Segment = Callable[[np.ndarray], np.ndarray]  # Images [S, H, W, 1] -> an array [S, H, W, ...].


class Contender(NamedTuple):
    """A way of having test patients segmented.

    Attributes:
      masks: `[P, S, H, W]` classes.
      sent: what a server sees, `[P, S, H, W]` float.
    """

    masks: np.ndarray
    sent: np.ndarray


def in_batches(segment: Segment, images: np.ndarray) -> np.ndarray:
    """Applies a network to any number of slices, a few at a time."""
    parts = [segment(images[at : at + AT_ONCE]) for at in range(0, len(images), AT_ONCE)]
    return np.concatenate(parts)


def compiled(apply: Callable[[Params, jax.Array], jax.Array], params: Params) -> Segment:
    """Compiles a network for a fixed number of slices, which fewer are filled up to."""
    program = jax.jit(apply)

    def segment(images: np.ndarray) -> np.ndarray:
        filled = np.pad(images, ((0, AT_ONCE - len(images)), *[(0, 0)] * 3))
        return np.asarray(program(params, filled))[: len(images)]

    return segment


def similarity_of_mixtures(trainer: Trainer) -> float:
    """Returns the mean SSIM of training slices and their mixtures with the references."""
    cohort, key = trainer.cohort, seeds.key(trainer.config.seed, Use.START)
    few, at = _few(cohort.private)
    rows = np.arange(len(at)) % len(cohort.pool.images)
    references = jnp.asarray(cohort.pool.images[rows, at] / np.float32(255))
    shares = draw_shares(key, len(at), training.law_of(trainer.config))
    return float(ssim(mix(few, references, shares), few).mean())


def raw_images(trainer: Trainer) -> Contender:
    """Segments raw images, the upper bound.

    Raises:
      UserError: the training diverged.
    """
    params = trainer.segmentation("raw images", lambda _, images, labels: (images, labels))
    sent = _test_images(trainer)
    return Contender(_masks(trainer, params, sent), sent)


def noise(trainer: Trainer, similarity: float) -> Contender:
    """Segments images under Gaussian noise by a network that was trained on such.

    Args:
      trainer: of the network.
      similarity: mean SSIM of what is sent and the raw images.

    Raises:
      UserError: the training diverged.
    """
    key = seeds.key(trainer.config.seed, Use.START)
    few, _ = _few(trainer.cohort.private)
    size = size_of_similarity(
        lambda size: proxies.add_noise(key, few, jnp.float32(size)), few, similarity, _MOST_NOISE
    )

    def change(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        return proxies.add_noise(key, images, jnp.float32(size)), labels

    params = trainer.segmentation("noise", change, size)
    sent = np.asarray(proxies.add_noise(key, jnp.asarray(_test_images(trainer)), jnp.float32(size)))
    return Contender(_masks(trainer, params, sent), sent)


def deformation(trainer: Trainer, similarity: float) -> Contender:
    """Segments deformed images by a network that was trained on such, and undoes the deformation.

    All slices of a patient have one field. Fields fold where they are too large: that bounds how
    little alike the images can be made.

    Args and errors are those of `noise`.
    """
    key, shape = seeds.key(trainer.config.seed, Use.START), trainer.cohort.shape[:2]
    few, _ = _few(trainer.cohort.private)

    def deformed(size: float) -> jax.Array:
        return proxies.warp(few, proxies.draw_field(key, len(few), shape, jnp.float32(size)))

    size = size_of_similarity(deformed, few, similarity, _MOST_DEFORMED)

    def change(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        fields = proxies.draw_field(key, len(images), shape, jnp.float32(size))
        return proxies.warp(images, fields), proxies.warp(labels, fields, order=0)

    params = trainer.segmentation("deformation", change, size)
    raw = _test_images(trainer)
    fields = proxies.draw_field(key, len(raw), shape, jnp.float32(size))
    sent = _warp_volumes(raw, fields, order=1)
    masks = _masks(trainer, params, sent)
    return Contender(_warp_volumes(masks, proxies.inverse(fields), order=0), sent)


def _warp_volumes(volumes: np.ndarray, fields: jax.Array, *, order: int) -> np.ndarray:
    """Warps all slices of a volume by its field, `[P, S, H, W]` by `[P, 2, H, W]`."""

    @jax.jit
    def warp(slices: jax.Array, field: jax.Array) -> jax.Array:
        same = jnp.broadcast_to(field, (len(slices), *field.shape))
        return proxies.warp(slices, same, order=order)

    return np.stack([np.asarray(warp(*pair)) for pair in zip(volumes, fields, strict=True)])


def _test_images(trainer: Trainer) -> np.ndarray:
    return trainer.cohort.test.images / np.float32(255)


def _few(volumes: Volumes) -> tuple[jax.Array, np.ndarray]:
    """Takes some slices that are not black, `[N, H, W]` from 0 to 1, and their places."""
    rows, at = np.nonzero(volumes.images.any((2, 3)))
    taken = np.linspace(0, len(rows) - 1, _FEW).astype(int)
    rows, at = rows[taken], at[taken]
    return jnp.asarray(volumes.images[rows, at] / np.float32(255)), at


def _masks(trainer: Trainer, params: Params, sent: np.ndarray) -> np.ndarray:
    segment = compiled(trainer.segmenter.apply, params)
    return np.stack([in_batches(segment, slices[..., None]).argmax(-1) for slices in sent])
