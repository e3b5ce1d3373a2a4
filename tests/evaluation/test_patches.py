from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from gxdistill import models, patching
from gxdistill.data.batches.resident import Normalisation
from gxdistill.evaluation import decision, metrics, patches
from gxdistill.pytrees import Cohort, PatchTable
from tests import toy

R = 3  # networks
NETWORK = toy.network(shape=(4, 4, 2))
GRID = patches.PatchGrid(4, 1, False, Normalisation((0.4, 0.5), (0.2, 0.25)))


def _cohort(images, labels):
    n = len(images)
    return Cohort(
        images=images,
        masks=None,
        labels=np.array(labels, np.int32),
        patients=np.array([f"p{i // 2}" for i in range(n)]),
        sites=np.full(n, "here"),
        splits=np.full(n, "test"),
        names=np.array([f"{i}.png" for i in range(n)]),
        class_names=("irrelevant", "negative", "positive"),
    )


@pytest.fixture(scope="module")
def cohort():
    images = np.random.default_rng(0).integers(0, 256, size=(3, 16, 18, 2), dtype=np.uint8)
    return _cohort(images, [0, 1, 0])


@pytest.fixture(scope="module")
def params():
    keys = jax.random.split(jax.random.key(0), R)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(NETWORK.init, keys))


@pytest.fixture(scope="module")
def probabilities(params, cohort):
    return patches.predict(NETWORK, params, cohort, GRID)


@pytest.mark.parametrize("stride", [4, 5])
def test_what_patches_share_changes_no_prediction(stride, monkeypatch):
    """Of two networks and two images; an odd stride leaves nothing to share."""
    network = models.create("lenet", shape=(16, 16, 2), classes=3)
    keys = jax.random.split(jax.random.key(0), 2)
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(network.init, keys))
    images = np.random.default_rng(0).integers(0, 256, size=(2, 30, 43, 2), dtype=np.uint8)
    cohort, grid = _cohort(images, [0, 1]), GRID._replace(size=16, stride=stride)
    alone = patches.predict(network._replace(apply_windows=None), params, cohort, grid, chunk=16)
    monkeypatch.setattr(patches, "_WINDOWS", 10)  # several parts, the last one filled up
    shared = patches.predict(network, params, cohort, grid, chunk=16)
    assert shared.shape == alone.shape
    np.testing.assert_allclose(shared, alone, atol=1e-5)


def _softmax(params, network, patch):
    w = {name: np.asarray(leaf[network], np.float64) for name, leaf in params.items()}
    x = (patch / 255 - GRID.normalise.mean) / GRID.normalise.std
    return scipy.special.softmax(np.tanh(x.ravel() @ w["first"]) @ w["last"] + w["bias"])


def test_predictions_match_a_loop_over_networks_images_and_patches(probabilities, params, cohort):
    # 3 images x 13 x 15 corners are 585 patches: one chunk of 512 and a part of another.
    assert probabilities.shape == (R, 3, 13 * 15, toy.CLASSES)
    for r in range(R):
        for i, image in enumerate(cohort.images):
            for j, (row, col) in enumerate(np.ndindex(13, 15)):
                expected = _softmax(params, r, image[row : row + 4, col : col + 4])
                np.testing.assert_allclose(probabilities[r, i, j], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("border", [False, True])
def test_the_grid_lists_the_corners_of_one_image(cohort, border):
    grid = GRID._replace(stride=5, border=border)
    rows, cols = ([0, 5, 10, 12], [0, 5, 10, 14]) if border else ([0, 5, 10], [0, 5, 10])
    expected = [(row, col) for row in rows for col in cols]
    np.testing.assert_array_equal(grid.corners(cohort), expected)


def test_a_table_finds_its_patches_in_the_grid(probabilities, cohort):
    corners = GRID.corners(cohort)
    rng = np.random.default_rng(1)
    image, where = rng.integers(0, 3, 50), rng.integers(0, len(corners), 50)
    row, col = corners[where].T
    labels = rng.integers(0, toy.CLASSES, 50)
    table = PatchTable(image, row, col, labels, image)
    predicted = patches.table_predictions(probabilities[1], table, corners)
    expected = [
        int(np.argmax(probabilities[1, i, r * 15 + c]))
        for i, r, c in zip(image, row, col, strict=True)
    ]
    np.testing.assert_array_equal(predicted, expected)

    recalls = []
    for label in range(toy.CLASSES):
        hits = [p == label for p, truth in zip(expected, labels, strict=True) if truth == label]
        recalls.append(sum(hits) / len(hits))
    of_one = patches.patch_accuracy(probabilities[1:2], table, corners)
    right = [p == truth for p, truth in zip(expected, labels, strict=True)]
    np.testing.assert_allclose(of_one["accuracy"]["mean"], sum(right) / len(right), rtol=1e-12)
    balanced = of_one["balanced_patch_accuracy"]["mean"]
    np.testing.assert_allclose(balanced, sum(recalls) / 3, rtol=1e-12)
    assert patches.patch_accuracy(probabilities, table, corners)["accuracy"]["n"] == R


def test_patches_of_the_area_rule_lie_on_the_grid(probabilities, cohort):
    table = patching.patch_table(cohort, GRID.size, GRID.stride)
    predicted = patches.table_predictions(probabilities[0], table, GRID.corners(cohort))
    np.testing.assert_array_equal(predicted, probabilities[0].argmax(axis=-1).ravel())


def test_spread_is_mean_and_sample_deviation():
    assert patches.spread([1.0, 2.0, 6.0]) == {"mean": 3.0, "std": np.sqrt(7.0), "n": 3}
    assert patches.spread([0.5]) == {"mean": 0.5, "std": None, "n": 1}


@pytest.mark.parametrize("rule", ["counts", "soft"])
def test_image_scores_are_those_of_each_network(probabilities, rule):
    scores = patches.image_scores(probabilities, partial(decision.score, rule))
    expected = [decision.score(rule, probabilities[r]) for r in range(R)]
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("rule", ["counts", "soft"])
def test_joint_scores_are_those_of_the_mean_probabilities(probabilities, rule):
    (scores,) = patches.joint_scores(probabilities, partial(decision.score, rule))
    for image, rows in enumerate(sum(probabilities) / R):
        kept = [patch for patch in rows if patch.argmax() != 0]
        votes = [np.eye(3)[patch.argmax()] if rule == "counts" else patch for patch in kept]
        _, negative, positive = sum(votes, np.zeros(3))
        expected = positive / (negative + positive) if kept else np.nan
        np.testing.assert_allclose(scores[image], expected, rtol=1e-6)


@pytest.mark.parametrize("second_tau", [0.5, 0.58])
def test_whole_images_average_the_networks(second_tau):
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    cohort = _cohort(np.zeros((8, 4, 4, 1), np.uint8), labels)
    scores = np.array(
        [
            [0.1, 0.6, 0.2, 0.7, 0.9, 0.4, 0.5, 0.3],
            [0.2, 0.1, np.nan, 0.8, 0.6, 0.7, 0.2, 0.55],
        ]
    )
    taus = np.array([0.5, second_tau])
    measured = patches.whole_images(scores, cohort, 0.5 if second_tau == 0.5 else taus)
    # Of four positives, and of four and three decided negatives, of which 0.58 passes one less.
    sen, spe = np.array([3 / 4, 3 / 4]), np.array([3 / 4, 2 / 3 if second_tau == 0.5 else 1])
    hm = 2 * sen * spe / (sen + spe)
    # Pairs of a positive and a negative: (.7, .9) beat all, .4 loses to .6, .5 loses to .6; then
    # (.8, .6, .7) beat all, and .2 ties with .2, beats .1 and loses to .55.
    auc = np.array([14 / 16, (9 + 1.5) / 12])
    by_network = [
        decision.summarise(one, labels, tau, patients=cohort.patients)
        for one, tau in zip(scores, taus, strict=True)
    ]
    for name, values in {"sen": sen, "spe": spe, "hm": hm, "auc": auc}.items():
        assert measured[name]["n"] == 2
        np.testing.assert_allclose(measured[name]["mean"], values.mean(), rtol=1e-12)
        np.testing.assert_allclose(measured[name]["std"], values.std(ddof=1), atol=1e-12)
        for side in ("low", "high"):
            mean = np.mean([one[name][side] for one in by_network])
            np.testing.assert_allclose(measured[name][side], mean, rtol=1e-12)
        assert measured[name]["low"] <= measured[name]["mean"] <= measured[name]["high"]
    expected = {"images": 8, "tau": (0.5 + second_tau) / 2, "undecidable": 0.5}
    assert measured.items() >= expected.items()


def test_what_no_network_can_decide_has_no_figures():
    cohort = _cohort(np.zeros((4, 4, 4, 1), np.uint8), [0, 0, 1, 1])
    scores = np.array([[0.1, 0.2, np.nan, np.nan], [0.3, 0.1, 0.8, 0.9]])
    half = patches.whole_images(scores, cohort, 0.5)
    assert (half["hm"]["mean"], half["hm"]["n"], half["undecidable"]) == (1.0, 1, 1.0)
    # A network without a threshold gives no figures; its undecidable images count.
    assert patches.whole_images(scores, cohort, np.array([np.nan, 0.5])) == half
    none = patches.whole_images(scores[:1], cohort, 0.5)
    assert all(none[name] is None for name in ("sen", "spe", "hm", "auc"))
    assert none["undecidable"] == 2.0
    with pytest.raises(metrics.UndefinedError):
        decision.choose_threshold(scores[0], cohort.labels)
