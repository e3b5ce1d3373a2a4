import io

import numpy as np
import pytest
from PIL import Image

from gxdistill.data import leaks


@pytest.fixture(scope="module")
def images():
    """Smooth pictures with fine grain, each another."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(20):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8))
        smooth = np.asarray(coarse.resize((160, 160), Image.Resampling.BICUBIC), float)
        pictures.append((40 + 0.6 * smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).round())
    return np.array(pictures, np.uint8)


def _jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "jpeg", quality=30)
    return np.asarray(Image.open(file))


def _noisy(image):
    noise = np.random.default_rng(1).normal(0, 8, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


COPIES = {
    "same": lambda image: image,
    "jpeg": _jpeg,
    "half": lambda image: np.asarray(Image.fromarray(image).resize((80, 80))),
    "gamma": lambda image: (255 * (image / 255) ** 1.5).astype(np.uint8),
    "levels": lambda image: (20 + 0.7 * image).astype(np.uint8),
    "noise": _noisy,
}


def _find(images, splits, **columns):
    n = len(images)
    given = {
        "patients": np.array([f"p{i}" for i in range(n)]),
        "sites": np.array([f"s{i}" for i in range(n)]),
        "names": [f"{i}.png" for i in range(n)],
        "hashes": np.array([leaks.image_hash(image) for image in images]),
    }
    return leaks.find(np.array(splits), **(given | columns))


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_a_copy_is_found_among_others_and_nothing_else(copy, images):
    with_copy = [*images, copy(images[3])]
    leaked = _find(with_copy, ["train"] * 10 + ["test"] * 11)
    assert leaked == (leaks.Leak("duplicate", "3.png", "20.png"),)
    # Within a split a copy is no leak.
    assert _find(with_copy, ["train"] * 21) == ()


def test_patients_and_sites_of_both_splits_are_named(images):
    leaked = _find(
        images[:6],
        ["train", "train", "test", "test", "train", "test"],
        patients=np.array(["b", "a", "a", "c", "d", "b"]),
        sites=np.array(["x", "y", "y", "y", "x", "z"]),
    )
    assert leaked == (
        leaks.Leak("patient", "a", "a"),
        leaks.Leak("patient", "b", "b"),
        leaks.Leak("site", "y", "y"),
    )


def test_pairs_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr(leaks, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 2**63, (6, 4), np.uint64)
    hashes = centres[rng.integers(0, 6, 60)]
    for leak in hashes:  # changes up to 24 bits of each
        for bit in rng.integers(0, 256, rng.integers(0, 25)):
            leak[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    splits = np.where(rng.random(60) < 0.5, "train", "test")
    leaked = _find(np.zeros((60, 20, 20), np.uint8), splits, hashes=hashes)
    expected = {
        (i, j)
        for i in np.flatnonzero(splits == "train")
        for j in np.flatnonzero(splits == "test")
        if sum(int(a ^ b).bit_count() for a, b in zip(hashes[i], hashes[j], strict=True)) <= 16
    }
    assert {(int(leak.train[:-4]), int(leak.test[:-4])) for leak in leaked} == expected
    assert expected
