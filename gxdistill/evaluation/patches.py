"""How good trained networks are: patch predictions, whole images, intervals."""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import models
from gxdistill.data.batches.resident import Normalisation
from gxdistill.evaluation import decision, metrics
from gxdistill.patching import gather_patches, patch_corners
from gxdistill.pytrees import Cohort, Metadata, Network, Params, PatchTable
from gxdistill.runtime import platform

# Patches of one forward pass, which bound the memory whatever the images' size. Where a pass takes
# more than a CPU's cache, half of the time goes into fresh pages of memory.
_CHUNK, _CHUNK_OF_CPU = 512, 64
_BLOCK_BYTES = 1 << 28  # Of images on the device at once.
_WINDOWS = 64  # Most patches at once of a network that shares what they have in common.

Score = Callable[[np.ndarray], np.ndarray]  # `decision.score` of one network, all else given.


class PatchGrid(NamedTuple):
    """Where the patches of every image of a cohort lie, and what they look like to a network.

    Attributes:
      size: side of a patch in pixels.
      stride: distance between neighbouring corners in pixels.
      border: whether the far edges are covered, see `patching.patch_corners`.
      normalise: applied to the patches.
    """

    size: int
    stride: int
    border: bool
    normalise: Normalisation

    def corners(self, cohort: Cohort) -> np.ndarray:
        """Lists the corners of one image, `[n, 2]` int32."""
        return patch_corners(cohort.images.shape[1:], self.size, self.stride, border=self.border)


@cache  # The options ask for the backend, which a module that is imported must not.
def _compiled() -> jax.stages.Wrapped:
    static = ("network", "size", "normalise")
    return jax.jit(_forward, static_argnames=static, compiler_options=models.compiler_options())


def _forward(
    network: Network,
    params: Params,
    images: jax.Array,
    where: tuple[jax.Array, jax.Array, jax.Array],
    *,
    size: int,
    normalise: Normalisation,
) -> jax.Array:
    patches = normalise(gather_patches(images, *where, size=size))
    # One after another: `vmap` over networks makes grouped convolutions, slow on a CPU.
    return jax.lax.map(lambda p: jax.nn.softmax(network.apply(p, patches)), params)


@cache
def _compiled_windows() -> jax.stages.Wrapped:
    static = ("apply_windows", "size", "at_once", "normalise")
    options = models.compiler_options()
    return jax.jit(_forward_windows, static_argnames=static, compiler_options=options)


def _forward_windows(
    apply_windows: Callable[..., jax.Array],
    params: Params,
    images: jax.Array,
    corners: jax.Array,
    *,
    size: int,
    at_once: int,
    normalise: Normalisation,
) -> jax.Array:
    def of_one(params: Params, image: jax.Array) -> jax.Array:
        return jax.nn.softmax(apply_windows(params, normalise(image), corners, size, at_once))

    return jax.lax.map(lambda p: jax.lax.map(partial(of_one, p), images), params)


def predict(
    network: Network, params: Params, cohort: Cohort, grid: PatchGrid, *, chunk: int | None = None
) -> np.ndarray:
    """Predicts the class of every patch of every image; needs no mask.

    Args:
      network: what predicts.
      params: weights of R networks, each leaf with a leading axis R.
      cohort: the images.
      grid: where patches lie.
      chunk: patches of one forward pass, of a network that computes each by itself; None takes
        what suits the device.

    Returns:
      Probabilities, `[R, n_images, n_patches, K]` float32.
    """
    chunk = chunk or (_CHUNK_OF_CPU if platform.platform() == "cpu" else _CHUNK)
    images, n = cohort.images, len(cohort.images)
    some = max(1, min(n, _BLOCK_BYTES * n // images.nbytes))
    blocks = []
    for begin in range(0, n, some):
        first = min(begin, n - some)  # the last block overlaps: one program serves all
        block = np.asarray(images[first : first + some])
        corners = grid.corners(cohort)
        probabilities = _predict_block(network, params, block, corners, grid=grid, chunk=chunk)
        blocks.append(probabilities[:, begin - first :])
    return np.concatenate(blocks, axis=1)


def _predict_block(
    network: Network,
    params: Params,
    block: np.ndarray,
    corners: np.ndarray,
    *,
    grid: PatchGrid,
    chunk: int,
) -> np.ndarray:
    # Where four patches or more lie over a pixel; a pair of pixels that is pooled must lie in both.
    if network.apply_windows and 2 * grid.stride <= grid.size and not (corners % 2).any():
        return _predict_windows(network.apply_windows, params, block, corners, grid=grid)
    count = len(block) * len(corners)
    image = np.repeat(np.arange(len(block), dtype=np.int32), len(corners))
    row, col = np.tile(corners, (len(block), 1)).T
    images = jnp.asarray(block)
    parts = []
    for begin in range(0, count, chunk):
        # The last chunk repeats the last patch, so that one program serves all chunks.
        chosen = np.minimum(np.arange(begin, begin + chunk), count - 1)
        where = (image[chosen], row[chosen], col[chosen])
        fixed = {"size": grid.size, "normalise": grid.normalise}
        part = _compiled()(network, params, images, where, **fixed)
        parts.append(np.asarray(part))
    flat = np.concatenate(parts, axis=1)[:, :count]
    return flat.reshape(len(flat), len(block), len(corners), -1)


def _predict_windows(
    apply_windows: Callable[..., jax.Array],
    params: Params,
    block: np.ndarray,
    corners: np.ndarray,
    *,
    grid: PatchGrid,
) -> np.ndarray:
    count = len(corners)
    parts = math.ceil(count / _WINDOWS)
    at_once = math.ceil(count / parts)
    filled = corners[np.minimum(np.arange(parts * at_once), count - 1)]
    fixed = {"size": grid.size, "at_once": at_once, "normalise": grid.normalise}
    probabilities = _compiled_windows()(
        apply_windows, params, jnp.asarray(block), jnp.asarray(filled), **fixed
    )
    return np.asarray(probabilities)[:, :, :count]


def table_predictions(
    probabilities: np.ndarray, table: PatchTable, corners: np.ndarray
) -> np.ndarray:
    """Looks the predicted classes of a table's patches up in the predictions of the whole grid.

    Args:
      probabilities: `[n_images, n_patches, K]`, from `predict`.
      table: patches, all of which lie on the grid.
      corners: of the grid, `[n_patches, 2]`.

    Returns:
      Predicted classes, `[M]`.
    """
    place = {tuple(corner): i for i, corner in enumerate(corners.tolist())}
    patch = [place[corner] for corner in zip(table.row.tolist(), table.col.tolist(), strict=True)]
    return probabilities[table.image, patch].argmax(axis=-1)


def spread(values: list[float]) -> Metadata:
    """Summarises one figure of several networks: mean, sample standard deviation, number."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "n": len(values)}


def patch_accuracy(
    probabilities: np.ndarray, table: PatchTable, corners: np.ndarray
) -> dict[str, Metadata]:
    """Measures how many patches are told right: `[R, n_images, n_patches, K]`.

    Returns:
      Over the R networks, as `spread` does: `balanced_patch_accuracy`, the mean recall over the
      classes, and `accuracy`, the share of all patches.
    """
    classes = probabilities.shape[-1]
    predicted = [
        table_predictions(classes_of_patches, table, corners)
        for classes_of_patches in probabilities
    ]
    balanced = [
        metrics.balanced_accuracy(classes_of_patches, table.label, classes)
        for classes_of_patches in predicted
    ]
    plain = [float((classes_of_patches == table.label).mean()) for classes_of_patches in predicted]
    return {"balanced_patch_accuracy": spread(balanced), "accuracy": spread(plain)}


def image_scores(probabilities: np.ndarray, score: Score) -> np.ndarray:
    """Scores whole images: `[R, n_images, n_patches, K]` -> `[R, n_images]`, see `decision`."""
    return np.stack([score(of_network) for of_network in probabilities])


def joint_scores(probabilities: np.ndarray, score: Score) -> np.ndarray:
    """Scores whole images by R networks together, from the mean of their probabilities.

    Fresh networks lean to one class or the other, each by its own amount: one threshold suits them
    together, not each of them.

    Returns:
      `[1, n_images]`, as the scores of one network.
    """
    return image_scores(probabilities.mean(axis=0, keepdims=True), score)


def whole_images(scores: np.ndarray, cohort: Cohort, tau: float | np.ndarray) -> Metadata:
    """Measures decisions on whole images.

    Args:
      scores: `[R, n_images]`, of R networks.
      cohort: whose labels and patients they are.
      tau: threshold, one for all networks or `[R]`, one for each; NaN for a network that has none,
        of which only the undecidable images are counted.

    Returns:
      For each of sen, spe, hm and auc the mean and standard deviation over the networks and the
      95% bootstrap interval over patients, averaged over the networks; undecidable images a
      network; the mean tau. None where no network has that figure.
    """
    taus = np.broadcast_to(tau, len(scores))
    parts = [
        decision.summarise(of_network, cohort.labels, float(threshold), patients=cohort.patients)
        for of_network, threshold in zip(scores, taus, strict=True)
        if not np.isnan(threshold)
    ]
    out: dict[str, object] = {"images": len(cohort.labels)}
    out["tau"] = float(np.nanmean(taus)) if parts else None
    out["undecidable"] = float(np.isnan(scores).sum(axis=1).mean())
    for name in ("sen", "spe", "hm", "auc"):
        known = [part[name] for part in parts if part[name]["value"] is not None]
        if not known:
            out[name] = None
            continue
        out[name] = {
            **spread([figure["value"] for figure in known]),
            "low": float(np.mean([figure["low"] for figure in known])),
            "high": float(np.mean([figure["high"] for figure in known])),
        }
    return out
