import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from gxdistill.data.files import grey, images, reading
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.manifest import Entry
from gxdistill.data.files.reading import Recipe

GREY = np.random.default_rng(0).integers(0, 4096, (24, 36)).astype(np.uint16)
BYTES = (GREY >> 4).astype(np.uint8)


def _png(pixels, colour):
    """A PNG of 16 bits by the specification: no filter, big-endian."""
    rows = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(len(pixels), -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _tiff(pixels, order="<", form=1, photometric=1, planes=1):
    """A TIFF 6.0 of one strip, without compression."""
    height, width = pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    data = pixels if planes == 1 else np.moveaxis(pixels, -1, 0)
    data = data.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = 8 * pixels.dtype.itemsize
    depths = struct.pack(f"{order}{samples}H", *[bits] * samples)
    forms = struct.pack(f"{order}{samples}H", *[form] * samples)
    strips = 1 if planes == 1 else samples
    size, start = len(data) // strips, 8
    offsets = struct.pack(f"{order}{strips}I", *[start + i * size for i in range(strips)])
    sizes = struct.pack(f"{order}{strips}I", *[size] * strips)
    blob, places = data, {}
    for name, value in (
        ("depths", depths),
        ("forms", forms),
        ("offsets", offsets),
        ("sizes", sizes),
    ):
        places[name] = (
            value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", 8 + len(blob))
        )
        blob += value if len(value) > 4 else b""
    blob += bytes(len(blob) % 2)
    number = lambda value: struct.pack(order + "I" if value > 65535 else order + "H2x", value)
    entries = [
        (256, 3, 1, number(width)),
        (257, 3, 1, number(height)),
        (258, 3, samples, places["depths"]),
        (259, 3, 1, number(1)),
        (262, 3, 1, number(photometric)),
        (273, 4, strips, places["offsets"]),
        (277, 3, 1, number(samples)),
        (278, 3, 1, number(height)),
        (279, 4, strips, places["sizes"]),
        (284, 3, 1, number(planes)),
        (339, 3, samples, places["forms"]),
    ]
    directory = struct.pack(order + "H", len(entries))
    directory += b"".join(struct.pack(order + "HHI", *e[:3]) + e[3] for e in entries) + bytes(4)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", 8 + len(blob)) + blob + directory


def _read(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    return images.read_image(tmp_path / "a")


FULL = np.full_like(GREY, 65535)


@pytest.mark.parametrize(
    "content",
    [
        _png(np.dstack([GREY] * 3), 2),
        _png(np.dstack([GREY] * 3 + [FULL]), 6),
        _png(np.dstack([GREY, FULL]), 4),
        _tiff(np.dstack([GREY] * 3), photometric=2),
        _tiff(np.dstack([GREY] * 3), ">", photometric=2),
    ],
    ids=["RGB", "RGBA", "grey and alpha", "TIFF", "TIFF, big-endian"],
)
def test_no_bit_of_a_colour_of_16_is_lost(tmp_path, content):
    picture = _read(tmp_path, content)
    np.testing.assert_array_equal(picture.pixels, grey.to_uint8(GREY))
    assert (picture.bits, picture.window) == (16, "percentiles")


def test_compressed_colours_of_16_bits_are_read_by_libtiff(tmp_path):
    content = _tiff(np.dstack([GREY] * 3), photometric=2)
    (tmp_path / "a").write_bytes(content)
    at = content.index(struct.pack("<HHI", 259, 3, 1)) + 8
    lines = zlib.compress(content[8 : 8 + GREY.size * 6])
    changed = bytearray(content)
    changed[8 : 8 + len(lines)] = lines
    changed[at : at + 2] = struct.pack("<H", 8)
    sizes = content.index(struct.pack("<HHI", 279, 4, 1)) + 8
    changed[sizes : sizes + 4] = struct.pack("<I", len(lines))
    np.testing.assert_array_equal(_read(tmp_path, bytes(changed)).pixels, grey.to_uint8(GREY))


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_colour_in_the_low_byte_is_seen(tmp_path, channel):
    pixels = np.dstack([GREY] * 3)
    pixels[3, 3, channel] ^= 1
    with pytest.raises(BadEntryError, match="colour image"):
        _read(tmp_path, _png(pixels, 2))
    half = np.dstack([GREY, np.where(GREY > 99, FULL, 65534)]).astype(np.uint16)
    with pytest.raises(BadEntryError, match="transparent"):
        _read(tmp_path, _png(half, 4))


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (GREY.astype(np.uint32) * 1_000_000, 1),  # Beyond 2^31.
        (GREY.astype(np.int16) - 2048, 2),
        (GREY.astype(np.int32) - 2048, 2),
        ((GREY >> 4).astype(np.int16).astype(np.int8), 2),
    ],
)
def test_the_sign_of_a_tiff_is_that_of_its_header(tmp_path, values, form):
    picture = _read(tmp_path, _tiff(values, form=form))
    np.testing.assert_array_equal(picture.pixels, grey.to_uint8(values.astype(np.int64)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_tiff(GREY.astype(np.float64), form=3), "TIFF of 64-bit float numbers"),
        (_tiff(GREY.astype(np.float16), form=3), "TIFF of 16-bit float numbers"),
        (_tiff(GREY.astype(np.uint64)), "TIFF of 64-bit unsigned numbers"),
        (_tiff(np.dstack([GREY, FULL])), "16-bit unsigned numbers in each of 2 channels"),
        (_tiff(np.dstack([GREY] * 3), photometric=2, planes=2), "in planes apart"),
        (b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x10\x00\x10\x01\x01\x11\x00", "JPEG of 12-bit"),
        (b"\xff\xd8\xff\xc3\x00\x0b\x08\x00\x10\x00\x10\x01\x01\x11\x00", "and lossless"),
        (b"BM" + bytes(60), "BMP image"),
        (bytes(344) + b"n+1\0", "NIfTI volume"),
    ],
)
def test_pixels_that_are_not_read_are_named(tmp_path, content, reason):
    with pytest.raises(BadEntryError, match=reason):
        _read(tmp_path, content)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "TIFF by LZW"])
def test_an_image_and_its_mask_are_turned_upright(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    mask = np.zeros(BYTES.shape, bool)
    mask[2:9, 3:20] = True
    options = {"quality": 95} if kind == "JPEG" else {}
    if "LZW" in kind:
        options = {"compression": "tiff_lzw"}
    for name, array in (("a", BYTES), ("m", mask * np.uint8(255))):
        Image.fromarray(array).save(tmp_path / name, kind.split()[0], exif=exif, **options)
    stored = Image.fromarray(BYTES)
    if kind == "JPEG":
        with Image.open(tmp_path / "a") as image:
            stored = Image.fromarray(np.asarray(image))
    stored.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored))
    picture = images.read_image(tmp_path / "a")
    np.testing.assert_array_equal(picture.pixels, expected)
    assert images.read_header(tmp_path / "a").size == expected.shape
    assert picture.turned == images.is_turned(tmp_path / "m") == (orientation > 1)
    upright = images.read_mask(tmp_path / "m")
    assert upright.shape == expected.shape
    assert upright.sum() == mask.sum()
    entry = Entry.of_image(tmp_path / "a")._replace(mask=tmp_path / "m")
    np.testing.assert_array_equal(reading.read_entry(entry, Recipe(expected.shape)).mask, upright)
    Image.fromarray(upright).save(tmp_path / "m", "PNG")
    if orientation > 1:
        with pytest.raises(BadEntryError, match="bears an EXIF orientation and its mask none"):
            reading.read_entry(entry, Recipe(expected.shape))


def test_a_key_of_transparency_is_seen_in_grey(tmp_path):
    Image.fromarray(BYTES).save(tmp_path / "a", "PNG", transparency=int(BYTES[0, 0]))
    with pytest.raises(BadEntryError, match="transparent pixels"):
        images.read_image(tmp_path / "a")


def _deflated(pixels, order, form):
    """The same strip, packed, with its length and its kind of compression."""
    content = bytearray(_tiff(pixels, order, form))
    lines = zlib.compress(bytes(content[8 : 8 + pixels.nbytes]))
    content[8 : 8 + len(lines)] = lines
    for tag, kind, written, number in ((259, 3, "H2x", 8), (279, 4, "I", len(lines))):
        at = content.index(struct.pack(order + "HHI", tag, kind, 1)) + 8
        content[at : at + 4] = struct.pack(order + written, number)
    return bytes(content)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("dtype", "form"), [("u2", 1), ("i2", 2), ("i4", 2), ("f4", 3)])
def test_what_is_compressed_is_read_in_either_order_of_bytes(tmp_path, order, dtype, form):
    pixels = GREY.astype(dtype)
    np.testing.assert_array_equal(
        _read(tmp_path, _deflated(pixels, order, form)).pixels, grey.to_uint8(GREY)
    )


@pytest.mark.parametrize("tag", [259, 262, 277, 284])
def test_a_tag_of_two_numbers_in_place_of_one_is_refused(tmp_path, tag):
    content = bytearray(_tiff(BYTES))
    at = content.index(struct.pack("<HHI", tag, 3, 1))
    content[at + 4 : at + 8] = struct.pack("<I", 2)
    (tmp_path / "a").write_bytes(content)
    for read in (images.read_image, images.read_header):
        with pytest.raises(BadEntryError, match="damaged or truncated"):
            read(tmp_path / "a")


def test_a_directory_beyond_any_file_is_refused(tmp_path):
    content = b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**64 - 1) + bytes(100)
    with pytest.raises(BadEntryError, match="damaged or truncated"):
        _read(tmp_path, content)
