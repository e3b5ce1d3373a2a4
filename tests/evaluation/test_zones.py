from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill.evaluation import decision, metrics, zones
from gxdistill.patching import patch_corners

CORNERS = patch_corners((44, 60), 12, 8, border=True)


def _probabilities(seed, images=20):
    rng = np.random.default_rng(seed)
    return rng.dirichlet([1.0, 0.7, 0.7], (images, len(CORNERS)))


def _shares(lines, parts):
    """Of each patch, how much of it lies in which part: areas as lengths on a ruler."""
    start, bounds = {}, Fraction(0)
    for line in sorted(set(lines)):
        start[line] = bounds
        bounds += lines.count(line)
    shares = []
    for line in lines:
        low, length = start[line], lines.count(line)
        row = []
        for part in range(parts):
            begin, end = bounds * part / parts, bounds * (part + 1) / parts
            row.append(max(min(end, low + length) - max(begin, low), Fraction(0)) / length)
        shares.append(row)
    return shares


def test_log_odds_match_a_loop_over_patches():
    probabilities = _probabilities(0)
    odds = zones.log_odds(probabilities, CORNERS)
    assert odds.shape == (20, zones.WEIGHTS - 1)
    for image, row in zip(probabilities, odds, strict=True):
        kept = [i for i, patch in enumerate(image) if patch.argmax() != 0]
        down = _shares([int(CORNERS[i, 0]) for i in kept], 3)
        across = _shares([int(CORNERS[i, 1]) for i in kept], 4)
        expected = []
        for r in range(3):
            for c in range(4):
                negative = positive = 0.5
                for i, of_rows, of_columns in zip(kept, down, across, strict=True):
                    negative += image[i, 1] * float(of_rows[r] * of_columns[c])
                    positive += image[i, 2] * float(of_rows[r] * of_columns[c])
                expected.append(np.log(positive / negative))
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-12)


def test_images_without_a_relevant_patch_have_no_zones():
    probabilities = _probabilities(1)
    probabilities[3] = [0.6, 0.1, 0.3]
    odds = zones.log_odds(probabilities, CORNERS)
    np.testing.assert_array_equal(np.isnan(odds).all(axis=1), np.arange(20) == 3)
    assert np.isnan(odds).any(axis=1).sum() == 1


def test_a_single_relevant_patch_lies_in_all_zones_alike():
    probabilities = np.tile([1.0, 0.0, 0.0], (1, len(CORNERS), 1))
    probabilities[0, 7] = [0.0, 0.0, 1.0]
    odds = zones.log_odds(probabilities, CORNERS)
    np.testing.assert_allclose(odds, np.log((1 / 12 + 0.5) / 0.5), rtol=1e-12)


def test_no_small_change_of_the_weights_fits_better():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(80, 12)) * rng.uniform(0.1, 3, 12) + rng.normal(size=12)
    labels = rng.random(80) < 1 / (1 + np.exp(-features[:, 1] + features[:, 5]))
    weights = zones.fit(features, labels.astype(int))
    spread = features.std(axis=0)

    def loss(weights):
        chance = jax.nn.sigmoid(features @ weights[:-1] + weights[-1])
        likelihood = jnp.sum(jnp.where(labels, jnp.log(chance), jnp.log(1 - chance)))
        return 15.0 * jnp.sum((weights[:-1] * spread) ** 2) - likelihood

    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(weights)), 0, atol=1e-8)
        np.testing.assert_allclose(
            zones.chances(features, weights),
            jax.nn.sigmoid(jnp.asarray(features) @ weights[:-1] + weights[-1]),
            rtol=1e-9,
        )


def test_where_there_is_one_class_nothing_is_weighed():
    weights = zones.fit(np.random.default_rng(3).normal(size=(9, 12)), np.ones(9, int))
    np.testing.assert_array_equal(weights, np.zeros(zones.WEIGHTS))
    np.testing.assert_array_equal(zones.chances(np.ones((2, 12)), weights), [0.5, 0.5])


def test_numbers_of_a_stranger_overflow_nothing():
    odds, weights = np.full((2, 12), 20.0), np.full(zones.WEIGHTS, 1e6)
    weights = np.stack([weights, -weights])
    chances = [zones.chances(odds, row) for row in weights]
    np.testing.assert_array_equal(chances, [[1, 1], [0, 0]])


@pytest.mark.parametrize("rule", ["soft", "zones"])
def test_a_disease_with_a_place_is_found_by_zones(rule):
    """All images hold as many positive patches; of the diseased they lie in the upper half."""
    rng = np.random.default_rng(4)
    labels = rng.permutation(np.arange(120) % 2)
    upper = CORNERS[:, 0] < np.median(CORNERS[:, 0])
    logits = rng.normal(size=(120, len(CORNERS)))
    logits += np.where(labels[:, None] == upper, 1.0, -1.0)
    logits -= logits.mean(axis=1, keepdims=True)
    positive = 1 / (1 + np.exp(-logits))
    probabilities = np.stack([1 - positive, positive], axis=-1)
    train, test = np.arange(120) < 80, np.arange(120) >= 80
    weights = decision.fit_weights(rule, probabilities[None, train], labels[train], CORNERS)
    scores = decision.score(rule, probabilities[test], corners=CORNERS, weights=weights)
    auc = metrics.auc(scores, labels[test])
    assert (auc > 0.95) == (rule == "zones")
