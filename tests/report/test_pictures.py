import numpy as np
import pytest

from gxdistill import package
from gxdistill.patching import patch_corners
from gxdistill.report import pictures
from tests.report.stages import Page, decoded


def test_distilled_images_are_drawn_pixel_by_pixel(whole):
    shown = decoded(Page(whole / "report.html").every("img")[0]).astype(int)
    pixels = 0.4 + 0.2 * np.asarray(
        package.load(whole / "package.gxd").distilled.images, np.float64
    )
    ordered = np.sort(pixels.ravel())
    low, high = (
        np.interp(q * (len(ordered) - 1), range(len(ordered)), ordered) for q in (0.01, 0.99)
    )
    grey = 255 * np.clip((pixels[0, 0, :, :, 0] - low) / (high - low), 0, 1)
    assert shown.shape == (128, 128)
    assert np.abs(shown - np.kron(grey, np.ones((8, 8)))).max() <= 0.51


@pytest.mark.parametrize("classes", [2, 3])
def test_the_heat_map_is_the_mean_over_the_relevant_patches_of_each_pixel(classes):
    rng = np.random.default_rng(3)
    corners = patch_corners((40, 33), 16, 7)
    probabilities = rng.dirichlet(np.ones(classes), len(corners))
    probabilities[4] = np.nan
    heat, share = pictures.heat_map(probabilities, corners, 16, (40, 33))
    for row in range(40):
        for col in range(33):
            over = [
                p
                for p, (r, c) in zip(probabilities, corners, strict=True)
                if r <= row < r + 16 and c <= col < c + 16
            ]
            kept = [p for p in over if not np.isnan(p[0]) and (classes == 2 or p.argmax() > 0)]
            votes = [p[-1] / (p[-1] + p[-2]) for p in kept]
            assert heat[row, col] == pytest.approx(np.mean(votes) if kept else 0, abs=1e-9)
            assert share[row, col] == pytest.approx(len(kept) / len(over) if over else 0)
