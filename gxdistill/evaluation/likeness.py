"""What images are like, in a few moments each, and whether others are of the same kind.

A network's decisions hold for images such as it was trained on. A sender can say in a few numbers
what those were like; a receiver compares. Drift of single features is what is looked at, as in
Rabanser et al. 2019, https://arxiv.org/abs/1810.11953, who find such tests on what a network makes
of the images strong; the thresholds here are wide, for a few images must not raise the alarm.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

_DARK, _BRIGHT = 4, 251  # Levels up to the one and from the other on are background, as are bands.
_FEWEST = 8  # Images of a sender whose deviations can be believed.
_LEAST = 1.0  # Deviations of single images by which a mean must differ, however many images.
_SURE = 4.0  # Deviations of the difference of two means by which it must.

# What a value above and below the sender's is called, and the least deviation that is believed:
# images of a sender that were all made alike do not make every other one strange.
_WORDS = {
    "mean": ("Your images are brighter", "Your images are darker", 2.0),
    "std": ("Your images are richer in contrast", "Your images are poorer in contrast", 2.0),
    "skewness": (
        "More of your images is dark, and less is bright,",
        "More of your images is bright, and less is dark,",
        0.05,
    ),
    "percentile_5": (
        "The dark parts of your images are brighter",
        "The dark parts of your images are darker",
        4.0,
    ),
    "percentile_95": (
        "The bright parts of your images are brighter",
        "The bright parts of your images are darker",
        4.0,
    ),
    "sharpness": (
        "Your images are sharper, or noisier,",
        "Your images are smoother, or blurred,",
        0.2,
    ),
    "background": (
        "Your images have more black or white area",
        "Your images have less black or white area",
        0.01,
    ),
    "entropy": (
        "The networks are less sure of your images",
        "The networks are more sure of your images",
        0.01,
    ),
}


def _of_levels(image: np.ndarray) -> Iterator[tuple[str, float]]:
    counts, levels = np.bincount(image.ravel(), minlength=256), np.arange(256)
    shares = counts / image.size
    mean = float(shares @ levels)
    std = math.sqrt(shares @ (levels - mean) ** 2)
    below = np.cumsum(counts)
    yield "mean", mean
    yield "std", std
    yield "skewness", float(shares @ (levels - mean) ** 3) / std**3 if std else 0.0
    for percent in (5, 95):
        yield f"percentile_{percent}", float(np.argmax(100 * below >= percent * image.size))
    steps = [np.abs(np.diff(image.astype(np.int16), axis=axis)).ravel() for axis in (0, 1)]
    yield "sharpness", float(np.concatenate(steps).mean()) if image.size > 1 else 0.0
    yield "background", float(shares[: _DARK + 1].sum() + shares[_BRIGHT:].sum())


def _of_patches(probabilities: np.ndarray) -> Iterator[tuple[str, float]]:
    for k, mean in enumerate(probabilities.mean(axis=0, dtype=np.float64).tolist()):
        yield f"probability_{k}", mean
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny), dtype=np.float64)
    yield "entropy", float(-(probabilities * logs).sum(axis=1).mean())


def describe_images(images: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Describes each image by a few moments, of its grey levels and of what networks make of it.

    Args:
      images: as the networks are given them, `[n, H, W, C]` uint8, C at least 1.
      probabilities: of their patches, `[n, n_patches, K]`.

    Returns:
      Of each feature its values, `[n]` float64: `mean`, `std`, `skewness`, `percentile_5` and
      `percentile_95` of the levels 0 to 255; `sharpness`, the mean absolute difference of
      neighbouring pixels; `background`, the share of black and white pixels; `probability_0` to
      `probability_{K - 1}`, means over the patches; `entropy`, theirs, in nats. NaN where a
      probability is.
    """
    rows = [
        {**dict(_of_levels(np.asarray(image))), **dict(_of_patches(patches))}
        for image, patches in zip(images, probabilities, strict=True)
    ]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _finite(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves images out of which a feature is not a number."""
    kept = np.all([np.isfinite(values) for values in features.values()], axis=0)
    return {name: values[kept] for name, values in features.items()}


def summarise(features: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Summarises what images are like, for a receiver to compare with.

    Args:
      features: from `describe_images`.

    Returns:
      `images`, their number, and `features`, of each its mean and sample standard deviation over
      the images, as JSON can hold them; None of fewer than eight images, of which no deviation
      could be believed.
    """
    kept = _finite(features)
    count = len(next(iter(kept.values())))
    if count < _FEWEST:
        return None
    moments = {
        name: [float(values.mean()), float(values.std(ddof=1))] for name, values in kept.items()
    }
    return {"images": count, "features": moments}


def _words(name: str, class_names: Sequence[str]) -> tuple[str, str, float] | None:
    if name in _WORDS:
        return _WORDS[name]
    for k, class_name in enumerate(class_names):
        if name == f"probability_{k}":
            return (
                f"The networks see more of {class_name!r} in your images",
                f"The networks see less of {class_name!r} in your images",
                0.01,
            )
    return None


def compare(
    sender: Mapping[str, Any], receiver: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> list[str]:
    """Says in plain words where a receiver's images are of another kind than the sender's.

    Of each feature, the mean over the receiver's images is held against the sender's. It is told
    where it differs by more than the deviation of single images, and by more than four deviations
    of the difference of two means of so many images: of one image, four of its own.

    Args:
      sender: from `summarise`, or out of a package; features that are not known here are passed
        over, and so is all of fewer than eight images.
      receiver: from `describe_images`.
      class_names: of the K classes, for the words.

    Returns:
      A sentence for each such feature, the strangest first.
    """
    kept = _finite(receiver)
    count = len(next(iter(kept.values()), ()))
    if not count or sender["images"] < _FEWEST:
        return []
    limit = max(_LEAST, _SURE * math.sqrt(1 / count + 1 / sender["images"]))
    told = []
    for name in kept.keys() & sender["features"].keys():
        words = _words(name, class_names)
        if words is None:
            continue
        above, below, least = words
        mean, std = sender["features"][name]
        here = float(kept[name].mean())
        size = (here - mean) / max(std, least)
        if abs(size) > limit:
            told.append(
                (
                    -abs(size),
                    f"{above if size > 0 else below} than the sender's: {_label(name)} is "
                    f"{here:.3g} on average, there {mean:.3g}, give or take {std:.3g} an image. "
                    f"Decisions may not hold.",
                )
            )
    return [sentence for _, sentence in sorted(told)]


def _label(name: str) -> str:
    return {
        "mean": "the mean grey level",
        "std": "the deviation of grey levels",
        "skewness": "the skewness of grey levels",
        "percentile_5": "the 5th percentile of grey levels",
        "percentile_95": "the 95th percentile of grey levels",
        "sharpness": "the difference of neighbouring pixels",
        "background": "the share of black and white pixels",
        "entropy": "the entropy of a patch",
    }.get(name, "its mean probability")


def all_alike(decisions: Sequence[str]) -> bool:
    """Tells whether five decided images or more are all decided alike.

    Args:
      decisions: of each image its class, or "undecidable", which does not count.
    """
    decided = [name for name in decisions if name != "undecidable"]
    return len(decided) >= 5 and len(set(decided)) == 1
