import csv
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gxdistill import patching
from gxdistill.pytrees import Cohort
from gxdistill.runtime import platform

# height, width, size, stride: divisible or not, overlapping or with gaps, one patch only
_GRIDS = [(12, 12, 4, 4), (13, 17, 5, 3), (20, 15, 4, 7), (9, 16, 9, 2), (31, 30, 8, 1)]


def _image(height, width, channels=1, dtype=np.uint8, seed=0):
    pixels = np.random.default_rng(seed).random((height, width, channels))
    if np.issubdtype(dtype, np.integer):
        pixels *= np.iinfo(dtype).max
    return pixels.astype(dtype)


def _starts(side, size, stride, border):
    starts = [start for start in range(0, side, stride) if start + size <= side]
    if border and starts[-1] + size < side:
        starts.append(side - size)
    return starts


def _cut(image, size, stride, border):
    """The patches by a double loop over the corners."""
    return np.stack(
        [
            image[row : row + size, col : col + size]
            for row in _starts(image.shape[0], size, stride, border)
            for col in _starts(image.shape[1], size, stride, border)
        ]
    )


def _cohort(masks, labels, patients=None, shape=None):
    """A cohort of which only the geometry matters; its pixels take no memory."""
    n = len(labels)
    shape = masks.shape[1:] if shape is None else shape
    negative, positive = "negative", "positive"
    return Cohort(
        images=np.broadcast_to(np.uint8(0), (n, *shape, 1)),
        masks=masks,
        labels=np.asarray(labels, np.int32),
        patients=np.array([f"p{i}" for i in range(n)] if patients is None else patients),
        sites=np.full(n, "here"),
        splits=np.full(n, "train"),
        names=np.array([f"{i}.png" for i in range(n)]),
        class_names=(negative, positive) if masks is None else ("irrelevant", negative, positive),
    )


def test_the_papers_grid():
    corners = patching.patch_corners((2048, 2048), 299, 50)
    assert corners.dtype == np.int32
    np.testing.assert_array_equal(corners, [(50 * i, 50 * j) for i in range(35) for j in range(35)])
    assert len(corners) == 1225
    assert 2048 - (corners.max() + 299) == 49  # uncovered


def test_the_papers_grid_with_its_border():
    corners = patching.patch_corners((2048, 2048), border=True)
    starts = [*range(0, 1701, 50), 1749]
    np.testing.assert_array_equal(corners, [(row, col) for row in starts for col in starts])


@pytest.mark.parametrize(("height", "width", "size", "stride"), _GRIDS)
@pytest.mark.parametrize("border", [False, True])
def test_corners_match_a_double_loop(height, width, size, stride, border):
    rows, cols = (_starts(side, size, stride, border) for side in (height, width))
    corners = patching.patch_corners((height, width, 3), size, stride, border=border)
    assert corners.tolist() == [[row, col] for row in rows for col in cols]


@pytest.mark.parametrize(("height", "width", "size", "stride"), _GRIDS)
def test_the_border_covers_every_pixel_that_the_stride_allows(height, width, size, stride):
    covered = np.zeros((height, width), bool)
    for row, col in patching.patch_corners((height, width), size, stride, border=True):
        covered[row : row + size, col : col + size] = True
    assert covered[-1, -1]
    assert covered.all() == (stride <= size)


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_the_same_as_a_tpu_cuts_them(channels):
    images = np.stack([_image(20, 30, channels, np.uint8, seed) for seed in range(3)])
    # Inside, at the corners, and past the edges and the last image.
    at = jnp.array([[1, 3, 4], [0, 0, 0], [2, 13, 23], [1, 18, 5], [7, 2, 99]]).T

    def gather(images, at):
        return patching.gather_patches(images, *at, size=7)

    expected = jax.jit(gather)(images, at)
    with platform.planned_for("tpu"):
        patches = jax.jit(lambda *x: gather(*x))(images, at)
    np.testing.assert_array_equal(patches, expected)
    np.testing.assert_array_equal(patches[0], images[1, 3:10, 4:11])
    np.testing.assert_array_equal(patches[4], images[2, 2:9, 23:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "size", "stride"), _GRIDS[1:3])
def test_view_extraction_and_jitted_gather_agree_bit_for_bit(
    height, width, size, stride, channels, dtype
):
    images = np.stack([_image(height, width, channels, dtype, seed) for seed in range(2)])
    gather = jax.jit(patching.gather_patches, static_argnames="size")
    for border in (False, True):
        expected = _cut(images[1], size, stride, border)
        extracted = patching.extract_patches(jnp.asarray(images[1]), size, stride, border=border)
        row, col = patching.patch_corners((height, width), size, stride, border=border).T
        gathered = gather(images, np.ones(len(row), np.int32), row, col, size=size)
        for patches in (extracted, gathered):
            assert patches.dtype == dtype
            np.testing.assert_array_equal(patches, expected)

    view = patching.view_patches(images[1], size, stride)
    assert view.shape[:2] == tuple(len(_starts(n, size, stride, False)) for n in (height, width))
    assert view.dtype == dtype
    np.testing.assert_array_equal(
        view.reshape(-1, size, size, channels), _cut(images[1], size, stride, False)
    )


def test_float_bits_survive_the_cut():
    image = np.array([np.nan, np.inf, -0.0, 1e-42], np.float32).reshape(2, 2, 1)  # 1e-42: subnormal
    patches = patching.extract_patches(jnp.asarray(image), 1, 1)
    np.testing.assert_array_equal(
        np.asarray(patches).view(np.int32).ravel(), image.view(np.int32).ravel()
    )


def test_gather_takes_each_patch_from_its_own_image():
    images = np.stack([_image(16, 18, seed=seed) for seed in range(5)])
    rng = np.random.default_rng(0)
    image, row, col = rng.integers(0, [[5], [13], [15]], (3, 40))
    expected = [images[i, r : r + 4, c : c + 4] for i, r, c in zip(image, row, col, strict=True)]
    gathered = patching.gather_patches(jnp.asarray(images), image, row, col, size=4)
    np.testing.assert_array_equal(gathered, expected)


def test_extraction_can_be_jitted_vmapped_and_differentiated():
    images = np.stack([_image(9, 10, 1, np.float32, seed) for seed in range(3)])
    cut = jax.jit(jax.vmap(lambda image: patching.extract_patches(image, 4, 3)))
    np.testing.assert_array_equal(cut(images), [_cut(image, 4, 3, False) for image in images])
    # the derivative of the sum of all patches by a pixel is the number of patches that show it
    grads = jax.grad(lambda image: patching.extract_patches(image, 4, 3).sum())(images[0])
    shown = np.zeros((9, 10, 1))
    for row, col in patching.patch_corners((9, 10), 4, 3):
        shown[row : row + 4, col : col + 4] += 1
    np.testing.assert_array_equal(grads, shown)


def test_the_view_copies_nothing():
    image = _image(20, 20)
    view = patching.view_patches(image, 5, 4)
    assert np.shares_memory(view, image)
    assert not view.flags.writeable


@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize(("height", "width", "size", "stride"), _GRIDS)
def test_organ_shares_are_the_means_of_the_mask(height, width, size, stride, border):
    mask = np.random.default_rng(1).random((height, width)) < 0.3
    corners = patching.patch_corners(mask.shape, size, stride, border=border)
    expected = [patch.sum() / size**2 for patch in _cut(mask, size, stride, border)]
    np.testing.assert_array_equal(patching.organ_shares(mask, corners, size), expected)


def test_organ_shares_of_corners_in_any_order():
    mask = np.random.default_rng(2).random((40, 50)) < 0.5
    corners = np.random.default_rng(3).integers(0, [34, 44], (30, 2))
    expected = [mask[r : r + 7, c : c + 7].sum() / 49 for r, c in corners]
    np.testing.assert_array_equal(patching.organ_shares(mask, corners, 7), expected)


def test_organ_shares_of_a_full_size_image_are_exact():
    corners = patching.patch_corners((2048, 2048))
    full = patching.organ_shares(np.ones((2048, 2048), bool), corners, 299)
    np.testing.assert_array_equal(full, np.ones(1225))


def _row_of_shares(pixels, size=10):
    """A mask of one row of patches, the i-th with `pixels[i]` pixels in the organ."""
    patches = [np.arange(size * size).reshape(size, size) < count for count in pixels]
    return np.concatenate(patches, axis=1)[None]


@pytest.mark.parametrize("label", [0, 1])
def test_the_area_rule_at_its_limits(label):
    # of 100 pixels: <= 1% is irrelevant, >= 85% inside, the rest dropped
    masks = _row_of_shares([0, 1, 2, 50, 84, 85, 86, 100])
    table = patching.patch_table(_cohort(masks, [label]), 10, 10)
    np.testing.assert_array_equal(table.col, [0, 10, 50, 60, 70])
    np.testing.assert_array_equal(table.label, [0, 0, *[1 + label] * 3])


def test_both_shares_of_the_area_rule_are_settings():
    masks = _row_of_shares([0, 1, 20, 21, 59, 60, 100])
    strict = patching.patch_table(
        _cohort(masks, [1]), 10, 10, irrelevant_below=0.0, inside_above=1.0
    )
    np.testing.assert_array_equal((strict.col, strict.label), ([0, 60], [0, 2]))
    lax = patching.patch_table(_cohort(masks, [1]), 10, 10, irrelevant_below=0.2, inside_above=0.6)
    np.testing.assert_array_equal((lax.col, lax.label), ([0, 10, 20, 50, 60], [0, 0, 0, 2, 2]))


@pytest.mark.parametrize("border", [False, True])
def test_the_table_matches_a_loop_over_patches(border):
    rows, cols = np.mgrid[:60, :70]
    centres = [(30, 30), (20, 50), (45, 35), (0, 0)]
    masks = np.stack([np.hypot(rows - r, cols - c) < 22 for r, c in centres])
    labels, patients = [0, 1, 1, 0], ["zoe", "ann", "zoe", "bob"]
    expected = []
    for i, mask in enumerate(masks):
        for row in _starts(60, 8, 5, border):
            for col in _starts(70, 8, 5, border):
                share = mask[row : row + 8, col : col + 8].sum() / 64
                if share <= 0.01 or share >= 0.85:
                    label = 0 if share <= 0.01 else 1 + labels[i]
                    expected.append((i, row, col, label, sorted(set(patients)).index(patients[i])))
    table = patching.patch_table(_cohort(masks, labels, patients), 8, 5, border=border)
    assert np.stack(table, axis=1).tolist() == [list(patch) for patch in expected]
    assert all(column.dtype == np.int32 for column in table)
    assert set(table.label) == {0, 1, 2}


def test_class_counts_of_a_square_organ():
    # 20 x 20 px at rows and columns 10 .. 29 of 40 x 40: patches of 5 px, stride 5
    masks = np.zeros((2, 40, 40), bool)
    masks[:, 10:30, 10:30] = True
    table = patching.patch_table(_cohort(masks, [0, 1]), 5, 5)
    assert Counter(table.label.tolist()) == {0: 2 * (64 - 16), 1: 16, 2: 16}


def test_without_masks_every_patch_inherits_its_image():
    cohort = _cohort(None, [1, 0, 3], ["b", "a", "b"], shape=(10, 14))
    table = patching.patch_table(cohort, 4, 3)
    np.testing.assert_array_equal(table.image, np.repeat([0, 1, 2], 12))
    np.testing.assert_array_equal(table.label, np.repeat([1, 0, 3], 12))
    np.testing.assert_array_equal(table.patient, np.repeat([1, 0, 1], 12))
    corners = np.stack([table.row, table.col], axis=1)
    np.testing.assert_array_equal(corners, np.tile(patching.patch_corners((10, 14), 4, 3), (3, 1)))


@pytest.mark.parametrize("masks", [None, np.zeros((0, 12, 12), bool)])
def test_no_images_give_an_empty_table(masks):
    table = patching.patch_table(_cohort(masks, [], shape=(12, 12)), 4, 4)
    assert [len(column) for column in table] == [0] * 5


_CUTTERS = [
    patching.extract_patches,
    patching.view_patches,
    lambda image, size, stride: patching.patch_corners(image.shape, size, stride),
    lambda image, size, stride: patching.patch_table(
        _cohort(None, [0], shape=image.shape[:2]), size, stride
    ),
]


@pytest.mark.parametrize("cut", _CUTTERS)
def test_a_grid_that_cannot_be_is_refused(cut):
    image = _image(8, 10)
    with pytest.raises(ValueError, match=r"9x9 patch does not fit in an image of 8x10 pixels"):
        cut(image, 9, 1)
    with pytest.raises(ValueError, match="`size` is 0"):
        cut(image, 0, 1)
    with pytest.raises(ValueError, match="`stride` is -2"):
        cut(image, 4, -2)


def test_shares_that_cannot_be_are_refused():
    cohort = _cohort(np.zeros((1, 8, 8), bool), [0])
    with pytest.raises(ValueError, match="both outside and inside"):
        patching.patch_table(cohort, 4, 4, irrelevant_below=0.5, inside_above=0.5)
    with pytest.raises(ValueError, match="`inside_above` is 85"):
        patching.patch_table(cohort, 4, 4, inside_above=85)
    with pytest.raises(ValueError, match="`irrelevant_below` is nan"):
        patching.patch_table(cohort, 4, 4, irrelevant_below=math.nan)


def _read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def _labels(folder):
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_published_counts_of_the_tuberculosis_radiographs(data_root):
    folder = data_root / "cxr_tb_lung"
    published = {
        "train": {0: 17_201, 1: 1_873, 2: 2_296},
        "test": {0: 5_649, 1: 655, 2: 762},
    }
    entries = _labels(folder)
    for split, counts in published.items():
        chosen = [entry for entry in entries if entry["split"] == split]
        masks = np.stack([_read(folder / "masks" / f"{entry['id']}.png") for entry in chosen])
        assert masks.dtype == bool
        cohort = _cohort(masks, [int(entry["label"]) for entry in chosen])
        assert Counter(patching.patch_table(cohort, 64, 64).label.tolist()) == counts


def test_published_counts_of_the_lesion_radiographs(data_root):
    # images of many sizes; bits of a mask: 1 = lung, 2 and 4 = lesion
    folder = data_root / "cxr_hires_lesion"
    counts = Counter()
    for entry in _labels(folder):
        mask = _read(folder / "masks" / f"{entry['id']}.png")
        corners = patching.patch_corners(mask.shape, 299, 299)
        organ = patching.organ_shares((mask & 7) > 0, corners, 299)
        lesion = patching.organ_shares((mask & 6) > 0, corners, 299)
        inside = organ >= 0.85
        counts["outside"] += (organ <= 0.01).sum()
        counts["negative"] += (inside & (lesion < 0.01)).sum()
        counts["positive"] += (inside & (lesion >= 0.3)).sum()
        counts["ambiguous"] += (inside & (lesion >= 0.01) & (lesion < 0.3)).sum()
        counts["straddling"] += ((organ > 0.01) & ~inside).sum()
    assert counts == {
        "outside": 132,
        "negative": 43,
        "positive": 47,
        "ambiguous": 18,
        "straddling": 350,
    }
