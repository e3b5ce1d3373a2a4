import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.pytrees import Network, PatchTable
from gxdistill.tasks.audit import measuring


def _table(*rows):
    return PatchTable(*np.array([(*row, 0) for row in rows]).T)


def test_patches_are_parted_into_records_that_share_no_pixel():
    rows = [(0, r, c, int(r > 8)) for r in range(0, 24, 4) for c in range(0, 24, 8)]
    table = _table(*rows)
    found = measuring.choose_patches(table, np.arange(len(rows)), 8, 64)
    upper, lower = (found.rows[found.record == part] for part in (0, 1))
    assert table.row[upper].max() + 8 <= table.row[lower].min()
    assert len(found.rows) == 64
    assert found.weights.sum() == pytest.approx(1)
    by_class = np.bincount(table.label[found.rows], found.weights)
    np.testing.assert_allclose(by_class, by_class[0])


def test_images_of_one_patient_are_records_and_a_single_patch_is_one():
    table = _table(*((image, 0, c, 0) for image in (3, 4, 9) for c in range(40)))
    found = measuring.choose_patches(table, np.arange(120), 8, 64)
    assert set(table.image[found.rows[found.record == 0]]) == {3}
    assert set(table.image[found.rows[found.record == 1]]) == {4, 9}
    assert (np.bincount(found.record) == 64 // 2).all()
    single = measuring.choose_patches(_table((0, 0, 0, 1)), np.array([0]), 8, 64)
    assert set(single.record) == {0}
    assert single.weights.tolist() == [1] + [0] * (64 - 1)


def test_statistics_of_a_run_are_those_of_numpy():
    rng = np.random.default_rng(0)
    network = Network(None, lambda p, images: images.reshape(len(images), -1) @ p)
    params = rng.normal(size=(3, 2, 16, 3)).astype(np.float32)
    sets = rng.normal(size=(3, 5, 4, 4, 1)).astype(np.float32)
    images = rng.normal(size=(6, 4, 4, 1)).astype(np.float32)
    sets[1, 2] = 2 * images[4] + 1
    labels, weights = rng.integers(0, 3, 6), rng.dirichlet(np.ones(6)).astype(np.float32)
    found = measuring._under_each_run(
        network, jnp.asarray(params), sets, images, jnp.asarray(labels), weights, images
    )
    likelihood, near = map(np.asarray, found)
    for k in range(3):
        logits = images.reshape(6, -1) @ params[k]
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        true = p[:, np.arange(6), labels]
        assert likelihood[k] == pytest.approx(np.log(true).mean(0) @ weights, rel=1e-4)
    assert near[1] == pytest.approx(-np.log(measuring._NEAREST))
    assert near[0] < 1


def test_a_label_is_guessed_by_relevant_patches_alone():
    logs = np.log([[0.8, 0.1, 0.1], [0.2, 0.1, 0.7], [0.1, 0.5, 0.4]])
    weights = np.ones(3)
    assert measuring._guess(logs, np.array([0, 1, 1]), weights, 2) == 1
    assert measuring._guess(logs, np.array([0, 0, 1]), weights, 2) == 0
    assert measuring._guess(logs, np.array([0, 0, 0]), weights, 2) == -1
    assert measuring._guess(logs[:, 1:], np.array([0, 0, 1]), np.array([0, 0, 1]), 2) == 0
