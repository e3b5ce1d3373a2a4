import gzip
import hashlib
import lzma
import struct

import numpy as np
import pytest

from gxdistill.data.idx import mnist_cohort, read_idx
from gxdistill.errors import UserError

_CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def _encode(array):
    header = struct.pack(
        f">BBBB{array.ndim}I", 0, 0, _CODES[_code(array)], array.ndim, *array.shape
    )
    return header + array.tobytes()


def _code(array):
    return array.dtype.str.lstrip("|")


def _write_mnist(folder, n_train=20, n_test=10):
    rng = np.random.default_rng(0)
    written = {}
    for prefix, n in (("train", n_train), ("t10k", n_test)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, n, dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(_encode(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(_encode(labels))
        written[prefix] = (images, labels)
    return written


@pytest.mark.parametrize("dtype", _CODES)
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_what_was_written_is_read(tmp_path, dtype, suffix):
    array = np.random.default_rng(0).integers(0, 100, (3, 4, 5)).astype(dtype)
    compress = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    path = tmp_path / f"values{suffix}"
    path.write_bytes(compress(_encode(array)))
    read = read_idx(path)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


_GOOD = _encode(np.arange(12, dtype=np.uint8).reshape(3, 4))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty", b"", "not an IDX file: it starts with nothing"),
        ("text", b"label,pixel\n", "not an IDX file: it starts with 6c616265"),
        ("dtype", b"\0\0\x07\x01" + _GOOD[4:], "not an IDX file"),
        ("axes", b"\0\0\x08\x00", "not an IDX file"),
        ("header", _GOOD[:9], "ends within its header"),
        ("short", _GOOD[:-1], "is truncated: 12 bytes expected"),
        ("long", _GOOD + b"\0", "longer than its header says"),
        ("bomb", b"\0\0\x08\x02" + b"\xff" * 8, "claims 18446744065119617025 bytes"),
        ("not.xz", _GOOD, "Cannot read"),
        ("not.gz", _GOOD, "Cannot read"),
        ("half.xz", lzma.compress(_GOOD)[:-20], "Cannot read"),
        ("half.gz", gzip.compress(_GOOD, mtime=0)[:-9], "Cannot read"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_idx(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_cohort_holds_the_four_files(tmp_path):
    written = _write_mnist(tmp_path)
    cohort = mnist_cohort(tmp_path)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        part = cohort.select(cohort.splits == split)
        np.testing.assert_array_equal(part.images[..., 0], written[prefix][0])
        np.testing.assert_array_equal(part.labels, written[prefix][1])
    assert len(set(cohort.patients)) == 30
    assert cohort.masks is None
    assert cohort.class_names == tuple("0123456789")
    assert cohort.labels.dtype == np.int32


def test_a_limit_keeps_the_proportion_of_the_splits(tmp_path):
    _write_mnist(tmp_path)
    cohort = mnist_cohort(tmp_path, limit=15)
    assert (cohort.splits == "train").sum() == 10
    assert (cohort.splits == "test").sum() == 5
    assert len(mnist_cohort(tmp_path, limit=1000).labels) == 30


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"No train-images-idx3-ubyte, plain, \.xz or \.gz, in"):
        mnist_cohort(tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(19, np.uint8), "do not belong together"),
        (np.full(20, 10, np.uint8), "not digits from 0 to 9"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, message):
    _write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(_encode(labels))
    with pytest.raises(UserError, match=message):
        mnist_cohort(tmp_path)


def test_the_real_set_is_read_byte_for_byte(data_root):
    # The digests published with the set, of the unpacked image files.
    published = {
        "train": "6bbc9ace898e44ae57da46a324031adb",
        "test": "2646ac647ad5339dbf082846283269ea",
    }
    cohort = mnist_cohort(data_root / "mnist")
    for split, digest in published.items():
        images = cohort.images[cohort.splits == split][..., 0]
        assert hashlib.md5(_encode(images)).hexdigest() == digest
    # Counts of the digits 0 to 9 among the training labels, as the literature has them.
    counts = np.bincount(cohort.labels[cohort.splits == "train"])
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
