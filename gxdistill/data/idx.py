"""Reads IDX files, the format of MNIST, as they are published or compressed by xz or gzip.

The format: two zero bytes, a byte for the dtype, one for the number of axes, the length of each
axis as a big-endian 32-bit number, then the values; http://yann.lecun.com/exdb/mnist.
"""

import gzip
import lzma
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gxdistill import _check
from gxdistill.errors import UserError
from gxdistill.pytrees import Cohort

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_OPENERS: dict[str, Callable[..., Any]] = {"": open, ".xz": lzma.open, ".gz": gzip.open}
_MAX_BYTES = 1 << 32


def read_idx(path: Path) -> np.ndarray:
    """Reads an IDX file whole.

    Args:
      path: of the file; compressed if its name ends in .xz or .gz.

    Returns:
      The array, of the shape and dtype that the header states.

    Raises:
      UserError: the file cannot be read, its header is not IDX, or its length belies its header.
    """
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            return _read(file, path)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"Cannot read {path}: {error}. Fetch the file anew.") from error


def mnist_cohort(root: Path, *, limit: int | None = None) -> Cohort:
    """Reads MNIST, or a set published in the same four files, as a cohort without masks.

    Args:
      root: folder of {train,t10k}-{images-idx3,labels-idx1}-ubyte, each plain, .xz or .gz.
      limit: keeps about this many images: the first of each split, in proportion.

    Returns:
      60,000 + 10,000 images of 28 x 28 pixels, each its own patient, from one site.

    Raises:
      UserError: a file is missing or damaged, or images and labels do not belong together.
    """
    pairs = [_pair(root, prefix) for prefix in ("train", "t10k")]
    total = sum(len(labels) for _, labels in pairs)
    if limit is not None:
        _check.positive(limit=limit)
        kept = [math.ceil(len(labels) * min(1, limit / total)) for _, labels in pairs]
        pairs = [(images[:n], labels[:n]) for (images, labels), n in zip(pairs, kept, strict=True)]
    counts = [len(labels) for _, labels in pairs]
    splits = np.repeat(["train", "test"], counts)
    places = np.concatenate([np.arange(count) for count in counts])
    names = np.array([f"{split}/{i:05d}" for split, i in zip(splits, places, strict=True)])
    images, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return Cohort(
        images=images[..., None],
        masks=None,
        labels=labels.astype(np.int32),
        patients=names,
        sites=np.full(len(names), "mnist"),
        splits=splits,
        names=names,
        class_names=tuple("0123456789"),
    )


def _read(file: BinaryIO, path: Path) -> np.ndarray:
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _DTYPES or not start[3]:
        raise UserError(f"{path} is not an IDX file: it starts with {start.hex() or 'nothing'}.")
    dtype, axes = np.dtype(_DTYPES[start[2]]), file.read(4 * start[3])
    if len(axes) < 4 * start[3]:
        raise UserError(f"{path} ends within its header. Fetch the file anew.")
    shape = np.frombuffer(axes, ">u4").tolist()  # Python's integers: their product may be any.
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > _MAX_BYTES:
        raise UserError(f"{path} claims {claimed} bytes in its header, more than {_MAX_BYTES}.")
    values = file.read(claimed + 1)
    if len(values) != claimed:
        state = "truncated" if len(values) < claimed else "longer than its header says"
        raise UserError(f"{path} is {state}: {claimed} bytes expected. Fetch the file anew.")
    return np.frombuffer(values, dtype).reshape(shape)


def _pair(root: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(_find(root, f"{prefix}-images-idx3-ubyte"))
    labels = read_idx(_find(root, f"{prefix}-labels-idx1-ubyte"))
    if images.ndim != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise UserError(
            f"The {prefix} files in {root} do not belong together: images {images.shape} of "
            f"{images.dtype}, labels {labels.shape}. Fetch both anew."
        )
    if not np.isin(labels, range(10)).all():
        raise UserError(f"The {prefix} labels in {root} are not digits from 0 to 9.")
    return images, labels


def _find(root: Path, name: str) -> Path:
    for suffix in _OPENERS:
        if (path := root / (name + suffix)).is_file():
            return path
    raise UserError(f"No {name}, plain, .xz or .gz, in {root}. Name the folder that holds it.")
