"""A small package; other processes make it too, by importing this file."""

import dataclasses

import jax
import numpy as np

from gxdistill import package, storage
from gxdistill.package import content, precision
from gxdistill.pytrees import Distilled

S, E, B, H, C, K = 2, 3, 4, 8, 1, 3

LEDGER = {
    "unit": "patient",
    "adjacency": "add_or_remove",
    "delta": 0.001,
    "budget": 8.0,
    "epsilon": 7.9961,
    "conversion": "privacy loss distributions",
    "events": [
        {
            "what": "meta-gradient",
            "mechanism": "sampled_gaussian",
            "sensitivity": 0.5,
            "noise_multiplier": 1.81,
            "sampling_probability": 0.2,
            "count": 300,
            "unit": "patient",
            "stream": "0123456789abcdef",
        },
    ],
    "uncovered": ["the choice of the settings"],
}


def make_manifest(name="tiny0"):
    figure = {"mean": 0.781, "std": 0.0123, "n": 5, "low": 0.7, "high": 0.85}
    split = {"images": 70, "patients": 35, "labels": {"negative": 40, "positive": 30}}
    table = {
        "name": name,
        "purpose": "To test <packages>.",
        "licence": "CC BY 4.0",
        "cohort": {
            "images": 100,
            "patients": 50,
            "sites": 2,
            "quarantined": 3,
            "splits": {"train": split, "test": {"images": 30, "patients": 15, "labels": {}}},
        },
        # Not of the zoo, whose networks have weights of their own names and shapes.
        "network": {"name": "tiny-net", "options": {"width": 32, "norm": "group"}},
        "init": {"rule": "known", "seed": 3},
        "distillation": {
            "steps": S,
            "epochs": E,
            "images_per_step": B,
            "label_rule": "softmax",
            "loss": "cross_entropy",
            "started_from": "noise",
            "inner": {"name": "sgd"},
            "augmentations": [],
            "outer_steps": 400,
            "settings": {"networks": 1, "optimizer": {"lr": 0.01}},
        },
        "patch": {
            "size": H,
            "stride": 4,
            "border": True,
            "irrelevant_below": 0.01,
            "inside_above": 0.85,
            "image_height": 64,
            "image_width": 48,
            "channels": C,
            "downscale": 2,
        },
        "reading": None,
        "image_normalisation": "cohort",
        "normalisation": {"mean": [0.5], "std": [0.25]},
        "class_names": ["irrelevant", "negative", "positive"],
        "precision": "float32",
        "proof": None,
        "decision": {
            "rule": "soft",
            "weights": [],
            "tau": 0.4375,
            "share_positive": 0.4,
            "networks": 5,
        },
        "likeness": {"images": 60, "features": {"mean": [127.5, 9.25], "entropy": [0.5, 0.125]}},
        "results": {"images": {"auc": None, "hm": figure, "undecidable": 1.0}},
        "ledger": None,
        "privacy": "No guarantee is given by this test. " * 5,
    }
    return package.from_json(package.Manifest, table)


def make(seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    distilled = Distilled(normal(S, B, H, H, C), normal(S, B, K), normal(S * E))
    start = {"params": {"Dense_0": {"kernel": normal(5, K), "bias": normal(K)}}}
    return package.Package(distilled, make_manifest(f"tiny{seed}"), start)


def make_rounded(kind, seed=0):
    """The package with its images rounded to a precision."""
    made = make(seed)
    images = made.distilled.images
    grid = precision.spanning(images, kind) if kind in precision.LEVELS else None
    data = made.distilled.replace(images=precision.round_to(images, kind, grid))
    return change(dataclasses.replace(made, distilled=data, grid=grid), precision=kind)


def change(content, part=None, **changes):
    """The package with other fields of its manifest, or of a part of that."""
    if part is not None:
        changes = {part: dataclasses.replace(getattr(content.manifest, part), **changes)}
    manifest = dataclasses.replace(content.manifest, **changes)
    return dataclasses.replace(content, manifest=manifest)


def bits(tree):
    leaves = jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda leaf: (leaf.dtype, leaf.shape, leaf.tobytes()), leaves)


def content_bits(package):
    return bits(package.distilled), bits(package.start), package.manifest


def members(path):
    """The files in a package, which need not be whole."""
    return {name: bytes(part) for name, part in storage.unpack(path.read_bytes(), path).items()}


def repack(path, change, *, sums=True):
    """Changes the files in a package, as one who knows how to make it whole again.

    Args:
      path: of the package.
      change: changes a dict of bytes.
      sums: whether `SHA256SUMS` is made anew.
    """
    files = members(path)
    change(files)
    if sums:
        files[content.SUMS] = content.sums(files)
    path.write_bytes(storage.pack(files))
