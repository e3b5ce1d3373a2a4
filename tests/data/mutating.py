"""Sound image files of many kinds, and ways to harm them."""

import base64
import io
import json
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.conftest import write_dicom

_SIDE = 64


def pictures() -> dict[str, bytes]:
    """Small PNG, JPEG and TIFF files, by name."""
    pixels = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE)).astype(np.uint8)
    smooth = np.add.outer(np.arange(_SIDE), np.arange(_SIDE)).astype(np.uint8)
    wide = pixels.astype(np.uint16) * 200
    kinds = {
        "grey.png": (pixels, {}),
        "wide.png": (wide, {}),
        "colour.png": (np.dstack([smooth] * 3), {}),
        "grey.jpg": (smooth, {"quality": 80}),
        "scans.jpg": (smooth, {"quality": 80, "progressive": True}),
        "plain.tif": (pixels, {}),
        "wide.tif": (wide, {"compression": "tiff_deflate"}),
        "float.tif": (pixels.astype(np.float32), {}),
        "lzw.tif": (smooth, {"compression": "tiff_lzw"}),
        "jpeg.tif": (smooth, {"compression": "jpeg"}),
        "turned.tif": (smooth, {"exif": _turned()}),
        "turned.jpg": (smooth, {"exif": _turned()}),
        "opaque.png": (np.dstack([smooth] * 3 + [np.full_like(smooth, 255)]), {}),
    }
    files = {}
    for name, (array, options) in kinds.items():
        buffer = io.BytesIO()
        kind = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF"}[name[-3:]]
        Image.fromarray(array).save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    return files


def _turned():
    exif = Image.Exif()
    exif[274] = 6
    return exif


def masks() -> dict[str, bytes]:
    """Small masks of two values, by name: a PNG, and shapes of LabelMe and VIA."""
    buffer = io.BytesIO()
    organ = np.zeros((_SIDE, _SIDE), bool)
    organ[9:40, 20:50] = True
    Image.fromarray(organ).save(buffer, "PNG")
    star = [[5, 5], [60, 9], [40, 30], [50, 60], [9.5, 40]]
    encoded = base64.b64encode(buffer.getvalue()).decode()
    mask = {"label": "o", "shape_type": "mask", "points": [[0, 0], [63, 63]], "mask": encoded}
    shapes = [{"label": "o", "shape_type": "polygon", "points": star}, mask]
    polygon = {"name": "polygon", "all_points_x": [5, 60, 9], "all_points_y": [5, 9, 50]}
    circle = {"name": "circle", "cx": 30, "cy": 30, "r": 9}
    regions = [{"shape_attributes": s, "region_attributes": {"n": "o"}} for s in (polygon, circle)]
    return {
        "mask.png": buffer.getvalue(),
        "labelme.json": json.dumps(
            {"shapes": shapes, "imageHeight": 64, "imageWidth": 64}
        ).encode(),
        "via.json": json.dumps({"a": {"filename": "a.png", "regions": regions}}).encode(),
    }


def dicoms(folder: Path) -> dict[str, bytes]:
    """Small DICOM files of many compressions, by name; `folder` is to work in."""
    import pydicom
    from pydicom import uid

    plain, other = folder / "a.dcm", folder / "b.dcm"
    pixels = np.random.default_rng(0).integers(0, 4096, (_SIDE, _SIDE)).astype(np.uint16)
    bits = {"BitsStored": 12, "HighBit": 11}
    write_dicom(plain, pixels, **bits, WindowCenter=2000, WindowWidth=3000)
    files = {"plain.dcm": plain.read_bytes(), "jpeg.dcm": _lossless_jpeg(plain, other)}
    for name in ("RLELossless", "JPEGLSLossless", "JPEG2000Lossless"):
        dataset = pydicom.dcmread(plain)
        dataset.compress(getattr(uid, name))
        dataset.save_as(other)
        files[f"{name}.dcm"] = other.read_bytes()
    dataset = pydicom.dcmread(plain)
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(other)
    files["deflated.dcm"] = other.read_bytes()
    item, scale, group = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 12], np.arange(4096, dtype="<u2").tobytes()
    scale.RescaleSlope, scale.RescaleIntercept = 2, -100
    group.PixelValueTransformationSequence = [scale]
    write_dicom(other, pixels, **bits, VOILUTSequence=[item], PixelPaddingValue=0)
    files["table.dcm"] = other.read_bytes()
    write_dicom(other, pixels, **bits, SharedFunctionalGroupsSequence=[group])
    return files | {"groups.dcm": other.read_bytes()}


def _lossless_jpeg(path, other):
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(other))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return other.read_bytes()


def flipped(rng, sound):
    raw = bytearray(sound)
    for _ in range(rng.choice((1, 1, 2, 8, 50))):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def cut(rng, sound):
    return sound[: rng.randrange(len(sound))]


def absurd(rng, sound):
    """A number of the header is as large, as small or as odd as it can be."""
    raw, at = bytearray(sound), rng.randrange(min(len(sound), 1200))
    if sound[128:132] == b"DICM":
        at = rng.randrange(132, min(len(sound), 1200))
    new = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", rng.randbytes(4)))
    size = rng.choice((1, 2, 4))
    raw[at : at + size] = new[:size]
    return bytes(raw)


def holed(rng, sound):
    raw, at = bytearray(sound), rng.randrange(len(sound))
    size = rng.choice((8, 64, 1000))
    raw[at : at + size] = rng.choice((bytes(size), rng.randbytes(size)))[: len(raw) - at]
    return bytes(raw)


def moved(rng, sound):
    a, b, c = sorted(rng.randrange(len(sound)) for _ in range(3))
    return sound[:a] + sound[b:c] + sound[a:b] + sound[c:]


def bomb(rng, sound):
    """Few bytes that claim, or unpack to, more pixels than anyone has."""
    side = rng.choice((8_000, 20_000, 60_000))
    if sound[128:132] != b"DICM":
        return _png_bomb(side, honest=side < 10_000)
    at = sound.index(b"\x28\x00\x10\x00") if b"\x28\x00\x10\x00" in sound else None
    if at is None:  # Deflated: a gigabyte of zeros in an element of its own.
        return _deflated_bomb(sound)
    raw = bytearray(sound)
    for element in (b"\x28\x00\x10\x00", b"\x28\x00\x11\x00"):
        at = raw.index(element) + 8
        raw[at : at + 2] = struct.pack("<H", side)
    return bytes(raw)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_bomb(side, *, honest):
    """A black square of this side; one that is not honest has no such pixels."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(side if honest else 10))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    content = rows + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", content)
        + _chunk(b"IEND", b"")
    )


def _deflated_bomb(sound):
    start = 132 + 12 + struct.unpack("<I", sound[140:144])[0]
    dataset = zlib.decompress(sound[start:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [packer.compress(b"\x09\x00\x10\x00OB\x00\x00" + struct.pack("<I", 1 << 30))]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(1 << 10)]
    return sound[:start] + b"".join([*parts, packer.compress(dataset), packer.flush()])


def revalued(rng, sound):
    """An element of a DICOM header is empty, zero, of another sign, or text; others are flipped."""
    import pydicom

    if sound[128:132] != b"DICM":
        return flipped(rng, sound)
    dataset = pydicom.dcmread(io.BytesIO(sound))
    element = dataset[rng.choice([e.tag for e in dataset if e.tag.group == 0x28])]
    whole = rng.choice((0, 1, 3, 7, 17, 33, 255, 65535))
    text = rng.choice(("", "0", "-1", "1e400", "nan", "12,5", "1,024", "x", "9\\\\9"))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            element.value = whole if element.VR in ("US", "SS") else text
            dataset.save_as(buffer)
        except Exception:  # Not all that stands in files can be written by pydicom.
            return flipped(rng, sound)
    return buffer.getvalue()


KINDS = (*(flipped,) * 4, *(absurd,) * 3, *(revalued,) * 3, *(cut,) * 2, holed, holed, moved)
_BOMBS = 40  # One file in so many: making one takes a second.


def mutate(rng: random.Random, sound: bytes):
    """Returns what was done, and the bytes of a file that may be harmed."""
    kind = bomb if rng.randrange(_BOMBS) == 0 else rng.choice(KINDS)
    return kind.__name__, kind(rng, sound)
