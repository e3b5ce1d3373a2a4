import lzma

import numpy as np
import pytest

from gxdistill.data import hippocampus
from gxdistill.errors import UserError


def _write(folder, *, labels_to=2, boxes=None):
    rng = np.random.default_rng(0)
    volumes = rng.integers(0, 256, (3, 4, 6, 5), np.uint8)
    labels = rng.integers(0, labels_to + 1, volumes.shape, np.uint8)
    if boxes is None:
        boxes = np.array([[0, 1, 0, 4, 3, 5], [0, 0, 0, 4, 6, 5], [0, 2, 1, 4, 2, 4]])
    with lzma.open(folder / "images_u8.npy.xz", "wb") as file:
        np.save(file, volumes)
    np.savez(
        folder / "labels_meta.npz",
        labels=labels,
        ids=np.array(["s2", "s0", "s1"]),
        offset_shape=boxes.astype(np.int16),
        is_test=np.array([False, True, False]),
    )
    return volumes, labels


def test_slices_lie_across_the_second_axis_within_the_real_box(tmp_path):
    volumes, labels = _write(tmp_path)
    cohort = hippocampus.slices(tmp_path)
    expected = [(0, y) for y in (1, 2, 3)] + [(1, y) for y in range(6)] + [(2, y) for y in (2, 3)]
    assert cohort.images.shape == (len(expected), 5, 5, 1)
    for i, (subject, y) in enumerate(expected):
        np.testing.assert_array_equal(cohort.images[i, :4, :, 0], volumes[subject, :, y])
        np.testing.assert_array_equal(cohort.masks[i, :4], labels[subject, :, y])
        assert cohort.patients[i] == ("s2", "s0", "s1")[subject]
        assert cohort.splits[i] == ("train", "test", "train")[subject]
    assert not cohort.images[:, 4:].any()
    assert sorted(cohort.names) == sorted(set(cohort.names))
    limited = hippocampus.slices(tmp_path, limit=1)
    assert set(limited.patients) == {"s2", "s0"}


def test_files_that_are_missing_damaged_or_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"images_u8.npy.xz is missing\. Name by data.path"):
        hippocampus.slices(tmp_path)
    _write(tmp_path, labels_to=3)
    with pytest.raises(UserError, match="do not fit each other"):
        hippocampus.slices(tmp_path)
    _write(tmp_path, boxes=np.full((3, 6), 5))
    with pytest.raises(UserError, match="do not fit each other"):
        hippocampus.slices(tmp_path)
    (tmp_path / "images_u8.npy.xz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"cannot be read \(LZMAError\)"):
        hippocampus.slices(tmp_path)
