"""What training and test share and should not: patients, images that are nearly the same, sites."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

WORDS = {"patient": "patients", "duplicate": "nearly equal images", "site": "sites"}
RULES = ("refuse", "warn", "allow")

_SIDE = 16
# Of 256 bits. No two of 704 public chest radiographs are nearer than 19; a JPEG of quality 30, half
# the size, another gamma or noise of 10 levels change up to 13 of one.
_NEAR = 16
_BLOCK = 1024


class Leak(NamedTuple):
    """One thing that both splits hold.

    Attributes:
      kind: one of `WORDS`.
      train: the training image, patient or site.
      test: the test image, or the same patient or site again.
    """

    kind: str
    train: str
    test: str


def image_hash(image: np.ndarray) -> np.ndarray:
    """Hashes what an image looks like: whether each of 16 x 16 fields is darker than its right one.

    Smaller copies, other levels of grey, noise and lossy compression change few of its bits.

    Args:
      image: `[H, W]` uint8.

    Returns:
      The hash, `[4]` uint64; how many bits of two differ is their distance.
    """
    size = (_SIDE + 1, _SIDE)
    fields = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX), np.int16)
    return np.packbits(fields[:, :-1] < fields[:, 1:]).view(np.uint64)


def find(
    splits: np.ndarray,
    *,
    patients: np.ndarray,
    sites: np.ndarray,
    names: Sequence[str],
    hashes: np.ndarray,
) -> tuple[Leak, ...]:
    """Finds what training and test share.

    Args:
      splits: `[N]` str, "train" or "test".
      patients: `[N]` str.
      sites: `[N]` str.
      names: `[N]`, of the images.
      hashes: `[N, 4]` uint64, of `image_hash`.

    Returns:
      Patients, then pairs of nearly equal images, then sites.
    """
    train, test = (np.flatnonzero(splits == split) for split in ("train", "test"))
    both = {
        kind: sorted(set(of[train].tolist()) & set(of[test].tolist()))
        for kind, of in (("patient", patients), ("site", sites))
    }
    doubles = [Leak("patient", name, name) for name in both["patient"]]
    for left, right in _near(hashes[train], hashes[test]):
        doubles.append(Leak("duplicate", str(names[train[left]]), str(names[test[right]])))
    return (*doubles, *(Leak("site", name, name) for name in both["site"]))


def _near(some: np.ndarray, others: np.ndarray) -> Iterable[tuple[int, int]]:
    for begin in range(0, len(some), _BLOCK):
        block = some[begin : begin + _BLOCK, None]
        for start in range(0, len(others), _BLOCK):
            differing = np.bitwise_count(block ^ others[None, start : start + _BLOCK]).sum(-1)
            for row, column in zip(*np.nonzero(differing <= _NEAR), strict=True):
                yield begin + int(row), start + int(column)
