"""Pure image geometry: where patches lie, what they show, how they are cut.

The area rule follows Li et al., https://arxiv.org/abs/2104.02857: a patch is irrelevant outside the
organ, else it inherits the label of its image. The two shares of the rule are ours.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import _check
from gxdistill.pytrees import Cohort, PatchTable
from gxdistill.runtime import platform


def _starts(side: int, size: int, stride: int, border: bool) -> np.ndarray:
    starts = np.arange(0, side - size + 1, stride, dtype=np.int32)
    if border and starts[-1] != side - size:
        starts = np.append(starts, np.int32(side - size))
    return starts


def patch_corners(
    shape: tuple[int, ...], size: int = 299, stride: int = 50, *, border: bool = False
) -> np.ndarray:
    """Lists the upper left corners of the patches of an image, in row-major order.

    A side of L pixels gives `n(L) = (L - size) // stride + 1` positions; pixels past the last
    full patch are dropped: 2048 px gives 35 x 35 = 1225 corners and leaves 49 px uncovered.

    Args:
      shape: of the image, height and width first, in pixels.
      size: side of a patch in pixels.
      stride: distance between neighbouring corners in pixels.
      border: adds a last row and column of patches flush with the far edges where pixels would
        stay uncovered.

    Returns:
      Corners (row, col) in pixels, `[n, 2]` int32.

    Raises:
      ValueError: `size` or `stride` is not positive, or no patch fits.
    """
    _check.positive(size=size, stride=stride)
    _check.patch_fits(shape, size)
    rows = _starts(shape[0], size, stride, border)
    cols = _starts(shape[1], size, stride, border)
    return np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)


def gather_patches(
    images: jax.Array, image: jax.Array, row: jax.Array, col: jax.Array, *, size: int
) -> jax.Array:
    """Cuts one patch for each index triple out of resident images; jit-able.

    An index that reaches past an edge is moved inwards without an error, as `jax.lax.dynamic_slice`
    does: traced values cannot be checked.

    Args:
      images: `[N, H, W, C]`, any dtype.
      image: `[M]` integer, which image.
      row: `[M]` integer, upper edge in pixels.
      col: `[M]` integer, left edge in pixels.
      size: side of a patch in pixels.

    Returns:
      Patches, `[M, size, size, C]`, same dtype as `images`.
    """
    channels = images.shape[3]

    # A gather, not `lax.conv_general_dilated_patches`: that one convolves with an identity
    # kernel of (size * size)^2 entries, 32 GB for 299 px.
    def cut(i: jax.Array, r: jax.Array, c: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(images, (i, r, c, 0), (1, size, size, channels))[0]

    def cut_from_its_image(at: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        i, r, c = at
        whole = jax.lax.dynamic_index_in_dim(images, i, keepdims=False)
        return jax.lax.dynamic_slice(
            jax.lax.optimization_barrier(whole), (r, c, 0), (size, size, channels)
        )

    if platform.platform() == "tpu":
        # Patches lie in other tiles of memory than images do: a gather, a loop there, would lay all
        # images out anew for each patch.
        return jax.lax.map(cut_from_its_image, (image, row, col))
    return jax.vmap(cut)(image, row, col)


def extract_patches(
    image: jax.Array, size: int = 299, stride: int = 50, *, border: bool = False
) -> jax.Array:
    """Cuts `image` into overlapping square patches, in the order of `patch_corners`.

    Args:
      image: pixels, `[H, W, C]`, any dtype and unit; values are not changed.
      size: side of a patch in pixels.
      stride: distance between neighbouring patch corners in pixels.
      border: covers the far edges too, see `patch_corners`.

    Returns:
      Patches, `[n, size, size, C]`, same dtype as `image`.

    Raises:
      ValueError: `size` or `stride` is not positive, or no patch fits.

    References:
      Li et al., https://arxiv.org/abs/2104.02857.
    """
    corners = jnp.asarray(patch_corners(image.shape, size, stride, border=border))
    first = jnp.zeros(len(corners), jnp.int32)
    return gather_patches(image[None], first, corners[:, 0], corners[:, 1], size=size)


def view_patches(image: np.ndarray, size: int = 299, stride: int = 50) -> np.ndarray:
    """Views `image` as the grid of its patches without a copy; the NumPy twin of `extract_patches`.

    Args:
      image: pixels, `[H, W, C]`.
      size: side of a patch in pixels.
      stride: distance between neighbouring patch corners in pixels.

    Returns:
      A read-only view, `[n(H), n(W), size, size, C]`.

    Raises:
      ValueError: `size` or `stride` is not positive, or no patch fits.
    """
    _check.positive(size=size, stride=stride)
    _check.patch_fits(image.shape, size)
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))
    return np.moveaxis(windows[::stride, ::stride], 2, -1)


def organ_shares(mask: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """Computes the share of each patch that lies in the organ.

    Args:
      mask: `[H, W]` bool, True in the organ.
      corners: `[n, 2]`, (row, col) in pixels, of patches that lie within the image.
      size: side of a patch in pixels.

    Returns:
      Shares from 0 to 1, `[n]` float64.
    """
    # Column sums by band of rows, then a running sum along each band: a full summed-area table
    # costs 18 times as much on 2048 px at 299/50, most of it in memory traffic.
    tops, band = np.unique(corners[:, 0], return_inverse=True)
    heights = [mask[top : top + size].sum(0, dtype=np.int32) for top in tops]
    area = np.pad(np.cumsum(heights, axis=1, dtype=np.int64), ((0, 0), (1, 0)))
    left = corners[:, 1]
    return (area[band, left + size] - area[band, left]) / (size * size)


def patch_table(
    cohort: Cohort,
    size: int = 299,
    stride: int = 50,
    *,
    irrelevant_below: float = 0.01,
    inside_above: float = 0.85,
    border: bool = False,
) -> PatchTable:
    """Lists the patches of a cohort and their classes by the area rule.

    A patch of which at most `irrelevant_below` lies in the organ is irrelevant (class 0); one of
    which at least `inside_above` does inherits its image's label (class 1 + label); the rest
    straddle the border and are dropped. Without masks every patch inherits its image's label.

    Args:
      cohort: images, masks and labels.
      size: side of a patch in pixels.
      stride: distance between neighbouring patch corners in pixels.
      irrelevant_below: largest organ share of an irrelevant patch.
      inside_above: smallest organ share of a patch inside.
      border: covers the far edges too, see `patch_corners`.

    Returns:
      The patches in order of image, then row, then column.

    Raises:
      ValueError: no patch fits, or the two shares are out of order.
    """
    _check.share(irrelevant_below=irrelevant_below, inside_above=inside_above)
    if irrelevant_below >= inside_above:
        raise ValueError(
            f"`irrelevant_below` is {irrelevant_below}, not below `inside_above`, "
            f"{inside_above}: a patch would be both outside and inside. Lower the first."
        )
    corners = patch_corners(cohort.images.shape[1:], size, stride, border=border)
    n = len(cohort.images)
    inside, kept = np.ones((2, n, len(corners)), bool)
    for i, mask in enumerate(() if cohort.masks is None else cohort.masks):
        shares = organ_shares(mask, corners, size)
        inside[i] = shares >= inside_above
        kept[i] = inside[i] | (shares <= irrelevant_below)

    first = 0 if cohort.masks is None else 1  # with masks, class 0 is "irrelevant"
    labels = np.where(inside, first + cohort.labels[:, None], 0)
    _, patients = np.unique(cohort.patients, return_inverse=True)
    image, corner = np.nonzero(kept)
    row, col = corners[corner].T
    columns = image, row, col, labels[image, corner], patients[image]
    return PatchTable(*(column.astype(np.int32) for column in columns))
