"""Small pictures of distilled images, as PNG.

Nothing is compressed, and no library writes them: their bytes are the same everywhere, which those
of two releases of zlib are not.
"""

import struct
import zlib

import numpy as np

_MOST, _SIDE = 6, 64
_BLOCK = 65535  # bytes that a stored block of deflate holds


def _shrunken(image: np.ndarray) -> np.ndarray:
    """Averages `[H, W, C]` over its channels, and over blocks such that no side is over 64 px."""
    grey = image.astype(np.float64).mean(-1)
    factor = -(-max(grey.shape) // _SIDE)
    height, width = (max(side // factor, 1) for side in grey.shape)
    blocks = grey[: height * factor, : width * factor]
    return blocks.reshape(height, blocks.shape[0] // height, width, -1).mean((1, 3))


def _chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", crc)


def _stored(content: bytes) -> bytes:
    """Wraps bytes as zlib does without compression (RFC 1950, 1951)."""
    starts = range(0, len(content), _BLOCK)
    parts = [content[start : start + _BLOCK] for start in starts]
    blocks = [
        struct.pack("<BHH", i == len(parts) - 1, len(part), len(part) ^ 0xFFFF) + part
        for i, part in enumerate(parts)
    ]
    return b"\x78\x01" + b"".join(blocks) + struct.pack(">L", zlib.adler32(content))


def png(image: np.ndarray) -> bytes:
    """Draws an image in 16 shades of grey, from its lowest value to its highest.

    Args:
      image: `[H, W, C]`, any unit.

    Returns:
      The bytes of a PNG file, no side over 64 pixels.
    """
    grey = _shrunken(image)
    low, high = grey.min(), grey.max()
    shades = np.rint((grey - low) * (15 / (high - low) if high > low else 0)).astype(np.uint8)
    height, width = shades.shape
    even = np.pad(shades, ((0, 0), (0, width % 2)))
    packed = (even[:, ::2] << 4) | even[:, 1::2]
    rows = np.pad(packed, ((0, 0), (1, 0))).tobytes()  # each begins with its filter: none
    header = struct.pack(">LLBBBBB", width, height, 4, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", _stored(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def previews(images: np.ndarray) -> dict[str, bytes]:
    """Draws a few distilled images, from the first step to the last.

    Args:
      images: `[S, B, H, W, C]`.

    Returns:
      PNG files by name, which tells step and place in the step.
    """
    steps, per_step = images.shape[:2]
    count = min(_MOST, steps * per_step)
    chosen = np.unique(np.linspace(0, steps * per_step - 1, count).round().astype(int))
    places = [divmod(int(index), per_step) for index in chosen]
    return {f"step{s:03d}_image{b:03d}.png": png(images[s, b]) for s, b in places}
