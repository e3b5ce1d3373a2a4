import numpy as np
import pytest

from gxdistill.data import intensities
from gxdistill.data.batches.resident import Normalisation
from gxdistill.package import PatchGeometry, segmenting
from tests import segmenters


@pytest.mark.parametrize("shape", [(24, 16), (5, 31)])
@pytest.mark.parametrize("flips", [False, True])
def test_each_pixel_has_the_probability_that_the_network_gives_it(shape, flips):
    segmenter = segmenters.by_level(normalisation=Normalisation((0.4,), (0.5,)), flips=flips)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 1), np.uint8)
    seen = segmenting.probabilities(segmenter, image)
    logit = (image[..., 0] / 255 - 0.4) / 0.5
    np.testing.assert_allclose(seen[..., 1], 1 / (1 + np.exp(-logit)), atol=1e-5)
    np.testing.assert_allclose(seen.sum(-1), 1, atol=1e-5)


def test_an_organ_is_found_in_an_image_of_another_size_and_brightness():
    segmenter = segmenters.by_level(
        image_normalisation="image", normalisation=Normalisation((0.5,), (0.1,))
    )
    image = np.full((72, 60), 40, np.uint8)
    image[18:54, 12:48] = 90  # Dark as it is, it is the lighter part.
    image[0, 0] = 41
    found = segmenting.organ_mask(segmenter, image)
    assert found.shape == image.shape
    assert found.dtype == bool
    wrong = found != (image > 60)
    assert wrong.mean() < 0.05  # At the edges, which were resampled.
    same = intensities.normalise(image, None, "image") > 127.5
    assert (found == same).mean() > 0.95


def test_colours_are_refused():
    three = segmenters.make(
        patch=PatchGeometry(8, 6, True, 0.0, 0.0, 24, 16, 3, 1),
        normalisation=Normalisation((0.5,) * 3, (0.2,) * 3),
    )
    with pytest.raises(ValueError, match="wants images of 3 channels; this one is grey"):
        segmenting.organ_mask(three, np.zeros((4, 4), np.uint8))
