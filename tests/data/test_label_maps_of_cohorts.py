"""Cohorts whose images are in colours, and whose masks tell several classes."""

import csv

import numpy as np
import pytest
from PIL import Image

from gxdistill.data.files.reading import Recipe
from gxdistill.data.quarantine import TooManyBadError
from gxdistill.data.source import read_cohort
from gxdistill.errors import UserError

N, H, W = 6, 12, 16


class Tiles:
    """Six tiles in colours with label maps 0, 3, 7, of a patient each, without labels."""

    def __init__(self, root):
        self.root = root
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (N, H, W, 3), np.uint8)
        blocks = rng.choice(np.array([0, 3, 7], np.uint8), (N, H // 2, W // 2))
        self.labels = blocks.repeat(2, 1).repeat(2, 2)
        self.labels[0] = 0  # Nothing is in it: that is no fault.
        for i in range(N):
            self.save(f"{i}.png", self.images[i])
            self.save(f"{i}_mask.png", self.labels[i])

    def save(self, name, array, **options):
        Image.fromarray(array).save(self.root / name, **options)

    def read(self, **options):
        rows = [
            {"image": f"{i}.png", "mask": f"{i}_mask.png", "patient": f"p{i}"} for i in range(N)
        ]
        with (self.root / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        recipe = Recipe(**{"colour": True, "classes": 3, "organ": (3, 7)} | options)
        return read_cohort(self.root, "manifest.csv", label_names=(), recipe=recipe)


@pytest.fixture
def tiles(tmp_path):
    return Tiles(tmp_path)


def test_colours_and_classes_are_read_as_they_are(tiles):
    cohort = tiles.read().cohort
    np.testing.assert_array_equal(cohort.images, tiles.images)
    assert cohort.masks.dtype == np.uint8
    for number, k in ((0, 0), (3, 1), (7, 2)):
        np.testing.assert_array_equal(cohort.masks == k, tiles.labels == number)
    assert cohort.label_names == ()
    assert set(cohort.splits) == {"train", "test"}


def test_shrunken_pixels_have_the_mean_colour_and_the_class_of_most(tiles):
    cohort = tiles.read(downscale=4).cohort
    parts = tiles.images.reshape(N, H // 4, 4, W // 4, 4, 3).mean((2, 4))
    assert np.abs(cohort.images - parts).max() <= 0.5
    for i, row, col in np.ndindex(N, H // 4, W // 4):
        block = tiles.labels[i, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4]
        counts = [(block == number).sum() for number in (0, 3, 7)]
        assert counts[cohort.masks[i, row, col]] == max(counts)


def test_two_classes_are_masks_as_those_of_an_organ(tiles):
    for i in range(N):
        tiles.save(f"{i}_mask.png", tiles.labels[i] > 0)
    cohort = tiles.read(classes=2, organ=()).cohort
    np.testing.assert_array_equal(cohort.masks, (tiles.labels > 0).astype(np.uint8))


def test_colours_are_normalised_each_by_itself(tiles):
    cohort = tiles.read(normalise="image").cohort
    means = cohort.images.reshape(N, -1, 3).mean(1)
    np.testing.assert_allclose(means, 128, atol=1.5)  # As of grey images.


def test_a_grey_image_and_a_palette_are_colours_too(tiles):
    tiles.save("0.png", tiles.images[0, ..., 0])
    Image.fromarray(tiles.images[1]).quantize(16).save(tiles.root / "1.png")
    cohort = tiles.read().cohort
    grey = np.repeat(tiles.images[0, ..., :1], 3, axis=-1)
    np.testing.assert_array_equal(cohort.images[0], grey)
    shown = np.asarray(Image.open(tiles.root / "1.png").convert("RGB"))
    np.testing.assert_array_equal(cohort.images[1], shown)


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("2_mask.png", np.full((H, W), 5, np.uint8), "its labels must be 0, 3, 7"),
        ("2_mask.png", np.zeros((H, W, 3), np.uint8), "labels need a grey PNG or TIFF"),
        ("2.png", np.zeros((H, W, 4), np.uint8), "transparent pixels"),
        ("2.png", np.arange(H * W, dtype=np.uint16).reshape(H, W), "more than 8 bits"),
        ("2.png", np.zeros((H, W, 3), np.uint8), "constant image"),
    ],
)
def test_what_cannot_be_used_is_quarantined_with_its_reason(tiles, name, array, reason):
    tiles.save(name, array)
    with pytest.raises(TooManyBadError) as refusal:
        tiles.read()
    (entry,) = refusal.value.quarantine
    assert entry.name == "2.png"
    assert reason in entry.reason


@pytest.mark.parametrize("organ", [(3,), (3, 3), ("lung", "heart"), (0, 1)])
def test_each_class_needs_a_label_of_its_own(tiles, organ):
    with pytest.raises(UserError, match="need the label of each but the background"):
        tiles.read(organ=organ)
