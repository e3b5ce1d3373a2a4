import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gxdistill.data.files import grey, images
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.images import read_header, read_mask


def read_image(path):
    return images.read_image(path).pixels


def _noise(shape=(20, 30), dtype=np.uint8, high=256):
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def _save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def _windowed(values):
    """The documented rule, pixel by pixel: percentiles by linear interpolation of the sorted."""
    ranked = sorted(float(v) for v in values.ravel())

    def percentile(q):
        position = q / 100 * (len(ranked) - 1)
        below = int(position)
        above = min(below + 1, len(ranked) - 1)
        return ranked[below] + (position - below) * (ranked[above] - ranked[below])

    low, high = percentile(0.5), percentile(99.5)
    scaled = [(min(max(float(v), low), high) - low) / (high - low) * 255 for v in values.ravel()]
    return np.reshape(scaled, values.shape)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.wrong_name"])
def test_eight_bits_are_kept_as_they_are(tmp_path, name):
    kind = "TIFF" if name == "a.tif" else "PNG"
    path = _save(tmp_path / name, _noise(), format=kind)
    assert read_header(path).size == (20, 30)
    np.testing.assert_array_equal(read_image(path), _noise())


def test_a_jpeg_is_read_to_within_its_loss(tmp_path):
    ramp = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (20, 1))
    read = read_image(_save(tmp_path / "a.jpg", ramp, quality=95))
    np.testing.assert_allclose(read, ramp, atol=4)


@pytest.mark.parametrize(
    ("name", "dtype", "high"),
    [
        ("a.png", np.uint16, 60_000),
        ("a.png", np.uint16, 1000),  # Ten bits in sixteen: `convert("L")` would clip at 255.
        ("a.tif", np.uint16, 60_000),
        ("a.tif", ">u2", 60_000),
        ("a.tif", np.int32, 100_000),
        ("a.tif", np.float32, 7),
    ],
)
def test_more_than_eight_bits_are_windowed_by_percentiles(tmp_path, name, dtype, high):
    values = _noise(dtype=dtype, high=high)
    read = read_image(_save(tmp_path / name, values))
    assert read.dtype == np.uint8
    np.testing.assert_allclose(read, _windowed(values), atol=0.5 + 1e-6)


def test_an_image_of_two_values_keeps_them_apart():
    values = np.full((20, 30), 1000, np.uint16)
    values[3, 4] = 1010  # Fewer than 0.5 percent: both percentiles are 1000.
    assert np.unique(grey.to_uint8(values)).tolist() == [0, 255]
    assert grey.to_uint8(np.full((2, 2), 7, np.uint16)).max() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_whose_white_is_zero_is_turned_round(tmp_path, dtype):
    values = _noise(dtype=dtype, high=np.iinfo(dtype).max)
    plain = read_image(_save(tmp_path / "a.tif", values))
    turned = read_image(_save(tmp_path / "b.tif", values, tiffinfo={262: 0}))
    # Pillow turns eight bits round when it writes, too; sixteen neither when it writes nor reads.
    np.testing.assert_array_equal(turned, plain if dtype == np.uint8 else 255 - plain)


def test_grey_pixels_in_colours_clothes_are_read(tmp_path):
    grey = _noise()
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    np.testing.assert_array_equal(read_image(_save(tmp_path / "a.png", opaque)), grey)
    np.testing.assert_array_equal(read_image(_save(tmp_path / "b.png", opaque[..., :3])), grey)
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "c.png")
    np.testing.assert_array_equal(read_image(tmp_path / "c.png"), grey)
    Image.fromarray(grey > 99).save(tmp_path / "d.png")
    np.testing.assert_array_equal(read_image(tmp_path / "d.png"), 255 * (grey > 99))


def _bomb(height, width):
    """A PNG whose header claims more pixels than its hundred bytes can hold."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def _pages(path):
    page = Image.fromarray(_noise())
    page.save(path, save_all=True, append_images=[page])


def _half(path, kind, dtype=np.uint8, **options):
    buffer = io.BytesIO()
    Image.fromarray(_noise((64, 64), dtype)).save(buffer, kind, **options)
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def _nan(path):
    values = _noise(dtype=np.float32)
    values[0, 0] = np.nan
    _save(path, values, format="TIFF")


def _clear(path):
    grey = _noise()
    _save(path, np.dstack([grey, grey, grey, grey]), format="PNG")


BROKEN = {
    "missing": (lambda _: None, "file missing"),
    "folder": (lambda path: path.mkdir(), "file missing"),
    "pipe": (os.mkfifo, "file missing"),
    "empty": (lambda path: path.touch(), "file empty"),
    "text": (lambda path: path.write_text("no image"), "not a readable PNG, JPEG, TIFF or DICOM"),
    "no mark.dcm": (lambda path: path.write_bytes(bytes(999)), "not a DICOM file: the mark DICM"),
    "gif": (
        lambda path: _save(path, _noise(), format="GIF"),
        "GIF image; a PNG, JPEG, TIFF or DICOM file is",
    ),
    "half png": (lambda path: _half(path, "PNG"), "damaged or truncated"),
    "half png 16": (lambda path: _half(path, "PNG", np.uint16), "damaged or truncated"),
    "half jpeg": (lambda path: _half(path, "JPEG"), "damaged or truncated"),
    "half jpeg in scans": (lambda path: _half(path, "JPEG", progressive=True), "damaged or trunc"),
    "half tiff": (lambda path: _half(path, "TIFF"), "damaged or truncated"),
    "half tiff 16": (lambda path: _half(path, "TIFF", np.uint16), "damaged or truncated"),
    "bomb": (lambda path: path.write_bytes(_bomb(10**5, 10**5)), "header claims far more than"),
    "big": (lambda path: path.write_bytes(_bomb(8193, 8192)), "header claims 8193x8192 pixels"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_broken_file_is_refused_with_its_reason(tmp_path, name, read):
    plant, reason = BROKEN[name]
    plant(tmp_path / name)
    with pytest.raises(BadEntryError, match=reason):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "plant", "reason"),
    [
        ("a.tif", _pages, "several images in one file"),
        ("a.png", _pages, "several images in one file"),
        ("a.png", lambda p: _save(p, _noise((9, 9, 3))), "colour image; a grey one is expected"),
        ("a.png", _clear, "transparent pixels"),
        ("a.tif", _nan, "not finite"),
    ],
)
def test_an_image_of_another_kind_is_refused(tmp_path, name, plant, reason):
    plant(tmp_path / name)
    with pytest.raises(BadEntryError, match=reason):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    "options",
    [
        {"format": "PNG"},
        {"format": "JPEG"},
        {"format": "TIFF", "compression": "tiff_lzw"},
    ],
)
def test_damaged_bytes_are_refused_or_read_and_nothing_else(tmp_path, options):
    buffer = io.BytesIO()
    Image.fromarray(_noise((32, 32))).save(buffer, **options)
    rng = np.random.default_rng(0)
    path = tmp_path / "a"
    refused = 0
    for _ in range(200):
        content = np.frombuffer(buffer.getvalue(), np.uint8).copy()
        content[rng.integers(0, len(content), 3)] ^= rng.integers(1, 256, 3).astype(np.uint8)
        path.write_bytes(content.tobytes())
        try:
            assert read_image(path).dtype == np.uint8
        except BadEntryError:
            refused += 1
    assert refused > 0


def test_a_mask_of_two_values_is_what_is_not_zero(tmp_path):
    organ = _noise() > 128
    saved = {
        "bits.png": organ,
        "bytes.png": organ * np.uint8(7),
        "sixteen.tif": (organ * 300).astype(np.uint16),
        "colours.png": np.dstack([organ * np.uint8(9), 0 * _noise(), 0 * _noise()]),
    }
    for name, array in saved.items():
        np.testing.assert_array_equal(read_mask(_save(tmp_path / name, array)), organ)


def test_the_ringing_of_a_jpeg_mask_is_not_organ(tmp_path):
    organ = np.zeros((64, 64), bool)
    organ[20:45, 10:50] = True
    path = _save(tmp_path / "a.jpg", organ * np.uint8(255), quality=30)
    assert (np.asarray(Image.open(path)) > 0).sum() > organ.sum()
    np.testing.assert_array_equal(read_mask(path), organ)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 6, 8, 16])
def test_shrinking_averages_blocks_and_takes_the_majority_of_masks(factor):
    pixels = _noise((48, 96))
    blocks = [
        [pixels[r : r + factor, c : c + factor] for c in range(0, 96, factor)]
        for r in range(0, 48, factor)
    ]
    means = np.array([[block.mean(dtype=np.float64) for block in row] for row in blocks])
    np.testing.assert_allclose(grey.shrink(pixels, factor), means, atol=0.5)
    majority = [[2 * (block > 127).sum() >= block.size for block in row] for row in blocks]
    shrunk = grey.shrink(pixels > 127, factor)
    assert shrunk.dtype == bool
    np.testing.assert_array_equal(shrunk, majority)
