import numpy as np
import pytest
from PIL import Image

from gxdistill.data.files import images
from gxdistill.data.files.grey import BadEntryError

ORGAN = np.zeros((40, 48), bool)
ORGAN[8:30, 10:40] = True
ORGAN[20:30, 25:40] = False


def _channels(*channels):
    return np.dstack(channels).astype(np.uint8)


def _alpha(colour, hidden):
    return np.dstack([np.where(ORGAN, colour, hidden)] * 3 + [ORGAN * 255]).astype(np.uint8)


def _palette(first, second, **options):
    image = Image.fromarray(ORGAN.astype(np.uint8), "L").convert("P")
    image.putdata(ORGAN.ravel().astype(np.uint8).tolist())
    image.putpalette([*first, *second])
    return image, options


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)
SOFT = np.asarray(Image.fromarray(ORGAN * np.uint8(255)).resize((96, 80), Image.Resampling.BICUBIC))

READ = {
    "white on transparent white": _alpha(255, 255),
    "white on transparent black": _alpha(255, 0),
    "grey and alpha": np.dstack([np.full_like(ORGAN, 255, np.uint8), ORGAN * np.uint8(255)]),
    "palette": _palette(BLACK, RED),
    "palette, white transparent": _palette(WHITE, RED, transparency=0),
    "float": ORGAN.astype(np.float32),
}
REFUSED = {
    "probabilities": (np.where(ORGAN, 0.98, 0.02).astype(np.float32), "fractions"),
    "soft": (np.where(ORGAN, 250, 5).astype(np.uint8), r"no background 0 .* 2 values \(5, 250\)"),
    "labels from 1": (ORGAN + np.uint8(1), r"no background 0 .*\(1, 2\)"),
    "void": (np.where(ORGAN, 1, np.eye(40, 48) * 255).astype(np.uint8), r"3 values \(0, 1, 255\)"),
    "soft edges": (SOFT, "soft edges"),
    "black on transparent": (_alpha(0, 0), "black on transparent"),
    "half transparent": (
        _channels(255 + 0 * ORGAN, 255 + 0 * ORGAN, 255 + 0 * ORGAN, ORGAN * 100 + 9),
        "half-tr",
    ),
    "palette without black": (_palette(WHITE, RED), "index 0 is not the black"),
    "palette whose black is 1": (_palette(WHITE, BLACK), "index 0 is not the black"),
    "three colours": (_channels(ORGAN * 255, np.eye(40, 48) * 255, 0 * ORGAN), "more than two col"),
    "no black": (_channels(ORGAN * 255, 0 * ORGAN + 9, 0 * ORGAN), "none of them black"),
}


def _save(path, image):
    image, options = image if isinstance(image, tuple) else (Image.fromarray(image), {})
    image.save(path, "TIFF" if image.mode == "F" else "PNG", **options)
    return path


@pytest.mark.parametrize("name", READ)
def test_a_mask_whose_organ_is_beyond_doubt_is_read(tmp_path, name):
    np.testing.assert_array_equal(images.read_mask(_save(tmp_path / "m", READ[name])), ORGAN)


@pytest.mark.parametrize("name", REFUSED)
def test_a_mask_that_would_have_to_be_guessed_is_refused(tmp_path, name):
    image, reason = REFUSED[name]
    with pytest.raises(BadEntryError, match=reason):
        images.read_mask(_save(tmp_path / "m", image))


def test_labels_are_taken_by_number_and_missing_ones_named(tmp_path):
    labels = np.where(ORGAN, 2, np.eye(40, 48) * 255).astype(np.uint8)
    path = _save(tmp_path / "m", labels)
    np.testing.assert_array_equal(images.read_mask(path, [2]), ORGAN)
    with pytest.raises(BadEntryError, match=r"none of the organ's labels 1 .*\(0, 2, 255\)"):
        images.read_mask(path, [1])


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_of_a_png_of_few_bits_are_not_spread(tmp_path, bits):
    levels = (ORGAN * np.uint8(2)) * np.uint8(255 // (2**bits - 1))
    image = Image.fromarray(levels)
    palette = image.point(lambda level: level * (2**bits - 1) // 255).convert("L")
    indexed = Image.frombytes("P", palette.size, palette.tobytes())
    indexed.putpalette([i for i in range(2**bits) for _ in range(3)])
    indexed.save(tmp_path / "m", "PNG", bits=bits)
    np.testing.assert_array_equal(images.read_mask(tmp_path / "m", [2]), ORGAN)


def test_a_jpeg_of_more_than_black_and_white_is_refused(tmp_path):
    for levels in (ORGAN * np.uint8(128), ORGAN * np.uint8(3)):
        Image.fromarray(levels).save(tmp_path / "m", "JPEG")
        with pytest.raises(BadEntryError, match="not black and white alone"):
            images.read_mask(tmp_path / "m")
