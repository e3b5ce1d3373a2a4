"""Arrays of strangers, read from the bytes of their files."""

import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest

from gxdistill import storage
from gxdistill.errors import UserError

RNG = np.random.default_rng(0)
TREE = {
    "w": RNG.normal(size=(2, 3)).astype(np.float32),
    "v": {"u": RNG.normal(size=(2, 3)).astype(ml_dtypes.bfloat16)},
}
DTYPES = (
    *(bool, np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64),
    *(np.float16, ml_dtypes.bfloat16, np.float32, np.float64),
)


def _bits(array):
    return array.dtype, array.shape, array.tobytes()


def _saved(folder, tree):
    digests = storage.save_arrays(folder, tree)
    return json.loads(json.dumps(digests))  # as they come back from a manifest


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "arrays"
    return folder, _saved(folder, TREE), TREE


def test_the_bytes_of_the_files_suffice(saved, tmp_path):
    folder, digests, tree = saved
    arrays = storage.read_arrays(storage.read_files(folder), digests, folder)
    assert jax.tree.map(_bits, arrays) == jax.tree.map(_bits, tree)
    for dtype in DTYPES:
        tree = {"many": np.arange(6).reshape(2, 3).astype(dtype), "scalar": np.array(1, dtype)}
        tree["empty"] = {"x.": np.zeros((0, 2), dtype)}
        place = tmp_path / np.dtype(dtype).name
        digests = _saved(place, tree)
        arrays = storage.read_arrays(storage.read_files(place), digests, place)
        assert jax.tree.map(_bits, arrays) == jax.tree.map(_bits, tree)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda files: files.pop("state/w/.zarray"), "leaf w is missing"),
        (lambda files: files.pop("state/w/0.0"), "leaf w is missing"),
        (lambda files: files.pop("state/_METADATA"), "file state/_METADATA is missing"),
        (lambda files: files.update({"state/x/0": b""}), "file state/x/0 belongs to no declared"),
        (lambda files: files.update({"state/w/0.1": b""}), "file state/w/0.1 belongs to no"),
        (lambda files: files.update({"state/w/0.0": bytes(25)}), "leaf w is of 25 bytes where 24"),
        (lambda files: files.update({"state/w/0.0": bytes(24)}), "leaf w was changed or damaged"),
        (lambda files: files.update({"state/w/.zarray": b"{}"}), "leaf w has shape 'nothing'"),
        (lambda files: files.update({"state/w/.zarray": b"{"}), "state/w/.zarray is not valid"),
    ],
)
def test_bytes_that_are_not_what_is_declared_are_refused(saved, harm, reason):
    folder, digests, _ = saved
    files = storage.read_files(folder)
    harm(files)
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        storage.read_arrays(files, digests, folder)
    assert str(caught.value).startswith(str(folder))


def test_bytes_of_an_absurd_size_are_not_asked_for(saved):
    folder, digests, _ = saved
    with pytest.raises(UserError, match="past the 35 bytes allowed"):
        storage.read_arrays({}, digests, folder, max_bytes=35)
