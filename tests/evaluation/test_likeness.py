import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from gxdistill.evaluation import likeness

CLASSES = ("irrelevant", "negative", "positive")


def _images(rng, count):
    """Smooth fields that differ in brightness, contrast and in the width of a black band."""
    fields = scipy.ndimage.gaussian_filter(rng.standard_normal((count, 20, 20)), (0, 1.5, 1.5))
    fields /= fields.std(axis=(1, 2), keepdims=True)
    mean = rng.normal(130, 9, (count, 1, 1))
    contrast = 20 * np.exp(rng.normal(0, 0.15, (count, 1, 1)))
    images = mean + contrast * fields + rng.normal(0, 2, fields.shape)
    for image, width in zip(images, rng.poisson(1, count), strict=True):
        image[:, : min(width, 8)] = 0
    return images.clip(0, 255).astype(np.uint8)[..., None]


def _probabilities(images):
    """What a network may make of quarters: the brighter, the more positive."""
    quarters = images.reshape(len(images), 2, 10, 2, 10).mean(axis=(2, 4)).reshape(-1, 4)
    logits = np.stack([0.02 * (90 - quarters), 0 * quarters, 0.03 * (quarters - 120)], axis=-1)
    powers = np.exp(logits)
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


def _described(images):
    return likeness.describe_images(images, _probabilities(images))


def test_features_are_those_of_loops_and_of_scipy():
    images = _images(np.random.default_rng(0), 5)
    probabilities = _probabilities(images)
    features = likeness.describe_images(images, probabilities)
    for i, image in enumerate(images[..., 0]):
        pixels = image.ravel().astype(float)
        expected = {
            "mean": pixels.mean(),
            "std": pixels.std(),
            "skewness": scipy.stats.skew(pixels),
            "percentile_5": np.percentile(pixels, 5, method="inverted_cdf"),
            "percentile_95": np.percentile(pixels, 95, method="inverted_cdf"),
            "background": np.mean([p <= 4 or p >= 251 for p in pixels]),
            "entropy": scipy.stats.entropy(probabilities[i], axis=1).mean(),
        }
        steps = [
            abs(float(image[r, c]) - float(image[r + down, c + 1 - down]))
            for down in (0, 1)
            for r in range(20 - down)
            for c in range(20 - 1 + down)
        ]
        expected["sharpness"] = sum(steps) / len(steps)
        for k in range(3):
            expected[f"probability_{k}"] = probabilities[i, :, k].astype(float).mean()
        assert features.keys() == expected.keys()
        for name, value in expected.items():
            assert features[name][i] == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_an_image_of_one_level_has_features_too():
    blank = np.full((1, 6, 6, 1), 7, np.uint8)
    features = likeness.describe_images(blank, np.array([[[0, 1, 0]]], np.float32))
    values = {name: float(row[0]) for name, row in features.items()}
    assert values == {
        "mean": 7,
        "std": 0,
        "skewness": 0,
        "percentile_5": 7,
        "percentile_95": 7,
        "sharpness": 0,
        "background": 0,
        "entropy": 0,
        "probability_0": 0,
        "probability_1": 1,
        "probability_2": 0,
    }


def test_a_summary_holds_mean_and_deviation_without_images_of_a_diverged_network():
    features = _described(_images(np.random.default_rng(1), 12))
    features["entropy"][3] = np.nan
    summary = likeness.summarise(features)
    assert summary["images"] == 11
    for name, (mean, std) in summary["features"].items():
        values = [value for i, value in enumerate(features[name].tolist()) if i != 3]
        assert mean == pytest.approx(sum(values) / 11)
        assert std == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 10))
    assert likeness.summarise({name: row[:8] for name, row in features.items()}) is None


KINDS = {
    "darker": lambda image: image * 0.6,
    "inverted": lambda image: 255 - image,
    "flatter": lambda image: 130 + 0.35 * (image - 130.0),
    "blurred": lambda image: scipy.ndimage.gaussian_filter(image.astype(float), (0, 1.5, 1.5, 0)),
    "noisy": lambda image: image + np.random.default_rng(5).normal(0, 15, image.shape),
}


@pytest.mark.parametrize("count", [1, 3, 8, 30, 300])
def test_images_of_the_same_kind_are_seldom_flagged(count):
    """A null simulation: sender and receiver draw from one population, again and again."""
    rng = np.random.default_rng(2)
    population = _described(_images(rng, 4000))
    repeats, flagged = 200, 0
    for _ in range(repeats):
        rows = rng.choice(4000, 60 + count, replace=False)
        sender = likeness.summarise({name: row[rows[:60]] for name, row in population.items()})
        here = {name: row[rows[60:]] for name, row in population.items()}
        flagged += bool(likeness.compare(sender, here, CLASSES))
    assert flagged <= 0.05 * repeats


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_another_kind_are_nearly_always_flagged(kind):
    rng = np.random.default_rng(3)
    images = _images(rng, 1000)
    population = _described(images)
    other = _described(KINDS[kind](images).clip(0, 255).astype(np.uint8))
    repeats, flagged = 100, {8: 0, 30: 0}
    for _ in range(repeats):
        rows = rng.choice(1000, 90, replace=False)
        sender = likeness.summarise({name: row[rows[:60]] for name, row in population.items()})
        for count in flagged:
            here = {name: row[rows[60 : 60 + count]] for name, row in other.items()}
            flagged[count] += bool(likeness.compare(sender, here, CLASSES))
    assert flagged[30] >= 0.95 * repeats
    assert flagged[8] >= 0.9 * repeats


def test_what_differs_most_is_told_first_in_plain_words():
    features = {"mean": [100.0, 10.0], "std": [30.0, 2.0], "probability_2": [0.5, 0.1]}
    sender = {"images": 64, "features": features}
    here = {
        "mean": np.full(25, 70.0),  # 3 deviations
        "std": np.full(25, 50.0),  # 10
        "probability_2": np.full(25, 0.58),  # 0.8, which is not told
    }
    told = likeness.compare(sender, here, CLASSES)
    assert told == [
        "Your images are richer in contrast than the sender's: the deviation of grey levels is 50 "
        "on average, there 30, give or take 2 an image. Decisions may not hold.",
        "Your images are darker than the sender's: the mean grey level is 70 on average, there "
        "100, give or take 10 an image. Decisions may not hold.",
    ]
    # Of a few images the mean is less sure: 4 deviations of the difference of two means.
    for count, expected in ((1, ["std"]), (2, ["std", "mean"])):
        few = {name: values[:count] for name, values in here.items()}
        limit = 4 * math.sqrt(1 / count + 1 / 64)
        assert (limit < 3) == ("mean" in expected)
        assert likeness.compare(sender, few, CLASSES) == told[: len(expected)]
    here["probability_2"] -= 0.3
    assert any("see less of 'positive'" in line for line in likeness.compare(sender, here, CLASSES))


def test_a_strangers_summary_raises_no_error():
    here = _described(_images(np.random.default_rng(4), 20))
    features = {"another": [0.0, -1.0], "mean": [1e300, -1e300], "probability_9": [0.0, 0.0]}
    (sentence,) = likeness.compare({"images": 9, "features": features}, here, CLASSES)
    assert sentence.startswith("Your images are darker")
    assert likeness.compare({"images": 9, "features": {}}, here, CLASSES) == []
    assert likeness.compare({"images": 7, "features": features}, here, CLASSES) == []


def test_five_decided_alike_are_told():
    assert likeness.all_alike(["a"] * 5)
    assert likeness.all_alike(["a"] * 5 + ["undecidable"])
    assert not likeness.all_alike(["a"] * 4 + ["undecidable"])
    assert not likeness.all_alike(["a"] * 5 + ["b"])
    assert not likeness.all_alike(["undecidable"] * 9)
